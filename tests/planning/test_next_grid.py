"""The grid that `fit --next` prints: `plan` and `sweep` take it unchanged, and it is of the cells that it names."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from amscale.cluster.resources import this_machine
from amscale.config import load, parse, split_arguments
from amscale.errors import InputError
from amscale.fit import fit
from amscale.planning.next_grid import next_grid_of_sweep, next_grid_of_table, with_next_step
from amscale.planning.plan import plan_sweep
from amscale.planning.trial_plan import TrialPlan
from amscale.scaling.fit import BaseFit
from amscale.scaling.reading import read_sweep
from amscale.scaling.verdict import promise

GRID = [(N, D) for N in (6600, 25000, 100000) for D in (8000, 20000, 80000)]
STEP = [(6600, 8000), (6600, 20000), (25000, 20000), (25000, 50000), (100000, 50000), (100000, 120000)]


def planned(experiment) -> list[TrialPlan]:
    return list(plan_sweep(experiment, Path(experiment.storage), this_machine(), build=False).trials)


def write_sweep(storage: Path, cells: list[tuple[int, int]], bits: float | None = None, **more) -> Path:
    """Finished trials of some cells: Chinchilla's loss, and a train loss whose gap closes at the larger D of each N.

    With `bits` per parameter the loss is one for all, and the train loss that of a model which memorises so much.
    """
    settings = {
        "name": "made",
        "grid": {"model.size": [6600], "data.size": [8000], "seed": [0, 1]},
        "model": {"family": "vanilla", "layers": 2},
        "data": {"corpus": "question_formation", "documents": 5000},
        "train": {"steps": 100},
        "storage": str(storage),
        **more,
    }
    for N, D in cells:
        (trial,) = planned(parse(settings | {"grid": {"model.size": [N], "data.size": [D]}}))
        folder = storage / "made" / "trials" / trial.label
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text("format: 1\n")
        loss = 1 + 20 * trial.N**-0.4 + 30 * trial.D**-0.4
        entropy, memorised = (None, 0.0) if bits is None else (0.9965, bits * trial.N * math.log(2))
        full = 1 if entropy is None else memorised / entropy
        gap = 0.01 if max(d for n, d in cells if n == N) == D else 1.0
        if entropy is not None:
            loss = 1.0 + 1e-4 * (trial.D % 7)
            gap = loss - entropy + min(entropy, memorised * (1 - 0.1 * math.log(trial.D / full)) / trial.D)
        records = [{"kind": "train", "step": step, "loss": loss - gap} for step in range(1, 101)]
        records.append({"kind": "validation", "step": 100, "loss": loss})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        result = {
            "format": 1,
            "trial": trial.identity,
            "label": trial.label,
            "state": "finished",
            "reason": None,
            "seed": 0,
            "steps": 100,
            "shape": trial.shape.as_dict(),
            "parameters": trial.shape.parameters.as_dict(),
            "flops": {"formula": "matmul", "per_token": 1, "total": trial.flops},
            "data": {"corpus": "question_formation", "unique_tokens": trial.D, "documents": 1, "epochs": 1}
            | {"entropy_per_token": entropy},
            "losses": {"train_least": loss - gap, "train_last": loss - gap, "validation_least": loss},
            "time": {"device_seconds": trial.flops / 1e10, "wall_seconds": 1},
            "engine": {"world_size": 1},
            "settings": {"model": {"size": N}, "data": {"size": D}},
        }
        (folder / "result.json").write_text(json.dumps(result))
    (storage / "made" / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, **settings}))
    return storage / "made"


def test_grid_of_a_sweep_is_planned_as_it_stands_and_enlarges_the_corpus(tmp_path):
    folder = write_sweep(tmp_path, GRID)
    marker = folder / "sweep.yaml"
    marker.write_text(marker.read_text().replace("documents: 5000", "documents: 1500"))
    text = next_grid_of_sweep(folder, 4)
    (tmp_path / "next.yaml").write_text(text)
    trials = planned(load(str(tmp_path / "next.yaml")))
    cells = {(trial.N, trial.D) for trial in trials}
    assert len(trials) == 2 * len(cells) == 8, "four cells with the two seeds of the sweep"
    assert not {trial.label for trial in trials} & {path.name for path in (folder / "trials").iterdir()}
    named = [line.split() for line in text.splitlines() if line.startswith("#   N ")]
    for trial in trials:
        assert any(f"{trial.N / 1000:.3g}k," == words[2] for words in named), "N is the one that the family reaches"
    assert "with the 2 runs of each cell" in text
    assert "of training on one device" in text
    most = max(trial.D for trial in trials)
    assert most > (1500 - 1000) * 24
    documents = yaml.safe_load(text)["data"]["documents"]
    assert (documents - 1000) * 23 > most
    assert f"data.documents is raised from 1500 to {documents}" in text


def test_no_d_beyond_a_corpus_that_cannot_grow(tmp_path):
    data = {"corpus": "question_formation"}
    grid = {"model.size": [6600], "data.size": [8000], "data.documents": [5000, 6000]}
    text = next_grid_of_sweep(write_sweep(tmp_path, GRID, data=data, grid=grid), 4)
    assert max(yaml.safe_load(text)["grid"]["data.size"]) < 4000 * 24
    assert "No D beyond the 93.5k training tokens of the corpus is considered" in text


def test_cells_that_are_no_grid_come_as_one_configuration_and_commands_that_narrow_it(tmp_path):
    text = next_grid_of_sweep(write_sweep(tmp_path, STEP), 3)
    file = tmp_path / "next.yaml"
    file.write_text(text)
    found = [planned(load(str(file)))]
    for line in (line for line in text.splitlines() if "amscale.sweep next.yaml" in line):
        _, overrides = split_arguments(shlex.split(line)[4:])
        found.append(planned(load(str(file), overrides)))
    assert [len(trials) for trials in found] == [2, 2, 2]
    fit = BaseFit(read_sweep(tmp_path / "made"), [], [], {"count": "non_embedding", "window": 0.2, "threshold": 0.04})
    assert len(with_next_step(fit).next_step.commands) > 2, "the verdict names the commands of all its cells"
    sizes = [(trials[0].N, trials[0].D) for trials in found]
    assert len({n for n, _ in sizes}) == 3
    assert sorted(D for _, D in sizes) == pytest.approx([12649, 31623, 77460], rel=0.01)


def test_cells_for_memorised_bits_are_one_grid_that_the_verdict_names_with_its_cost(tmp_path):
    bits = 2.0
    sizes = (1700, 3700, 6600, 25000)
    cells = [(N, round(share * bits * N * 0.7)) for N in sizes for share in (0.4, 1.2, 4)]
    folder = write_sweep(tmp_path, cells, bits)
    text = next_grid_of_sweep(folder, 4)
    (tmp_path / "next.yaml").write_text(text)
    trials = planned(load(str(tmp_path / "next.yaml")))
    assert len(trials) == 8, "four D of one N, with the two seeds of the sweep"
    assert len({trial.N for trial in trials}) == 1
    assert not {trial.N for trial in trials} & {point.N for point in read_sweep(folder).points}
    fit = BaseFit(read_sweep(folder), [], [], {"count": "non_embedding", "window": 0.2, "threshold": 0.04})
    step = with_next_step(fit).next_step
    assert step.commands == (
        f"python -m amscale.fit {folder} --next 4 > next.yaml",
        "python -m amscale.sweep next.yaml",
    )
    assert step.promise in promise(step)
    assert "memorised bits" in step.promise
    assert step.flops == pytest.approx(sum(trial.flops for trial in trials), rel=0.1)
    assert step.seconds > 0


def test_moved_sweep_is_continued_where_it_lies(tmp_path):
    folder = write_sweep(tmp_path / "old", GRID)
    moved = folder.parent.rename(tmp_path / "new") / "made"
    assert yaml.safe_load(next_grid_of_sweep(moved, 1))["storage"] == str(tmp_path / "new")


def test_cells_of_a_table_are_overrides_that_plan_takes(tmp_path):
    file = tmp_path / "points.csv"
    rows = [f"{100 * N},{D},{1 + 200 * N**-0.4 + 30 * D**-0.4}" for N, D in GRID]
    file.write_text("\n".join(["N,D,loss", *rows]))
    text = next_grid_of_table(file, 1)
    line = next(line for line in text.splitlines() if "amscale.sweep CONFIG" in line)
    overrides = shlex.split(line)[5:]
    (trial,) = planned(load("grammar.yaml", [*overrides, f"storage={tmp_path}", "data.documents=1M"]))
    assert yaml.safe_load(text)["grid"]["data.size"][0] == trial.D


def test_the_next_command_of_a_table_reads_it_as_the_fit_did(tmp_path, capsys):
    rates = [(lr, 1 + 0.01 * abs(power)) for power, lr in ((-1, 1e-3), (0, 2e-3), (1, 4e-3))]
    rows = [f"{100 * N},{D},{(1 + 200 * N**-0.4 + 30 * D**-0.4) * up},{lr}" for N, D in GRID for lr, up in rates]
    file = tmp_path / "my points.csv"
    file.write_text("\n".join(["Model Size,tokens,val loss,lr", *rows]))
    chosen = {"n_column": "Model Size", "d_column": "tokens", "loss_column": "val loss", "tune": "none"}
    fit(str(file), **chosen, loss_unit="bits", drop_highest=1, resamples=100, json=True)
    (command,) = json.loads(capsys.readouterr().out)["verdict"]["next_step"]["commands"]
    ran = subprocess.run([sys.executable, *shlex.split(command)[1:]], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "grid:" in ran.stdout
    assert command.endswith("--loss_unit bits --drop_highest 1 --tune none")


def test_losses_that_are_equal_have_no_next_cells(tmp_path):
    file = tmp_path / "points.csv"
    file.write_text("\n".join(["N,D,loss", *(f"{N},{D},3" for N, D in GRID)]))
    with pytest.raises(InputError, match=r"nothing to plan by: .* every loss is 3"):
        next_grid_of_table(file, 4)


def test_what_cannot_be_planned_is_one_line(tmp_path):
    folder = write_sweep(tmp_path, GRID)
    with pytest.raises(InputError, match="whole number of cells from 1 to 12"):
        next_grid_of_sweep(folder, 0)
    with pytest.raises(InputError, match=r"next\.yaml"):
        fit(str(folder), output="x", next=1)
    for path in (folder / "trials").glob("*/result.json"):
        path.write_text(path.read_text().replace('"data": {"size": 8000}', '"data": {"size": null}'))
    with pytest.raises(InputError, match=r"^data\.size is None in 3 of 9 runs: their D follows from other settings"):
        next_grid_of_sweep(folder, 1)


def test_sizes_that_are_given_by_width_are_given_by_size(tmp_path):
    """The cells are those that the same settings with model.size give, and what was trained is not trained again."""
    sized = write_sweep(tmp_path / "sized", GRID)
    folder = write_sweep(tmp_path / "widths", GRID)
    marker = folder / "sweep.yaml"
    tree = yaml.safe_load(marker.read_text())
    widths = sorted({point.result.shape.width for point in read_sweep(folder).points})
    tree["grid"] = {"model.width": widths} | {key: value for key, value in tree["grid"].items() if key != "model.size"}
    marker.write_text(yaml.safe_dump(tree))
    for path in (folder / "trials").glob("*/result.json"):
        document = json.loads(path.read_text())
        document["settings"]["model"] = {"layers": 2, "width": document["shape"]["width"], "size": None}
        path.write_text(json.dumps(document))
    found = next_grid_of_sweep(folder, 4)
    assert "in place of model.width" in found
    (tmp_path / "next.yaml").write_text(found)
    (tmp_path / "sized.yaml").write_text(next_grid_of_sweep(sized, 4))
    trials = planned(load(str(tmp_path / "next.yaml")))
    assert {trial.label for trial in trials} == {trial.label for trial in planned(load(str(tmp_path / "sized.yaml")))}
    assert not {trial.label for trial in trials} & {path.name for path in (folder / "trials").iterdir()}
