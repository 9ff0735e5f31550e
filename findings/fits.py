"""The facts and the fits of every archive in docs/data/, kept in docs/data/estimates.json, and their figures."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from catalogue import DATA, FINDINGS, ROOT, archive, results_of, shown_commands
from energies import energies_of

import amscale
from amscale.api import Sweep
from amscale.fitted import fit_folder
from amscale.reporting.chart import Chart, palette_of
from amscale.reporting.figures import report_charts
from amscale.reporting.report_data import read_report_data
from amscale.reporting.static import draw_chart
from amscale.scaling.dstar import cell_criteria, locate_all
from amscale.scaling.estimate import CAPACITY, EXPONENT, to_json_types
from amscale.scaling.fit import at_best
from amscale.scaling.points import counted
from amscale.scaling.power_law import exponent_from_dstar
from amscale.scaling.reading import read_sweep
from amscale.trials.records import TrialResult
from amscale.trials.sweep_store import SweepStore, open_sweep

ESTIMATES, PICTURES = DATA / "estimates.json", ROOT / "docs" / "images" / "results"


def read_estimates() -> dict[str, Any]:
    """Return what docs/data/estimates.json holds: by sweep, the facts of its runs and its fits."""
    return json.loads(ESTIMATES.read_text(encoding="utf-8")) if ESTIMATES.is_file() else {}


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
    main = json.loads(json.dumps(FINDINGS[name].fits))
    wanted = main | json.loads(json.dumps(FINDINGS[name].also))
    known = read_estimates().get(name, {"of": {}, "fits": {}, "also": {}})
    arguments = known["of"].get("arguments", {})
    same = {key: known["of"].get(key) for key in of} == of
    former = known["fits"] | known.get("also", {})
    fits = {label: former[label] for label in wanted if same and arguments.get(label) == wanted[label]}
    found: dict[str, Any] = {"of": of | {"arguments": {}}, "facts": facts_of(name), "commands": shown_commands(name)}
    if not wanted:
        _save(name, found | {"fits": {}, "also": {}})
    for label, given in wanted.items():
        if label not in fits:
            fits[label] = _fit(name, label) if label in main else _some_estimates(name, given)
        if fits[label].get("sensitivity"):
            fits[label]["criterion"] = _failing(name, given.get("where"), given.get("tune"))
        found["of"] |= {"arguments": {each: wanted[each] for each in fits}}
        parts = ({each: fits[each] for each in fits if (each in main) == whole} for whole in (True, False))
        _save(name, found | dict(zip(("fits", "also"), parts, strict=True)))


def _save(name: str, found: dict[str, Any]) -> None:
    known = read_estimates() | {name: found}
    known = {name: known[name] for name in FINDINGS if name in known}
    lines = (f"{json.dumps(each)}: {_lines(found)}" for each, found in known.items())
    ESTIMATES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(found: dict[str, Any]) -> str:
    """Return what is known of a sweep as JSON, a line for each fit: the file would be a third larger, one a number."""
    parts = []
    for key, value in found.items():
        if key in ("fits", "also"):
            fits = (f"   {json.dumps(label)}: {_json(fit)}" for label, fit in value.items())
            parts.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(fits) + "\n  }")
        else:
            parts.append(f"  {json.dumps(key)}: {_json(value)}")
    return "{\n" + ",\n".join(parts) + "\n }"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


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


def _some_estimates(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Make a fit of which only the exponents and the capacity are kept."""
    print(f"{name}: {given}", flush=True)
    with open_sweep(str(archive(name))) as folder:
        found = fit_folder(folder, **given, address=f"docs/data/{name}.parquet")
    items = _kept(found.to_dict())["estimates"]
    kept = [item for item in items if item["group"] in (EXPONENT, CAPACITY)]
    names = ("id", "estimand", "value", "interval", "refusal", "group", "used", "hypotheses", "details")
    return {"estimates": [{key: item[key] for key in names} | {"details": _some_details(item)} for item in kept]}


def _some_details(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item["details"].items() if key in ("for_tuned_runs", "capacities")}


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
                {name: cell[name] for name in ("N", "D", "settings", "edges", "at_least", "reason")}
                for cell in document["tuning"]["cells"]
            ],
        },
        "sensitivity": document["dstar_sensitivity"],
        "warnings": document["warnings"],
    }


def _failing(name: str, where: str | None, tune: Sequence[str] | None) -> dict[str, Any]:
    """Say which runs fail the D* criterion, and where of two N at one D the smaller fails, which of them learnt more.

    Of a tuned cell these are the runs at its best settings.

    `above` counts failing runs with a train loss above the least validation loss: those still learn. Of the N in
    `learning_at_lower_end` all runs that fail at the lower end of D* do. In `noisy` runs the variance of single batches
    fails by itself; `without_variance` has k by the squared gap alone. `pairs` has the mean least validation
    losses of the smaller and the larger N of each pair.
    """
    with open_sweep(str(archive(name))) as folder:
        own = SweepStore(folder).fit_settings()
        chosen = at_best(read_sweep(folder, own.count, where, tune))
    cells = chosen.cells()
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
    of_gaps = {cell: [run.gap**2 for run in found] for cell, found in criteria.items()}
    stars = locate_all(of_gaps, own.threshold)
    without = exponent_from_dstar(stars, chosen.convention, "", own.hypotheses)
    below = {}
    for N, D in sorted(cell for cell, failed in fails.items() if failed):
        below[N] = [run.gap > 0 for run in criteria[N, D] if run.value >= own.threshold]  # of the largest D that fails
    return {
        "runs": len(runs),
        "failing": len(failing),
        "above": sum(run.gap > 0 for run in failing),
        "at_end": sum(run.at_end for run in runs),
        "noisy": sum(run.variance >= own.threshold for run in runs),
        "without_variance": {
            "k": without.value,
            "interval": to_json_types(without.interval),
            "stars": [[star.N, star.lower, to_json_types(star.upper)] for star in stars],
        },
        "learning_at_lower_end": [N for N, above in below.items() if above and all(above)],
        "window_steps": _ends(run.window for run in runs),
        "pairs": pairs,
    }


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
        "unsettled": _unsettled(done) if FINDINGS[name].configuration.startswith("floor") else [],
        "losses": _least_losses(done, experiment.fit.count) if experiment.tune else [],
        "least_train": _least_train(done, experiment.fit.count) if experiment.tune else [],
        "energies": list(energies_of(Sweep.started(archive(name)))) if FINDINGS[name].probes == "all" else [],
    }


def _unsettled(results: list[TrialResult]) -> list[dict[str, Any]]:
    """Return every run on a text of known entropy that ends more than 1 % above it, losses that were smoothed apart."""
    return [
        {"entropy": entropy, "seed": result.seed, "validation": validation, "train": result.losses.train_evaluated}
        for result in results
        if (entropy := result.data.entropy_per_token)
        and (validation := result.losses.validation_least)
        and not result.setting("train.label_smoothing")
        and validation > 1.01 * entropy
    ]


def _least_losses(results: list[TrialResult], count: str) -> list[dict[str, float]]:
    """Return the least validation loss of each cell of a tuned sweep, at whatever settings."""
    cells: dict[tuple[float, float], list[float]] = {}
    for result in results:
        if (loss := result.losses.validation_least) is not None:
            cells.setdefault((counted(result.parameters, count), result.data.unique_tokens), []).append(loss)
    return [{"N": N, "D": D, "loss": min(losses)} for (N, D), losses in sorted(cells.items())]


def _least_train(results: list[TrialResult], count: str) -> list[dict[str, Any]]:
    """Return learning rate and batch of the run of least train loss of each cell, which has memorised the most."""
    cells: dict[tuple[float, float], TrialResult] = {}
    for result in sorted(results, key=lambda result: result.losses.train_evaluated or result.losses.train_last or 0):
        cells.setdefault((counted(result.parameters, count), result.data.unique_tokens), result)
    ends = _ends(result.setting("train.learning_rate") for result in results)
    found = []
    for (N, D), result in sorted(cells.items()):
        rate, batch = (result.setting(f"train.{axis}") for axis in ("learning_rate", "batch_tokens"))
        found.append({"N": N, "D": D, "learning_rate": rate, "edge": rate in ends, "batch_tokens": batch})
    return found


def _ends(values: Iterator[Any]) -> list[float]:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return [min(known), max(known)] if known else []
