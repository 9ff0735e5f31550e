"""Data stays data, paths stay inside, and what was written by others runs nothing."""

import json
import os
import pickle
import re
from pathlib import Path

import pytest
import yaml

import amscale
from amscale import config
from amscale.cluster.machine import launch_command
from amscale.config import load
from amscale.data import prepare
from amscale.errors import InputError, one_line
from amscale.training import checkpoint
from amscale.training.engine import EngineError
from amscale.training.resolve import resolve
from amscale.trials.records import Placement
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

SOURCE = Path(amscale.__file__).parent


@pytest.fixture
def spec(tmp_path):
    """The spec of a trial whose token store is there: a function that changes it and writes it."""
    overrides = ["model.size=25k", "data.size=2k", "data.documents=500", "data.validation=100"]
    cell = config.expand(load("grammar.yaml", overrides))[0]
    store = prepare(cell.data, tmp_path / "tokens")
    folder = SweepStore(tmp_path / "sweep").trial("trial")
    folder.write_spec(cell, Placement(1, 1, 1, "cpu", 0, "fp32", 4, 1), store.folder, "0" * 12)
    whole = yaml.safe_load(folder.spec.read_text())

    def write(**changes):
        folder.spec.write_text(yaml.safe_dump(whole | changes))
        return str(folder.spec)

    return write


def test_a_store_is_looked_for_in_the_sweeps_storage_alone(spec, tmp_path):
    own = resolve(spec(), [])[3].folder
    elsewhere = tmp_path / "elsewhere" / own.name
    elsewhere.parent.mkdir()
    own.rename(elsewhere)
    for store in (str(elsewhere), f"../elsewhere/{own.name}", f"tokens/../elsewhere/{own.name}"):
        with pytest.raises(InputError, match="is not a token store"):
            resolve(spec(store=store), [])
    elsewhere.rename(own)
    # The name counts: results that were moved as a whole are found where they are.
    assert resolve(spec(store=f"/the/old/place/tokens/{own.name}"), [])[3].folder == own
    for store in ("..", "/", "", ".", "x/..", "a\0b"):
        with pytest.raises(InputError, match="names no token store"):
            resolve(spec(store=store), [])


@pytest.mark.parametrize("label", ["../other", "/tmp/x", "a/b", "", ".", "..", "a\0b", "a\nb"])
def test_a_label_is_one_part_of_a_path(spec, label):
    with pytest.raises(InputError, match="label="):
        resolve(spec(label=label), [])


@pytest.mark.parametrize("name", ["../other", "/tmp/x", "a/b", "", ".", "..", "a\0b", ".hidden", "a" * 101])
def test_a_sweeps_name_is_one_part_of_a_path(name):
    tree = yaml.safe_load((SOURCE.parent / "configs" / "grammar.yaml").read_text()) | {"name": name}
    with pytest.raises(InputError, match="name="):
        config.parse(tree)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {canary}']",
        "!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
        "a: &a [*a]",
        "\n".join(["a: &a0 [x, x]", *(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]),
        "[" * 2000,
        "seed: " + "9" * 5000,
    ],
)
def test_a_configuration_is_data_of_bounded_size(tmp_path, text):
    canary = tmp_path / "canary"
    (tmp_path / "bad.yaml").write_text(text.replace("{canary}", str(canary)))
    with pytest.raises(InputError) as refused:
        load(str(tmp_path / "bad.yaml"))
    assert len(str(refused.value)) < 2000
    assert not canary.exists()


def test_no_source_file_runs_what_it_reads():
    """pickle, eval, unsafe YAML and the shell stay out; `ast.literal_eval` reads literals only."""
    forbidden = re.compile(
        r"\bimport pickle|pickle\.load|torch\.load\(|yaml\.(load|unsafe_load|full_load)\(|allow_pickle=True|"
        r"shell=True|os\.system\(|(?<![\w.`])(eval|exec)\("
    )
    # Reads the error that Tune, in the same process, has pickled into a temporary folder of this user alone.
    allowed = {"listener.py"}
    found = [
        f"{path.name}:{number}"
        for path in SOURCE.rglob("*.py")
        if path.name not in allowed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert not found


def test_weights_from_others_are_safetensors_only(tmp_path):
    """A model folder with pickled weights is refused, and its pickle is not opened."""
    from transformers import GPT2Config

    from amscale.radius.configuration import PretrainedModel
    from amscale.radius.subject import pretrained_subject

    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    folder = tmp_path / "model"
    GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16).save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match="safetensors"):
        pretrained_subject(PretrainedModel(source="pretrained", path=str(folder)))
    assert not canary.exists()


def test_a_file_that_is_not_listed_makes_a_checkpoint_damaged(tmp_path):
    """DeepSpeed unpickles whatever has the right name, so a whole checkpoint holds what its list says and no more."""
    from amscale.training.bookkeeping import Bookkeeping
    from amscale.trials.objects import checksums

    store = TrialStore(tmp_path)
    folder = store.checkpoints / "step_000000010"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "states.pt").write_bytes(b"states")
    (folder / "progress.json").write_text(json.dumps({"step": 10}))
    (folder / "checksums.json").write_text(json.dumps(checksums(folder, but="checksums.json")))
    books = Bookkeeping(60)
    assert checkpoint.newest_whole(books, store) == folder
    planted = folder / "engine" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    planted.write_bytes(b"planted")
    assert checkpoint.newest_whole(books, store) is None
    planted.unlink()
    (store.checkpoints / "step_000000020").symlink_to(folder)
    assert checkpoint.newest_whole(books, store) == folder


def test_a_lone_machine_meets_itself_on_loopback():
    command = launch_command(Placement(1, 2, 1, "cpu", 0, "fp32", 1, 1), ["spec"], rank=0, address="127.0.0.1", port=1)
    assert command[command.index("--main_process_ip") + 1] == "127.0.0.1"


def test_a_message_is_one_printable_line():
    assert one_line("a\nb\x1b[31mc\x00\ud800") == "a b\\x1b[31mc\\x00\\ud800"
    assert len(one_line("x" * 10**6)) < 2000


def test_a_pickle_in_a_checkpoint_runs_nothing(tmp_path):
    """Whatever DeepSpeed asks of torch, only tensors and its own three classes are taken."""
    import torch

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    class Engine:
        def load_checkpoint(self, folder: str, tag: str) -> None:
            torch.load(Path(folder) / tag / "states.pt", weights_only=False)

    facts = {"world_size": 1, "zero_stage": 0, "precision": "fp32"}
    (tmp_path / "engine").mkdir()
    (tmp_path / "progress.json").write_text(json.dumps({"step": 10, "engine": facts}))
    torch.save({"module": {"weight": torch.zeros(2)}, "step": 10}, tmp_path / "engine" / "states.pt")
    assert checkpoint.restore(Engine(), tmp_path, facts).step == 10
    torch.save({"module": Payload()}, tmp_path / "engine" / "states.pt")
    with pytest.raises(EngineError, match="holds more than DeepSpeed writes"):
        checkpoint.restore(Engine(), tmp_path, facts)
    assert not (tmp_path / "canary").exists()
