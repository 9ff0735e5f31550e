"""Mistakes that users make, through the real commands: one line that helps, exit status 2, nothing started."""

import json
import subprocess
import sys

import pytest
from helpers.commands import TINY, command, ended
from helpers.made_sweep import write_sweep

from amscale.fit import fit
from amscale.plan import plan
from amscale.probe import probe
from amscale.report import report
from amscale.status import status
from amscale.sweep import sweep


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with configurations, a made sweep, and things that are none."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "tiny.yaml").write_text(f"{TINY}storage: {folder}/results\n")
    text = TINY.replace("{corpus: question_formation, documents: 2k, validation: 200}", "{corpus: text}")
    (folder / "text.yaml").write_text(f"{text}storage: {folder}/results\n")
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
    (sweep, "{0}/tiny.yaml --model.size=3", "--dry_run, --json; settings are written key=value"),
    (sweep, "{0}/tiny.yaml --dry-rnu", "did you mean --dry_run?"),
    (probe, "radius_cpu.yaml model.pth=x", "did you mean model.path?"),
    # types and values
    (sweep, "{0}/tiny.yaml train.learning_rate=fast", "train.learning_rate='fast': a rule has no 'fast'; it has N,"),
    (sweep, "{0}/tiny.yaml train.learning_rate=-1", "train.learning_rate=-1: Input should be greater than 0"),
    (sweep, "{0}/tiny.yaml model.size=-400k", "model.size='-400k'"),
    (sweep, "{0}/tiny.yaml data.size=0", "data.size=0"),
    (sweep, "{0}/tiny.yaml seed=0.5", "seed=0.5"),
    (sweep, "{0}/tiny.yaml seed=[]", "grid.seed=[]: an axis needs at least one value"),
    (sweep, "{0}/tiny.yaml train.steps=[10,20]", "make it an axis: grid.train.steps=[10, 20]"),
    (sweep, "{0}/tiny.yaml train.batch_tokens=0", "train.batch_tokens=0"),
    (sweep, "{0}/tiny.yaml train.epochs=3", "give exactly one of train.steps and train.epochs"),
    (sweep, "{0}/tiny.yaml train.schedule=cosin", "train.schedule='cosin': Input should be 'cosine', 'linear'"),
    (sweep, "{0}/tiny.yaml name=my/sweep", "name='my/sweep': a name has letters, digits"),
    (sweep, "{0}/tiny.yaml train=[", "not valid YAML"),
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
    (probe, "radius_cpu.yaml model.path={0}/none", "none"),
    (plan, "{0}/tiny.yaml launch.zero_stage=4", "launch.zero_stage=4: Input should be 'auto', 0, 1, 2 or 3"),
)  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "words"), MISTAKES, ids=[words for _, words, _ in MISTAKES])
def test_a_mistake_is_named_in_one_line_and_nothing_is_started(function, arguments, words, place, capfd, monkeypatch):
    monkeypatch.chdir(place / "empty")
    assert ended(function, *(word.format(place) for word in arguments.split())) == 2
    said = capfd.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1, said.err
    assert said.out == ""
    assert not list(place.glob("results/*/trials/*"))
    assert not list((place / "empty").iterdir())


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
