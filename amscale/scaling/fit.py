"""Fits: every estimate that the points of a sweep, or of a table, allow."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError
from amscale.scaling.base_fit import MOST_ROWS, BaseFit
from amscale.scaling.capacity import capacity_estimates
from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.conditions import conditions_of_sweep, conditions_of_table, with_conditions
from amscale.scaling.dstar import (
    Criterion,
    cell_criteria,
    check_window,
    choice_remark,
    criterion_remarks,
    locate_all,
)
from amscale.scaling.estimate import Estimate
from amscale.scaling.floor import floors, nothing_foretold
from amscale.scaling.forecast import score_folder
from amscale.scaling.health import health
from amscale.scaling.isoflop import exponents_from_budgets
from amscale.scaling.kinds import estimates_of_kinds, unlike_rows
from amscale.scaling.laws.compare import Comparison, Progress, compare
from amscale.scaling.laws.estimates import law_estimates
from amscale.scaling.laws.law import rows_of
from amscale.scaling.optima import exponent_from_contours, exponent_from_optima
from amscale.scaling.outliers import near_duplicates
from amscale.scaling.points import PointTable, drop_highest, sample
from amscale.scaling.power_law import (
    HYPOTHESES,
    dstar_sensitivity,
    exponent_from_dstar,
    seed_remark,
    sensitivity_remark,
)
from amscale.scaling.reading import read_sweep
from amscale.scaling.several_corpora import by_corpus, estimates_of_corpora
from amscale.scaling.table import Columns, points_of
from amscale.scaling.table_curves import rows_of_runs
from amscale.scaling.tuning import Tuning, tune_cells, varying_axes
from amscale.scaling.tuning_rule import TuningSummary, summarise

if TYPE_CHECKING:
    import pandas as pd

    from amscale.scaling.table_file import Cells

_MOST_PAIRS = 5
"""Near-duplicates that are named; where there are more, the table was laid out so."""

_MOST_REFITTED = 2_000_000


def fit_sweep(
    folder: str | Path,
    count: str = "non_embedding",
    window: float = 0.2,
    threshold: float = 0.04,
    hypotheses: Sequence[float] = tuple(HYPOTHESES),
    resamples: int = 400,
    where: str | None = None,
    tune: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> BaseFit:
    """Fit the finished trials of a sweep folder. Of several corpora only the floors are estimated, each separately.

    Args:
        count: convention for N, a key of `points.COUNTS`.
        window: iterations W of the D* criterion, in steps or as a share of the run.
        threshold: threshold σ² of the D* criterion, nats².
        hypotheses: exponents k of N ∝ D^k to test.
        resamples: bootstrap refits.
        where: fit only the trials with these settings, key=value joined by commas.
        tune: dotted keys of settings of which each cell takes its best value, interpolated; by default those under
            `tune` in the sweep's configuration.
        progress: is told of the laws while intervals are still found.

    Raises:
        InputError: the folder holds no sweep or no finished trial, or a setting is out of range.
    """
    check_window(window)
    _check(threshold, hypotheses, resamples)
    runs = table = read_sweep(folder, count, where, tune)
    if not table.points:
        raise InputError(
            f"{folder} has no finished trial ({len(table.left_out)} left out: {'; '.join(table.reasons[:3])})"
        )
    settings: dict[str, Any] = {
        "count": count,
        "window": window,
        "threshold": threshold,
        "hypotheses": list(hypotheses),
        "resamples": resamples,
        "where": where,
        "tune": None if tune is None else list(tune),
    }
    corpora = by_corpus(table)
    if len(corpora) > 1:
        corpora = {label: at_best(each) for label, each in corpora.items()}
        return BaseFit(
            table, estimates_of_corpora(table, corpora), [], settings, forecasts=score_folder(Path(folder), table)
        )
    table = at_best(runs)
    forecasts = score_folder(Path(folder), table)
    criteria, dstar = _dstar(table, window, threshold, hypotheses)
    values = {cell: [item.value for item in items] for cell, items in criteria.items()}
    sensitivity = dstar_sensitivity(table, window, threshold, hypotheses)
    remarks = choice_remark(table) + criterion_remarks(criteria, threshold)
    remarks += seed_remark(values, threshold, resamples)
    update: dict[str, Any] = {"remarks": dstar.remarks + remarks + sensitivity_remark(sensitivity)}
    if table.others:
        update["details"] = dstar.details | {"choice": ", each cell at its settings of least validation loss"}
    dstar = dstar.model_copy(update=update)
    reason = nothing_foretold(table)
    points, estimates, laws, tuning = _estimates(runs, hypotheses, resamples, progress, foretold=not reason)
    curves = health(table)
    conditions = conditions_of_sweep(runs) + list(curves.remarks() if curves else ())
    if reason:
        estimates = [_refused(item, reason) for item in estimates]
        if table.others:
            points.warnings.append(
                f"{reason}: the settings of least validation loss are those that learn the least by heart. Memorised "
                "bits and the least training loss are those of all settings"
            )
    estimates = with_conditions(points, [dstar, *estimates], conditions)
    estimates = [*estimates, *capacity_estimates(table), *floors(table)]
    return BaseFit(points, estimates, laws, settings, criteria, sensitivity, forecasts, tuning, curves)


def _refused(item: Estimate, reason: str) -> Estimate:
    """Return an estimate without the value that validation losses gave it."""
    return item.model_copy(update={"value": None, "interval": None, "tests": (), "reason": reason})


def _dstar(
    table: PointTable, window: float, threshold: float, hypotheses: Sequence[float]
) -> tuple[dict[tuple[float, float], list[Criterion]], Estimate]:
    """Return the D* criterion of every run by (N, D), and the exponent at D*."""
    criteria, without = cell_criteria(table.cells(), window)
    wide = f"{window:g} of the run's steps" if window <= 1 else f"{int(window)} steps"
    text = f"mean of (train loss - least validation loss)² over {wide} before it < {threshold:g}"
    values = {cell: [item.value for item in items] for cell, items in criteria.items()}
    left_out = table.reasons + tuple(without)
    return criteria, exponent_from_dstar(locate_all(values, threshold), table.convention, text, hypotheses, left_out)


def fit_so_far(folder: str | Path, count: str, window: float, threshold: float, hypotheses: Sequence[float]) -> BaseFit:
    """Estimate what needs no law from the trials that have finished: a verdict while a sweep runs, in a second.

    Raises:
        InputError: the folder holds no sweep.
    """
    runs = read_sweep(folder, count)
    table = at_best(runs)
    settings: dict[str, Any] = {
        "count": count,
        "window": window,
        "threshold": threshold,
        "hypotheses": list(hypotheses),
    }
    corpora = by_corpus(table)
    if len(corpora) > 1:
        return BaseFit(table, estimates_of_corpora(table, corpora), [], settings)
    criteria, dstar = _dstar(table, window, threshold, hypotheses)
    optima = exponent_from_optima(table, hypotheses)
    if reason := nothing_foretold(table):
        optima = _refused(optima, reason)
    estimates = [dstar, optima, *capacity_estimates(table), *floors(table)]
    return BaseFit(table, estimates, [], settings, criteria)


def fit_table(
    source: "str | Path | pd.DataFrame | Cells",
    columns: Columns | None = None,
    hypotheses: Sequence[float] = tuple(HYPOTHESES),
    resamples: int = 400,
    highest: int = 0,
    rows: int | None = None,
    loss_unit: str = "nats",
    bytes_per_token: float | None = None,
    where: str | None = None,
    tune: Sequence[str] | None = None,
    tuned_elsewhere: bool = False,
    progress: Progress | None = None,
) -> BaseFit:
    """Fit the rows of a file, or of a DataFrame.

    Args:
        source: a file that `read_table` reads, a DataFrame, or the cells of either.
        columns: names of its columns.
        hypotheses: exponents k of N ∝ D^k to test.
        resamples: bootstrap refits.
        highest: number of highest losses to leave out, by name.
        rows: number of rows to draw at random of what remains; None for all.
        loss_unit, bytes_per_token, where, tune: as for `read_table`.
        tuned_elsewhere: every cell was tuned, though no column tells: exponents are tested by their own intervals.
        progress: is told of the laws while intervals are still found.

    Raises:
        InputError: as `read_table`, or a setting is out of range.
    """
    _check(0.04, hypotheses, resamples)
    columns = columns or Columns()
    cells = rows_of_runs(source, columns, where)
    table = sample(drop_highest(points_of(cells, columns, loss_unit, bytes_per_token, where, tune), highest), rows)
    conditions = conditions_of_table(table, cells, tuned_elsewhere)
    laws: list[Comparison] = []
    tuning = None
    if reason := unlike_rows(table):
        estimates = estimates_of_kinds(table, reason)
    else:
        table, estimates, laws, tuning = _estimates(table, hypotheses, resamples, progress)
        estimates = with_conditions(table, estimates, conditions)
    settings = {"hypotheses": list(hypotheses), "resamples": resamples, "drop_highest": highest, "sample": rows}
    settings |= {**columns.to_dict(), "loss_unit": loss_unit, "bytes_per_token": bytes_per_token, "where": where}
    settings |= {"tune": None if tune is None else list(tune), "tuned_elsewhere": tuned_elsewhere}
    return BaseFit(table, estimates, laws, settings, tuning=tuning)


def _estimates(
    table: PointTable,
    hypotheses: Sequence[float],
    resamples: int,
    progress: Progress | None,
    foretold: bool = True,
) -> tuple[PointTable, list[Estimate], list[Comparison], TuningSummary | None]:
    """Return what points alone allow, without loss curves: exponents and floors, and the laws side by side.

    Runs that differ in tuned settings are a point for each cell first; the table of these is returned too. Where
    nothing in the text can be foretold, laws get no intervals, since they have no say.
    """
    tuning = tuned(table, resamples)
    table = table if tuning is None else tuning.table
    rows, count = rows_of(table), len(table.points)
    large = count > MOST_ROWS
    if large:
        table.warnings.append(
            f"{count:,} rows: the laws are fitted to all of them, without intervals, tests or the other estimates, "
            f"which need at most {MOST_ROWS:,}; --sample {MOST_ROWS} draws so many at random"
        )
    elif count * resamples > _MOST_REFITTED:
        fewer = max(100, _MOST_REFITTED // count)
        if fewer < resamples:
            table.warnings.append(f"{count:,} rows: {fewer} resamples instead of {resamples}")
            resamples = fewer
    fitted = compare(rows, resamples, intervals=foretold and not large, progress=progress)
    by_law = law_estimates(table, fitted, hypotheses)
    others = []
    if not large:
        least = min(resamples, 400) if foretold else 100
        others = [
            exponent_from_optima(table, hypotheses),
            *exponents_from_budgets(table, hypotheses),
            exponent_from_contours(table, hypotheses),
            exponent_from_collapse(table, hypotheses, least),
        ]
    pairs = near_duplicates(table.points)
    if 0 < len(pairs) <= _MOST_PAIRS:
        named = "; ".join(f"{one} and {other}" for one, other in pairs)
        table.warnings.append(f"cells that are all but one in N and D (within 3 %), and count as several: {named}")
    summary = summarise(tuning, fitted) if tuning else None
    return table, others + by_law, [item.comparison for item in fitted], summary


def tuned(table: PointTable, resamples: int) -> Tuning | None:
    """Return the tuned cells of runs that differ in a tuned setting within a cell; None where none do."""
    axes = varying_axes(table, tuple(dict.fromkeys(axis for point in table.points for axis in point.settings)))
    return tune_cells(table, axes, resamples) if axes else None


def at_best(table: PointTable) -> PointTable:
    """Return the runs at the tested values nearest to the best of each cell, seeds apart; all where none are tuned."""
    tuning = tuned(table, 0)
    return table if tuning is None else tuning.nearest


def _check(threshold: float, hypotheses: Sequence[float], resamples: int) -> None:
    if not isinstance(threshold, int | float) or not threshold > 0:
        raise InputError(f"threshold={threshold!r} must be a positive number of nats², such as 0.04")
    if not all(isinstance(k, int | float) and not isinstance(k, bool) and k > 0 for k in hypotheses):
        raise InputError(f"hypotheses={hypotheses!r} must be positive exponents, such as 1,1.35,2,4")
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 100:
        raise InputError(f"resamples={resamples!r} must be a whole number of at least 100")
