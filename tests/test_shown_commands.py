"""Every command that a page, a help text or the head of a file shows: run, or checked against parser, schema and files.

A reader's folder holds what the pages speak of: the project, a finished sweep, the files that the guides write.
"""

import json
import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.commands import ended
from helpers.shown_commands import ROOT, block, shown_commands
from pyarrow import parquet

from amscale import cli
from amscale.config import load, split_arguments
from amscale.config.loading import read_yaml
from amscale.errors import InputError
from amscale.radius import configuration as radius

SWEEP = ROOT / "tests" / "sweep_0_1" / "first"
LABEL = "vanilla-N6.43k-D8.02k-seed0-0334d1ce0e63"
COMMANDS = shown_commands()

NOT_RUN = {
    r"\b(s3|gs)://": "needs an object store; tests/cluster/test_storage.py runs one",
    r"launch\.address=": "needs a Ray cluster; tests/cluster/test_ray_cluster.py starts one",
    r"amscale\.doctor": "examines machines for half a minute; tests/diagnosis/test_doctor.py",
    r"amscale\.probe": "measures for a minute; tests/radius/test_experiment.py",
    r"--huggingface": "needs a gpt2; tests/reporting/test_card.py",
    r"--calibrate": "takes the machine for seconds; tests/planning/test_speeds.py",
    r"amscale\.plan .*(llama_1b|openwebtext|openelm_spgc)": "needs texts and tokenizers of others",
    r"amscale\.plan .*(capacity|entropy)": "takes seconds; tests/models/test_configs.py",
    r"amscale\.plan .*radius": "needs a trained model; tests/radius/test_plan.py",
    r"configs/findings": "13 plans of seconds each, and one trial of ours",
    r"amscale\.report": "takes seconds; tests/reporting/test_page.py",
    r"^make |^FAISS_PYTHON=": "make itself says what it would do",
    r"^sbatch|^srun|slurm": "needs Slurm; tests/cluster/test_slurm.py starts one",
    r"launch/trial\.sh": "needs hosts; tests/cluster/test_hosts.py makes them",
    r"^(docker|sky|ray|git|source|export|accelerate) ": "a program, an account or a machine that is not ours",
    r"^pip ": "installs; tests/end_to_end/test_wheel.py installs the package",
    r"benchmarks/": "takes minutes; its options are asked of its parser",
    r"tests/(fuzz|campaign)\.py": "takes minutes; its options are asked of its parser",
    r"pytest": "is this suite",
}
"""Commands by pattern that are not run here, and why; their options, settings and files are checked all the same.

A sweep is planned (--dry_run), not trained: tests/end_to_end trains.
"""
STAND_INS = {
    "model={family: parallel}": "model={family: vanilla}",
    "results/rectangle_english": "rectangle_english.parquet",
}
"""Words of commands that need a package of the reader's own or a sweep of hours, and what stands for them."""
SBATCH = {"--nodes", "--time", "--gpus-per-node", "--cpus-per-task", "--signal"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The folder of a reader who has followed the pages so far."""
    folder = tmp_path_factory.mktemp("reader")
    for name in (
        "benchmarks",
        "configs",
        "container",
        "docs",
        "launch",
        "slurm",
        "tests",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
    ):
        (folder / name).symlink_to(ROOT / name)
    for name in ("quick", "other", "quick_wide", "a", "b", "my", "gpt2"):
        shutil.copytree(SWEEP, folder / "results" / name)
        marker = folder / "results" / name / "sweep.yaml"
        text = marker.read_text().replace("name: first", f"name: {name}")
        marker.write_text(re.sub(r"^storage: .*$", "storage: results", text, flags=re.MULTILINE))
    (folder / "results" / "quick" / "tensorboard").mkdir()
    for name, section, key, values in (
        ("entropy_ladder_cpu", "data", "word_classes", ("half",)),
        ("decay", "train", "weight_decay", (0.0, 0.1)),
        ("sweep", "train", "learning_rate", (5e-3, 1e-2, 2e-2)),
    ):
        write_axis(folder / "results" / name, section, key, values)
    pages = ROOT / "docs"
    (folder / "my.yaml").write_text(block(pages / "tutorial.md", "yaml", "input.txt"))
    (folder / "own.yaml").write_text(block(pages / "models.md", "yaml", "name: own"))
    (folder / "my_model.py").write_text(block(pages / "models.md", "python", "def build(shape"))
    (folder / "script.yaml").write_text(block(pages / "own_script.md", "yaml", "name: script"))
    (folder / "my_train.py").write_text(block(pages / "own_script.md", "python", "current_trial"))
    (folder / "x.txt").symlink_to("input.txt")
    (folder / "input.txt").write_text("\n\n".join(f"Line {n}: {n * n} is the square of {n}." for n in range(9000)))
    write_tables(folder)
    return folder


def write_axis(folder: Path, section: str, key: str, values: tuple[Any, ...]) -> None:
    """Write the finished sweep once for each value of a setting, with slightly other losses."""
    for index, value in enumerate(values):
        for trial in (SWEEP / "trials").iterdir():
            copy = folder / "trials" / f"{trial.name}-{index}"
            shutil.copytree(trial, copy)
            result = json.loads((copy / "result.json").read_text())
            result["settings"][section][key] = value
            for name in ("validation_least", "validation_last", "train_least", "train_last"):
                result["losses"][name] *= 1 + 0.01 * (index - 1) ** 2
            (copy / "result.json").write_text(
                json.dumps(result | {"label": copy.name, "trial": f"{trial.name}{index}"})
            )
    shutil.copy(SWEEP / "sweep.yaml", folder)


def write_tables(folder: Path) -> None:
    """Write the tables of the pages: runs of Chinchilla's law, with columns named as there, and an archived sweep
    without its two largest N, of which the page forecasts cells."""
    rows = [
        {"N": N, "D": D, "learning_rate": rate, "corpus": corpus}
        for corpus in ("web", "books")
        for N in (1e7, 4e7, 1.6e8, 6.4e8)
        for D in (2e9, 8e9, 3.2e10)
        for rate in (1e-3, 2e-3, 4e-3)
    ]
    runs = pd.DataFrame(rows).assign(batch_tokens=2**19)
    off = np.log(runs["learning_rate"] / 2e-3)
    runs["loss"] = 1.7 + 406 / runs["N"] ** 0.34 + 411 / runs["D"] ** 0.28 + 0.05 * off**2
    runs["flops"] = 6 * runs["N"] * runs["D"]
    columns = {"params": runs["N"], "unique_tokens": runs["D"], "val_loss": runs["loss"]}
    runs.assign(**columns).to_csv(folder / "runs.csv", index=False)
    best = runs[(runs["corpus"] == "web") & (off == 0)]
    others = {"N": "params", "D": "tokens"}
    best.rename(columns=others)[[*others.values(), "loss"]].to_csv(folder / "others.csv", index=False)
    points = {"Model Size": best["N"], "Training FLOP": best["flops"]}
    best.assign(**points)[["N", "D", *points, "loss"]].to_csv(folder / "points.csv", index=False)
    rectangle = parquet.read_table(ROOT / "docs" / "data" / "rectangle_english.parquet")
    N = rectangle["N"].to_numpy()
    parquet.write_table(rectangle.filter(np.unique(N)[-2] > N), folder / "rectangle_english.parquet")


@pytest.mark.parametrize("shown", COMMANDS, ids=lambda shown: shown.text[:70])
def test_a_shown_command_works(shown, reader, monkeypatch, capsys):
    monkeypatch.chdir(reader)
    reason = next((why for pattern, why in NOT_RUN.items() if re.search(pattern, shown.text)), None)
    words = [STAND_INS.get(word, word) for word in shown.words(LABEL)]
    while re.match(r"[A-Z_]+=", words[0]):  # the environment of the command
        words.pop(0)
    checks = {"python": _python, "make": _make, "sbatch": _sbatch, "launch/trial.sh": _trial, "tensorboard": _board}
    if words[0] in checks:
        checks[words[0]](words[1:], reason is None, capsys)
        return
    assert reason, "neither run nor on the list of what is not"
    if "python" in words:  # docker run … python -m amscale.sweep …
        inner = [word.removeprefix("/shared/") for word in words]
        _python(inner[inner.index("python") + 1 :], False, capsys)
    for word in words[1:]:
        if re.match(r"(container|slurm|configs|docs)/", word):
            assert Path(word).is_file(), word


def _python(words: list[str], runs: bool, capsys) -> None:
    """Run a command of ours in this process, or ask its parser, the schema and the folder about it."""
    words, target = (words[: words.index(">")], words[-1]) if ">" in words else (words, None)
    words = words[: words.index("|")] if "|" in words else words
    if words[0] != "-m":
        _script(words[0], words[1:])
        return
    module, *arguments = words[1:]
    if module in ("pytest", "amscale"):
        return
    if module == "amscale.config.reference":
        from amscale.config.reference import reference

        assert reference()
        return
    function = getattr(import_module(module), module.rpartition(".")[2])
    if runs:
        capsys.readouterr()
        more = {"sweep": ["--dry_run"], "fit": ["--resamples=100"]}.get(function.__name__, [])
        status = ended(function, *arguments, *more)
        said = capsys.readouterr()
        assert status == 0, said.err
        if target is not None:
            Path(target).write_text(said.out)
        return
    cli._check_flags(function, arguments, module)
    operands, _ = cli._parse(function, cli._with_switches(function, arguments), module)
    if function.__name__ in ("sweep", "plan", "doctor"):
        configured = operands[1:] if function.__name__ == "doctor" and "," in "".join(operands[:1]) else operands
        path, settings = split_arguments(configured)
        if radius.is_radius(read_yaml(path)):
            radius.load(path, settings)
        else:
            load(path, settings)
    elif function.__name__ == "probe":
        named = bool(operands) and "=" not in operands[0]
        radius.load(operands[0] if named else "radius_cpu.yaml", list(operands[named:]))
    else:
        assert all("://" in operand or Path(operand).exists() for operand in operands), operands


def _script(path: str, options: list[str]) -> None:
    source = Path(path).read_text(encoding="utf-8")
    named = [option.partition("=")[0] for option in options if option.startswith("--")]
    assert [name for name in named if f'"{name}"' not in source] == []


def _make(words: list[str], runs: bool, capsys) -> None:
    said = subprocess.run(["make", "--dry-run", *words], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


def _sbatch(words: list[str], runs: bool, capsys) -> None:
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert set(options) <= SBATCH
    operands = [word for word in words if not word.startswith("--")]
    if operands:
        assert Path(operands[0]).is_file()
        _settings(operands[1:])


def _trial(words: list[str], runs: bool, capsys) -> None:
    assert os.access("launch/trial.sh", os.X_OK)
    _settings(words[1:])


def _settings(operands: list[str]) -> None:
    """Check a configuration with its settings, or the specification of a trial."""
    if operands and operands[0].endswith("spec.yaml"):
        assert read_yaml(operands[0])["format"]
    elif operands:
        load(operands[0], operands[1:])


def _board(words: list[str], runs: bool, capsys) -> None:
    from tensorboard.program import TensorBoard

    board = TensorBoard()
    board.configure(["tensorboard", *words])
    assert Path(board.flags.logdir).is_dir()


def test_commands_are_found_in_every_place():
    """A reader that found nothing would let everything pass."""
    places = {shown.where.partition(":")[0].partition(" ")[0] for shown in COMMANDS}
    assert {"README.md", "tutorial.md", "clusters.md", "fit.py", "trial.sh", "llama_1b.yaml"} <= places
    assert len(COMMANDS) > 110


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "amscale.fit", "results/quick", "--nxt", "4"],
        ["-m", "amscale.fit", "results/none"],
        ["-m", "amscale.sweep", "my.yaml", "train.step=3"],
        ["-m", "amscale.plan", "none.yaml"],
        ["-m", "amscale.doctor", "--slrm"],
        ["benchmarks/gpu.py", "--none"],
    ],
)
@pytest.mark.parametrize("runs", [True, False])
def test_a_wrong_command_is_noticed(words, runs, reader, monkeypatch, capsys):
    monkeypatch.chdir(reader)
    with pytest.raises((AssertionError, InputError)):
        _python(words, runs and "doctor" not in words[1], capsys)
