"""All estimates that the points of a sweep, or of a table, allow."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import amscale
from amscale.errors import InputError
from amscale.scaling.bootstrap import seed_interval
from amscale.scaling.capacity import capacity_estimates
from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.corpora import by_corpus, estimates_of_corpora
from amscale.scaling.dstar import Criterion, cell_criteria, check_window, locate_all
from amscale.scaling.estimate import Estimate, plain
from amscale.scaling.floor import floors
from amscale.scaling.iso_flop import exponent_from_budgets
from amscale.scaling.iso_loss import exponent_from_contours
from amscale.scaling.laws.compare import Comparison, compare
from amscale.scaling.laws.estimates import law_estimates
from amscale.scaling.laws.law import rows_of
from amscale.scaling.nopt import exponent_from_optima
from amscale.scaling.points import Points, drop_highest, sample
from amscale.scaling.power_law import HYPOTHESES, Setting, dstar_sensitivity, exponent_from_dstar, sensitivity_remark
from amscale.scaling.read_sweep import read_sweep
from amscale.scaling.read_table import read_table

if TYPE_CHECKING:
    from rich.console import Console


MOST_ROWS = 20_000
"""With more rows only the laws are fitted, without intervals: resampling them would take hours."""

_MOST_REFITTED = 2_000_000


@dataclass(frozen=True)
class FitResult:
    """The estimates of one source, with the points that they rest on and the laws side by side."""

    table: Points
    estimates: list[Estimate]
    laws: list[Comparison]
    settings: dict[str, Any]
    criteria: dict[tuple[float, float], list[Criterion]] = field(default_factory=dict)
    sensitivity: list[Setting] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types; an infinite end of an interval is null."""
        columns = ("name", "N", "D", "loss", "seed", "flops", "tokens")
        shown = self.table.points if len(self.table.points) <= MOST_ROWS else []
        points = [{name: getattr(point, name) for name in columns} for point in shown]
        criteria = [{"N": N, "D": D, "seeds": values} for (N, D), values in self.criteria.items()]
        return {
            "format": 1,
            "amscale": amscale.__version__,
            "source": self.table.source,
            "convention": self.table.convention,
            "settings": plain(self.settings),
            "points_used": len(self.table.points),
            "points": plain(points),
            "left_out": [{"name": name, "reason": reason} for name, reason in self.table.left_out],
            "warnings": list(self.table.warnings),
            "dstar_criteria": plain(criteria),
            "dstar_sensitivity": plain(self.sensitivity),
            "laws": plain(self.laws),
            "estimates": plain(self.estimates),
        }

    def to_json(self) -> str:
        """The text of fit.json."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Writes fit.json whole or not at all."""
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"output={str(path)!r}: there is no folder {path.parent}")
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(self.to_json())
        partial.replace(path)

    def print(self, console: "Console") -> None:
        """Tables on the terminal."""
        from rich.text import Text

        from amscale.reporting.estimates_table import print_estimates, print_laws

        header = f"{self.table.source}: {len(self.table.points)} points, {len(self.table.left_out)} left out"
        console.print(Text(f"{header}; {self.table.convention}"))
        for warning in self.table.warnings:
            console.print(Text(f"warning: {warning}"), style="yellow")
        print_estimates(console, self.estimates, self.table.convention.split("; "))
        print_laws(console, self.laws)


def fit_sweep(
    folder: str | Path,
    count: str = "non_embedding",
    window: float = 0.2,
    threshold: float = 0.04,
    hypotheses: Sequence[float] = tuple(HYPOTHESES),
    resamples: int = 400,
    where: str | None = None,
) -> FitResult:
    """All estimates from the finished trials of a sweep folder, or from those that `where` chooses (key=value,…).

    `window` is W of the D* criterion, in steps or as a share of the run; `threshold` its σ², nats². Of several corpora
    only the floors are estimated, each for itself.

    Raises:
        InputError: the folder holds no sweep or no finished trial, or a setting is out of range.
    """
    check_window(window)
    _check(threshold, hypotheses, resamples)
    table = read_sweep(folder, count, where)
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
    }
    corpora = by_corpus(table)
    if len(corpora) > 1:
        return FitResult(table, estimates_of_corpora(table, corpora), [], settings)
    criteria, without = cell_criteria(table.cells(), window)
    wide = f"{window:g} of the run's steps" if window <= 1 else f"{int(window)} steps"
    text = f"mean of (train loss - least validation loss)² over {wide} before it < {threshold:g}"
    values = {cell: [item.value for item in items] for cell, items in criteria.items()}
    dstar = exponent_from_dstar(
        locate_all(values, threshold), table.convention, text, hypotheses, table.reasons + tuple(without)
    )
    sensitivity = dstar_sensitivity(table, window, threshold, hypotheses)
    remarks = _criterion_remarks(criteria, threshold) + seed_interval(values, threshold, resamples)
    dstar = replace(dstar, remarks=dstar.remarks + remarks + sensitivity_remark(sensitivity))
    estimates, laws = _estimates(table, hypotheses, resamples)
    estimates = [dstar, *estimates, *capacity_estimates(table), *floors(table)]
    return FitResult(table, estimates, laws, settings, criteria, sensitivity)


def fit_table(
    path: str | Path,
    hypotheses: Sequence[float] = tuple(HYPOTHESES),
    resamples: int = 400,
    highest: int = 0,
    rows: int | None = None,
    **reading: Any,
) -> FitResult:
    """All estimates from a CSV or Parquet file; `reading` as for `read_table`.

    `highest` losses are left out by name; of what remains, `rows` are drawn at random where it is given.

    Raises:
        InputError: as `read_table`, or a setting is out of range.
    """
    _check(0.04, hypotheses, resamples)
    table = sample(drop_highest(read_table(path, **reading), highest), rows)
    estimates, laws = _estimates(table, hypotheses, resamples)
    settings = {"hypotheses": list(hypotheses), "resamples": resamples, "drop_highest": highest, "sample": rows}
    return FitResult(table, estimates, laws, settings | reading)


def _estimates(table: Points, hypotheses: Sequence[float], resamples: int) -> tuple[list[Estimate], list[Comparison]]:
    """What points alone allow: exponents and floors, and the laws side by side."""
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
    fitted = compare(rows, resamples, large=large)
    by_law = law_estimates(table, fitted, hypotheses)
    others = []
    if not large:
        others = [
            exponent_from_optima(table, hypotheses),
            exponent_from_budgets(table, hypotheses),
            exponent_from_contours(table, hypotheses),
            exponent_from_collapse(table, hypotheses, min(resamples, 400)),
        ]
    return others + by_law, [item.comparison for item in fitted]


def _check(threshold: float, hypotheses: Sequence[float], resamples: int) -> None:
    if not isinstance(threshold, int | float) or not threshold > 0:
        raise InputError(f"threshold={threshold!r} must be a positive number of nats², such as 0.04")
    if not all(isinstance(k, int | float) and not isinstance(k, bool) and k > 0 for k in hypotheses):
        raise InputError(f"hypotheses={hypotheses!r} must be positive exponents, such as 1,1.35,2,4")
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 100:
        raise InputError(f"resamples={resamples!r} must be a whole number of at least 100")


def _criterion_remarks(criteria: dict[tuple[float, float], list[Criterion]], threshold: float) -> tuple[str, ...]:
    """What a reader must know of the runs before trusting D*."""
    runs = [item for items in criteria.values() for item in items]
    remarks = []
    for number, text in (
        (
            sum(item.at_end for item in runs),
            "have their least validation loss at the last evaluation: trained longer, D* may move",
        ),
        (sum(item.cut for item in runs), "have a window cut short by the start of the run"),
        (
            sum(item.variance >= threshold for item in runs),
            "have a batch-to-batch variance that alone exceeds the threshold",
        ),
    ):
        if number:
            remarks.append(f"{number} of {len(runs)} runs {text}")
    return tuple(remarks)
