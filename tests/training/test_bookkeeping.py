"""Each rank checks its own files of a checkpoint, and ranks meet over gloo with a time limit of its own."""

import json
import subprocess
import sys

import pytest
from helpers.commands import environment
from helpers.ranks import only_rank

from amscale.files import packaged
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.checkpoint import _files_of
from amscale.trials.trial_store import TrialStore

FILES = [
    "engine/mp_rank_00_model_states.pt",
    "engine/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "engine/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "engine/bf16_zero_pp_rank_10_mp_rank_00_optim_states.pt",
    "latest",
    "progress.json",
]


def test_every_file_of_a_checkpoint_is_one_ranks(tmp_path, monkeypatch):
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    books = Bookkeeping(60)
    found = {}
    for rank in range(12):
        books.rank = rank
        monkeypatch.setenv("LOCAL_RANK", str(rank % 8))  # two machines
        found[rank] = _files_of(books, tmp_path, shared=True)
    assert sorted(file for files in found.values() for file in files) == sorted(FILES)
    assert {rank: files for rank, files in found.items() if files} == {
        0: [FILES[0], FILES[1], "latest", "progress.json"],
        1: [FILES[2]],
        10: [FILES[3]],
    }
    books.rank = 8
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert _files_of(books, tmp_path, shared=False) == [FILES[0], "latest", "progress.json"]


def test_parts_of_a_check_find_what_the_whole_finds(tmp_path):
    from amscale.trials.objects import checksums

    store = TrialStore(tmp_path)
    folder = store.checkpoints / "step_000000010"
    for number, file in enumerate(FILES):
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_text(str(number))
    (folder / store.manifest).write_text(json.dumps(checksums(folder, but=store.manifest)))
    assert [store.fetch_checkpoint(folder.name, (part, 4)) for part in range(4)] == [None] * 4
    (folder / FILES[2]).write_text("x")
    damages = [store.fetch_checkpoint(folder.name, (part, 4)) for part in range(4)]
    assert [damage for damage in damages if damage] == [f"{FILES[2]} is missing or changed"]


WAITING = """
import sys, time
import torch.distributed as dist
from amscale.streams import end_rank
from amscale.training.bookkeeping import Bookkeeping
dist.init_process_group("gloo")
books = Bookkeeping(float(sys.argv[1]))
assert books.gather({"rank": books.rank}) == [{"rank": 0}, {"rank": 1}]
if books.rank == 1:
    time.sleep(5)
books.wait()
books.wait()
end_rank(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "ends_well"), [(600, True), (1, False)])
def test_the_time_limit_is_the_bookkeepings_own(seconds, ends_well, tmp_path):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ran = subprocess.run(
        [*torchrun, str(script), str(seconds)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (ran.returncode == 0) == ends_well, ran.stderr


SAVING = """
import json, os, sys
from pathlib import Path
import deepspeed.comm as dist
import torch
from accelerate.state import AcceleratorState
from amscale.config import TrainSettings
from amscale.training import checkpoint, engine
from amscale.training.bookkeeping import Bookkeeping
from amscale.trials.records import Placement
from amscale.trials.trial_store import TrialStore

events = []
def noted(name, call):
    def note(*arguments, **options):
        events.append(name)
        return call(*arguments, **options)
    return note

for stage, file in json.loads(sys.argv[1]).items():
    AcceleratorState._reset_state()
    os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = file
    accelerator = engine.start_accelerator(Placement(1, 1, 1, "cpu", int(stage), "fp32", 4, 1))
    prepared, _ = engine.prepare(accelerator, torch.nn.Linear(4, 4), TrainSettings(steps=1, batch_tokens=4), 4)
    books, saver = Bookkeeping(60), prepared.checkpoint_engine
    books.wait = noted("wait", books.wait)
    store = TrialStore(Path(sys.argv[2]) / stage)
    original = dist.barrier, dist.all_gather_into_tensor
    dist.barrier, dist.all_gather_into_tensor = (noted("meet", call) for call in original)
    saver.save = noted("write", saver.save)
    events.append(f"stage {stage}")
    checkpoint.save(books, prepared, store, checkpoint.Progress(step=1), 1)
    dist.barrier, dist.all_gather_into_tensor = original
    assert checkpoint.newest_whole(books, store), "no whole checkpoint"
    assert "commit" not in vars(saver)
print(json.dumps(events), file=open(Path(sys.argv[2]) / "events.json", "w"))
os._exit(0)
"""


@pytest.mark.slow
def test_ranks_that_have_written_wait_by_the_bookkeeping_before_they_meet(tmp_path):
    """Rank 0 writes all of a stage-0 checkpoint; the others would wait for it in a collective of training."""
    files = {stage: str(packaged("launch") / f"zero{stage}.json") for stage in (0, 1, 3)}
    command = [sys.executable, "-c", SAVING, json.dumps(files), str(tmp_path)]
    ran = subprocess.run(
        command, env=environment() | only_rank(), capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    events = json.loads((tmp_path / "events.json").read_text())
    for stage in " ".join(events).split("stage ")[1:]:
        after_the_last_file = stage.rpartition("write")[2].split()
        assert after_the_last_file[0] == "wait", stage
        assert "meet" in after_the_last_file, stage
