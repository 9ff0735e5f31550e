"""Command lines: help in our words, arguments as they are written, output in any encoding, order of the rows."""

import io
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from helpers.commands import command, ended
from helpers.made_fit import EXPONENT, FLOOR, fit_of
from helpers.made_sweep import write_sweep, write_trial

from amscale import Sweep, cli, streams
from amscale.errors import EXIT_UNREAD, InputError
from amscale.files import packaged
from amscale.fit import fit
from amscale.plan import plan
from amscale.reporting.estimates_table import print_fit
from amscale.reporting.terminal import make_console
from amscale.scaling.reading import read_sweep
from amscale.status import status
from amscale.sweep import _approval, sweep


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two sizes of which text and number sort differently, with two seeds."""
    folder = write_sweep(tmp_path_factory.mktemp("made") / "made", (6000, 24000), (8000, 20000), steps=20)
    for N, D, seed in ((6430, "450k", 0), (25200, "8.02k", 10), (25200, "8.02k", 9), (6430, "20k", 0)):
        label = f"vanilla-N{N / 1000:.3g}k-D{D}-seed{seed}-0123456789ab"
        write_trial(folder, label, N, {"450k": 450_000, "8.02k": 8020, "20k": 20_000}[D], seed, steps=20)
    tree = {"format": 1, **yaml.safe_load((packaged("configs") / "grammar.yaml").read_text(encoding="utf-8"))}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_of_the_command_and_on_standard_output(name, flag, capsys):
    from importlib import import_module

    function = getattr(import_module(f"amscale.{name}"), name)
    assert ended(function, flag, name=f"amscale {name}") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"usage: amscale {name} ")
    assert "example" in said.out
    assert "settings that matter" in said.out or name in ("status", "train")
    assert f"  amscale {name} " in said.out or name == "train"
    assert "python -m amscale." + name not in said.out
    assert "--json   " in said.out
    assert "Fire" not in said.out
    assert max(map(len, said.out.splitlines())) <= 120


def test_help_imports_nothing_heavy():
    ran = command("sweep", "--help", interpreter=["-X", "importtime"])
    assert ran.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert not imported & {"torch", "ray", "pandas", "numpy", "pydantic", "fire"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 0, "usage: amscale COMMAND"),
        (["help"], 0, "usage: amscale COMMAND"),
        (["--help"], 0, "Show what a sweep would run and cost"),
        (["help", "fit"], 0, "usage: amscale fit SOURCE"),
        (["--version"], 0, "amscale 0."),
        (["plan", "--version"], 0, "amscale 0."),
        (["swep"], 2, "unknown command 'swep' (did you mean sweep?); commands: sweep, plan"),
        (["nonsense"], 2, "unknown command 'nonsense'; commands: sweep, plan"),
        (["status", "--jsn"], 2, "unknown flag --jsn (did you mean --json?); flags of amscale status: --watch, --json"),
        (["fit", "-o", "x"], 2, "unknown flag -o"),
        (["fit", "--", "x"], 2, "unknown flag --"),
        (["fit"], 2, "fit: SOURCE is missing; usage: amscale fit SOURCE"),
        (["fit", "a", "b"], 2, "one argument too many: 'b'; usage: amscale fit SOURCE"),
        (["fit", "a", "--output", "--json"], 2, "--output needs a value: --output=OUTPUT"),
        (["fit", "a", "--resamples=many"], 2, "--resamples=many: not a number"),
        (["sweep", "--dry_run=maybe"], 2, "--dry_run=maybe: write --dry_run"),
        (["status", "run#1"], 2, "run#1: "),
        (["status", "1_000"], 2, "1_000: "),
        (["status", "0x10"], 2, "0x10: "),
        (["plan", "[a]"], 2, "[a]: no such configuration"),
    ],
)
def test_the_console_script(arguments, code, words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["amscale", *arguments])
    try:
        cli.main()
        ended_with = 0
    except SystemExit as end:
        ended_with = end.code
    said = capsys.readouterr()
    assert ended_with == code
    assert words in (said.err if code else said.out)
    assert not code or said.err.count("\n") == 1


@pytest.mark.parametrize("line", ["status {} --json", "status {}", "plan grammar.yaml", "report {}"])
def test_output_that_nobody_reads_ends_a_command_quietly(line, made, tmp_path):
    sweep = shutil.copytree(made, tmp_path / "made")
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "amscale", *line.format(sweep).split()]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=300)
    os.close(writer)
    assert (done.returncode, done.stderr) == (EXIT_UNREAD, "")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('"$@" status {} --json >/dev/full', "status: storage full: the disk of the output: No space left on device"),
        ('"$@" status {} --json >&-', "--json: standard output is closed"),
        ('mkdir gone && cd gone && rmdir ../gone && "$@" status {}', "the working folder has been removed"),
        ('PYTHONOPTIMIZE=2 "$@" status {}', "Python drops docstrings (-OO, PYTHONOPTIMIZE=2)"),
        ('"$@" plan - < {}/sweep.yaml', "plan: -: no file has this name; standard input is /dev/stdin"),
    ],
)
def test_where_a_command_cannot_run_it_says_so(script, words, made, tmp_path):
    shell = ["sh", "-c", script.format(made), "sh", sys.executable, "-m", "amscale"]
    package = str(Path(cli.__file__).parent.parent)
    done = subprocess.run(
        shell, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": package}, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert words in done.stderr


def test_a_value_has_the_type_of_its_flag():
    def given(source: str, count: int = 1, share: float | None = None, name: str | None = None, all: bool = False):
        return seen.append((source, count, share, name, all))

    seen = []
    assert ended(given, "010", "--count=1e3", "--share", "0.5", "--name=1_0", "--all") == 0
    assert seen == [("010", 1000, 0.5, "1_0", True)]


def show_estimates() -> None:
    """Print estimates as `fit` does."""
    print_fit(fit_of("", EXPONENT, FLOOR), make_console())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("name", ["estimates", "status", "plan", "help"])
def test_any_encoding_of_output_is_enough(name, encoding, made, tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.made_fit.read_sweep", lambda _: read_sweep(made))
    function, arguments, words = {
        "estimates": (
            show_estimates,
            [],
            "k_dstar              k of N = C" + ("*" if encoding == "ascii" else "·") + "D^k at D*(N)",
        ),
        "status": (status, [str(made)], "vanilla-N6.43k-D20k"),
        "plan": (plan, ["grammar.yaml", f"storage={tmp_path}"], "99.5k"),
        "help": (fit, ["--help"], "k of N ~ D^k to test"),
    }[name]
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))
    assert ended(function, *arguments) == 0
    assert words in written.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("β/α", "beta/alpha"),
        ("L ≤ 2·x²", "L <= 2*x^2"),
        ("−1 → ∞", "-1 -> inf"),
        ("café Ω", "cafe Omega"),
        ("r̂", "r_hat"),
        ("\udce9", "\\udce9"),
        ("語", "\\u8a9e"),
        ("…", "..."),
    ],
)
def test_substitutes_can_be_read(text, plain):
    assert streams.readable(text, "ascii") == plain


def test_rows_are_sorted_by_size_tokens_and_seed_as_numbers(made, capsys):
    right = [(6000, 8000, 0), (6000, 20000, 0), (6430, 20000, 0), (6430, 450_000, 0)]
    right += [(24000, 8000, 0), (24000, 20000, 0), (25200, 8020, 9), (25200, 8020, 10)]
    frame = Sweep(made).results()
    assert list(zip(frame.N, frame.D, frame.seed, strict=True)) == right
    labels = list(frame.trial)
    assert list(dict.fromkeys(Sweep(made).metrics("validation").trial)) == labels
    assert [row.label for row in Sweep(made).status()] == labels
    assert ended(status, str(made), "--json") == 0
    assert ended(status, str(made)) == 0
    table = capsys.readouterr().out
    assert sorted(labels, key=table.index) == labels


def test_a_plan_is_sorted_too(tmp_path, capsys):
    grid = ["model.size=[400k,25k]", "data.size=[20k,8k]", "grid.seed=[10,9]", f"storage={tmp_path}"]
    frame = Sweep("grammar.yaml", grid).plan()
    rows = list(zip(frame.N, frame.D, frame.seed, strict=True))
    assert rows == sorted(rows)
    assert len(rows) == 8


def test_a_plan_beyond_the_budget_is_not_run_where_nobody_can_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    settings = ["grammar.yaml", "model.size=25k", "data.size=2k", f"storage={tmp_path}"]
    assert ended(sweep, *settings, "--budget=0.0001") == 2
    said = capsys.readouterr()
    assert "machine hours, and --budget is 0.0001; give --yes to run it all the same" in said.err
    assert list(tmp_path.glob("grammar/trials/*")) == []
    assert list(tmp_path.glob("grammar/tensorboard")) == []
    assert ended(sweep, *settings, "--budget=-1") == 2
    approve = _approval(1.0, yes=True)
    approve(2.0)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, refused in (("y", False), ("", True)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        with pytest.raises(InputError) if refused else nullcontext():
            _approval(1.0, yes=False)(2.0)
