"""Mistakes that users make, through the real commands: one line that helps, exit status 2, nothing started."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from helpers.commands import TINY, command, ended
from helpers.made_sweep import write_sweep

from amscale.card import card
from amscale.clean import clean
from amscale.compare import compare
from amscale.export import export
from amscale.fit import fit
from amscale.plan import plan
from amscale.probe import probe
from amscale.report import report
from amscale.reproduce import reproduce
from amscale.status import status
from amscale.sweep import sweep
from amscale.trackers import TRACKERS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with configurations, a made sweep, and things that are none."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "tiny.yaml").write_text(f"{TINY}storage: {folder}/results\n")
    text = TINY.replace("{corpus: question_formation, documents: 2k, validation: 200}", "{corpus: text}")
    (folder / "text.yaml").write_text(f"{text}storage: {folder}/results\n")
    text = TINY.replace("{family: vanilla, layers: 2, dropout: 0.1}", "{family: custom}")
    (folder / "own.yaml").write_text(f"{text}storage: {folder}/results\n")
    (folder / "half.yaml").write_text(f"name: half\nmodel: {{family: vanilla}}\nstorage: {folder}/results\n")
    (folder / "latin.yaml").write_bytes("name: café\n".encode("latin-1"))
    (folder / "empty.yaml").write_text("")
    (folder / "twice.yaml").write_text("name: a\nname: b\n")
    (folder / "tab.yaml").write_text("train:\n\tsteps: 1\n")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "file").write_text("a file")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "points.csv").write_text("N,D,loss\n1,2,3\n")
    vocabulary = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "[UNK]"}
    (folder / "words.json").write_text(json.dumps({"version": "1.0", "model": vocabulary}))
    write_sweep(folder / "made", (6000,), (8000,), steps=20)
    write_sweep(folder / "small", (6000,), (8000,), steps=20)
    (folder / "small" / "sweep.yaml").write_text(f"format: 1\n{TINY}storage: {folder}\n")
    write_sweep(folder / "damaged", (6000,), (8000,), steps=20)
    (folder / "damaged" / "sweep.yaml").write_text("[")
    (folder / "unstarted" / "trials").mkdir(parents=True)
    (folder / "unstarted" / "sweep.yaml").write_text("format: 1\n")
    return folder


MISTAKES = (
    # keys
    (sweep, "{0}/tiny.yaml model.sise=3", "unknown key model.sise=3; docs/configuration.md lists"),
    (sweep, "{0}/tiny.yaml trian.steps=3", "did you mean train?"),
    (sweep, "{0}/tiny.yaml steps=3", "did you mean train.steps?"),
    (sweep, "{0}/tiny.yaml lr=1e-3", "did you mean train.learning_rate?"),
    (sweep, "{0}/tiny.yaml train", "'train' is not an override; write key=value"),
    (sweep, "{0}/tiny.yaml =3", "'=3' is not an override"),
    (sweep, "{0}/tiny.yaml model.sise=3", "; did you mean model.size?"),
    (sweep, "{0}/tiny.yaml --model.size=3", "--tensorboard, --json; settings are written key=value"),
    (sweep, "{0}/tiny.yaml --dry-rnu", "did you mean --dry_run?"),
    (probe, "radius_cpu.yaml model.pth=x", "did you mean model.path?"),
    # types and values
    (sweep, "{0}/tiny.yaml train.learning_rate=fast", "train.learning_rate='fast': a rule has no 'fast'; it has N,"),
    (sweep, "{0}/tiny.yaml train.learning_rate=-1", "train.learning_rate=-1 must be greater than 0"),
    (sweep, "{0}/tiny.yaml model.size=-400k", "model.size='-400k'"),
    (sweep, "{0}/tiny.yaml data.size=0", "data.size=0"),
    (sweep, "{0}/tiny.yaml seed=0.5", "seed=0.5"),
    (sweep, "{0}/tiny.yaml seed=[]", "grid.seed=[]: an axis needs at least one value"),
    (sweep, "{0}/tiny.yaml train.steps=[10,20]", "make it an axis: grid.train.steps=[10, 20]"),
    (sweep, "{0}/tiny.yaml train.batch_tokens=0", "train.batch_tokens=0"),
    (sweep, "{0}/tiny.yaml train.epochs=3", "give exactly one of train.steps and train.epochs"),
    (sweep, "{0}/tiny.yaml train.schedule=cosin", "train.schedule='cosin' must be 'cosine', 'linear'"),
    (sweep, "{0}/tiny.yaml name=my/sweep", "name='my/sweep': a name has letters, digits"),
    (sweep, "{0}/tiny.yaml train=[", "not valid YAML"),
    (sweep, "{0}/half.yaml", "data is missing (1 more like it); docs/configuration.md lists its settings"),
    (sweep, "{0}/tiny.yaml grid.name=[a,b]", "grid.name: not an axis; axes are keys of model"),
    # names of things that are not there
    (sweep, "{0}/absent.yaml", "absent.yaml: no such configuration; give a YAML file"),
    (sweep, "{0}/tiny.yaml model.family=bert", "model.family='bert'; allowed are 'vanilla', 'gpt2'"),
    (sweep, "{0}/tiny.yaml data.corpus=wikipedia", "data.corpus='wikipedia'; allowed are 'question_formation'"),
    (sweep, "{0}/tiny.yaml probes.extra={{norm:{{}}}}", "there is no probe 'norm'"),
    (sweep, "{0}/tiny.yaml data.tokenizer={0}/none.json", "none.json"),
    (sweep, "{0}/tiny.yaml data.tokenizer={0}/words.json", "words.json cannot encode the texts: WordLevel error"),
    (sweep, "{0}/text.yaml", "data.files"),
    (sweep, "{0}/text.yaml data.files={0}/none.txt", "none.txt"),
    (sweep, "{0}/text.yaml data.files={0}/binary.txt", "binary.txt"),
    # files that are something else
    (sweep, "{0}/latin.yaml", "latin.yaml: cannot be read: not UTF-8 text (byte 0xe9 in line 1); save it as UTF-8"),
    (sweep, "{0}/empty.yaml", "empty.yaml: empty; a configuration is a mapping"),
    (sweep, "{0}/twice.yaml", "the key 'name' is given twice, in lines 1 and 2"),
    (sweep, "{0}/tab.yaml", "line 2, column 1: a tab; indent with blanks"),
    (sweep, "{0}/file", "file: a configuration is a mapping of keys"),
    (sweep, "{0}", "cannot be read: Is a directory"),
    (sweep, "{0}/loop", "loop: cannot be read: Too many levels of symbolic links"),
    (sweep, "{0}/tiny.yaml storage={0}/file", "file"),
    (sweep, "{0}/tiny.yaml storage=/proc/nowhere", "storage='/proc/nowhere'"),
    (sweep, "{0}/tiny.yaml storage={0} name=empty.yaml", "empty.yaml: is a file; choose another name or storage"),
    (sweep, "{0}/tiny.yaml storage=s4://bucket/x", "s4://bucket/x"),
    # what the machine or the data cannot give
    (sweep, "{0}/tiny.yaml model.size=7", "model.size = 7"),
    (sweep, "{0}/tiny.yaml data.size=1B", "data.size: 1000000000 tokens (1B) wanted"),
    (sweep, "{0}/tiny.yaml seed=[0,0]", "two cells are one and the same trial (model.size="),
    (sweep, "{0}/tiny.yaml launch.processes_per_machine=999", "launch.processes_per_machine=999"),
    (sweep, "{0}/tiny.yaml launch.machines=2", "launch.machines=2"),
    (sweep, "{0}/tiny.yaml launch.device=cuda", "launch.device"),
    (sweep, "{0}/tiny.yaml data.validation=5000", "5000"),
    # commands that read
    (status, "{0}/empty", "empty: not a sweep folder"),
    (status, "{0}/loop", "loop"),
    (status, "{0}/none", "none: not a sweep folder"),
    (report, "{0}/unstarted", "no trial has finished yet (it has no trials)"),
    (report, "{0}/damaged", "damaged/sweep.yaml: not what a sweep writes"),
    (fit, "{0}/empty", "empty: not a sweep folder"),
    (fit, "{0}/none.csv", "none.csv"),
    (fit, "{0}/points.csv --n_column=params", "params"),
    (fit, "{0}/points.csv --count=total", "leave --count out"),
    (fit, "{0}/points.csv --resamples=few", "--resamples=few: not a number"),
    (fit, "{0}/points.csv --resmaples=100", "did you mean --resamples?"),
    (fit, "{0}/made --count=everything", "everything"),
    (fit, "{0}/made --hypotheses=two", "two"),
    (fit, "{0}/made --output={0}/file", "file"),
    (fit, "{0}/points.csv --output={0}/new/fits", "fewer than two sizes N"),
    (fit, "{0}/points.csv --forecast=N=1M,D=2M --save={0}/new/later.json", "fewer than two sizes N"),
    (report, "{0}/unstarted --output={0}/new/page", "no trial has finished yet (it has no trials)"),
    (plan, "{0}/tiny.yaml storage={0}/new/results model.size=7", "model.size = 7"),
    (plan, "{0}/text.yaml data.files={0}/none.txt", "none.txt"),
    (probe, "radius_cpu.yaml model.path={0}/none storage={0}/new", "none"),
    (probe, "radius_cpu.yaml model.path={0}/none", "none"),
    (plan, "{0}/tiny.yaml launch.zero_stage=4", "launch.zero_stage=4 must be 'auto', 0, 1, 2 or 3"),
    (plan, "{0}/tiny.yaml --on=h1000", "on='h1000' is not a card with known figures; give one of "),
    (fit, "{0}/made --next=2000", "next=2000 must be a whole number of cells from 1 to 12"),
    (fit, "{0}/made --where=data.nothing=3", "no finished trial has a setting 'data.nothing'"),
    (card, "{0}/none", "none: not a trial; give its folder, <storage>/<name>/trials/<label>"),
    (reproduce, "{0}/made", "made: not a trial; give its folder, <storage>/<name>/trials/<label>"),
    (compare, "{0}/made {0}/none", "none: not a sweep folder; give <storage>/<name>"),
    (clean, "{0}/none", "none: not a sweep folder; give <storage>/<name>"),
    (export, "{0}/made", "made/sweep.yaml: data is missing (1 more like it); docs/configuration.md lists its settings"),
    # a model, a script and a tracker of one's own
    (sweep, "{0}/tiny.yaml train.script={0}/none.py", "none.py' cannot be read"),
    (sweep, "{0}/own.yaml model.builder=nowhere:build", "model.builder: there is no module nowhere in "),
    (sweep, "{0}/tiny.yaml report_to=[wandbb]", "report_to: there is no tracker 'wandbb'; allowed are tensorboard"),
    # places that take no files, from root neither
    (sweep, "{0}/tiny.yaml storage=/sys", "/sys"),
    (fit, "{0}/made --output=/proc/nowhere", "output='/proc/nowhere': no folder can be made there"),
    (report, "{0}/made --output=/sys", "/sys"),
    (export, "{0}/small --output=/proc/nowhere/points.csv", "no folder can be made there"),
    # clusters
    (sweep, "{0}/tiny.yaml launch.address=localhost", "launch.address='localhost': no Ray cluster answers there"),
)  # fmt: skip


def files_of(place):
    """Return all there is in a folder but the finished token stores, which the next command reads."""
    tokens = place / "results" / "tokens"
    stores = {path for path in tokens.glob("*") if (path / "store.json").is_file()}
    kept = {tokens, tokens.parent} if stores else set()
    return {path for path in place.rglob("*") if not {path, *path.parents} & stores} - kept


@pytest.mark.parametrize(("function", "arguments", "words"), MISTAKES, ids=[words for _, words, _ in MISTAKES])
def test_a_mistake_is_named_in_one_line_and_leaves_nothing(function, arguments, words, place, capfd, monkeypatch):
    monkeypatch.chdir(place / "empty")
    before = files_of(place)
    assert ended(function, *(word.format(place) for word in arguments.split())) == 2
    said = capfd.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1, said.err
    assert said.out == ""
    assert files_of(place) == before


@pytest.fixture
def lacking(tmp_path, monkeypatch):
    """Make this process one of a machine that lacks something."""

    def driver():
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it cannot reach the driver.'\nexit 9\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def tracker():
        monkeypatch.delitem(sys.modules, "amscale.trackers.trackio", raising=False)
        monkeypatch.setitem(sys.modules, "trackio", None)
        monkeypatch.setattr(TRACKERS, "_loaded", {})

    return {"driver": driver, "tracker": tracker}


@pytest.mark.parametrize(
    ("what", "setting", "words"),
    [
        (
            "driver",
            "launch.device=cuda",
            "status 9 (NVIDIA-SMI has failed because it cannot reach the driver.); mend it,",
        ),
        ("driver", "launch.device=auto", "or give launch.device=cpu to train without GPUs"),
        ("tracker", "report_to=[trackio]", "report_to='trackio' needs a package that is not installed"),
    ],
)
def test_what_the_machine_lacks_is_named(lacking, what, setting, words, place, capfd, monkeypatch):
    monkeypatch.chdir(place / "empty")
    before = files_of(place)
    lacking[what]()
    assert ended(sweep, str(place / "tiny.yaml"), setting) == 2
    said = capfd.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1, said.err
    assert files_of(place) == before


def test_a_refused_configuration_leaves_what_the_sweep_has_recorded(place, capfd):
    """Its folder serves the one that it was run with, by which `fit` and `report` go on."""
    before = (place / "small" / "sweep.yaml").read_text()
    assert ended(sweep, str(place / "tiny.yaml"), f"storage={place}", "name=small", "model.size=7") == 2
    assert "model.size = 7" in capfd.readouterr().err
    assert (place / "small" / "sweep.yaml").read_text() == before


def test_a_sweep_that_is_too_dear_leaves_nothing(place, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    before = files_of(place)
    assert ended(sweep, str(place / "tiny.yaml"), f"storage={place}/dear/results", "--budget=0") == 2
    assert "machine hours, and --budget is 0" in capfd.readouterr().err
    assert {path.name for path in (place / "dear" / "results").iterdir()} == {"tokens"}
    shutil.rmtree(place / "dear")
    assert files_of(place) == before


def test_an_old_python_is_named():
    """From a checkout: pip installs nothing there."""
    code = "import sys; sys.version_info = (3, 9, 1); sys.argv[0] = {!r}; import amscale"
    ran = subprocess.run([sys.executable, "-c", code.format("-m")], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("amscale needs Python 3.11 or later, and ")
    assert ran.stderr.endswith(" is Python 3.9; make an environment of a later one\n")
    ran = subprocess.run([sys.executable, "-c", code.format("x.py")], capture_output=True, text=True, check=False)
    assert "ImportError: amscale needs Python 3.11" in ran.stderr


def test_a_head_whose_port_is_taken_is_named_and_ray_is_not_started():
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = [sys.executable, "-m", "amscale.cluster.run_node", head, "127.0.0.1"]
        ran = subprocess.run(arguments, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"run_node: head {head}: another program listens on that port of this machine; give a")
    assert ran.stderr.count("\n") == 1


def test_a_mistake_in_the_real_process(place):
    ran = command("sweep", str(place / "tiny.yaml"), "launch.address=127.0.0.1:1")
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "launch.address='127.0.0.1:1'" in ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr


@pytest.mark.parametrize("switch", ["--dry_run", "--dry-run"])
def test_a_setting_after_a_switch_counts(switch, tiny, tmp_path, capsys):
    assert ended(sweep, str(tiny), switch, "model.size=1.7k", f"storage={tmp_path}") == 0
    assert "plan: 2 trials" in capsys.readouterr().out
    assert not list(tmp_path.glob("*/trials/*"))


def test_train_names_the_command_that_starts_it(tiny):
    ran = command("train", str(tiny))
    assert ran.returncode == 2
    assert "plan --commands" in ran.stderr


def test_other_systems_are_told():
    code = "import sys; sys.platform = 'darwin'; from amscale import cli; cli.run(print, [])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "amscale runs on Linux only, and this is darwin\n"
