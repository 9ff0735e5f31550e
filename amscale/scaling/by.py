"""A fit for each value of a column of a table, or of a setting of a sweep: a corpus, an optimiser, a weight decay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.estimate import EXPONENT, FLOOR, Estimate, to_json_types
from amscale.scaling.reading import read_sweep
from amscale.scaling.table_file import read_cells
from amscale.scaling.table_rows import find_column, select_rows, take_rows
from amscale.settings import format_value

if TYPE_CHECKING:
    import pandas as pd

    from amscale.scaling.table_file import Cells

_MOST = 50
COMPARED = (
    "k_dstar",
    "k_overfitting",
    "capacity_bits_per_parameter",
    "capacity_slope",
    "floor_train_settled",
    "floor_validation",
)
"""Estimates that are given for each kind beside the recommended law, in their order."""


@dataclass(frozen=True)
class FitsBy:
    """Fits by the value of a column or setting; a kind that cannot be fitted has the reason instead."""

    name: str
    fits: Mapping[str, BaseFit | str]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each kind: its points, its recommended law with k and floor, or why it has none."""
        return [{"kind": kind, **_row(found)} for kind, found in self.fits.items()]

    def compared(self) -> list[dict[str, Any]]:
        """Return, for each estimate of COMPARED, a row for each kind: its value with the interval, or the reason."""
        fits = {kind: found for kind, found in self.fits.items() if isinstance(found, BaseFit)}
        ids = [id for id in COMPARED if any(id in found and found[id].value is not None for found in fits.values())]
        if any("k_dstar" in found for found in fits.values()):  # a sweep: why over-fitting has no k is said too
            ids = [id for id in COMPARED if id in {*COMPARED[:2], *ids}]
        return [
            {"id": id, "estimand": found[id].estimand, "kind": kind, **_estimated(found[id])}
            for id in ids
            for kind, found in fits.items()
            if id in found
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        fits = {
            kind: {"reason": found} if isinstance(found, str) else found.to_dict() for kind, found in self.fits.items()
        }
        return {"format": 1, "by": self.name, "rows": self.rows(), "compared": self.compared(), "fits": fits}


def fit_table_by(
    source: "str | Path | pd.DataFrame", by: str, fit: "Callable[[Cells], BaseFit]", where: str | None = None
) -> FitsBy:
    """Fit the rows of each value of a column separately; rows without one are left out.

    Args:
        source: a table.
        by: the column.
        fit: fits the cells of one kind, as `fit_table` with everything else given.
        where: conditions on the rows, as for `read_table`.

    Raises:
        InputError: no such column, one value, or more values than kinds have.
    """
    cells = select_rows(read_cells(source), where)
    name = find_column(cells, by, f"by={by!r}")
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(cells.columns[name]):
        if value is not None:
            rows.setdefault(str(value), []).append(row)
    _check_kinds(name, list(rows))
    fits = {kind: _tried(fit, take_rows(cells, rows[kind])) for kind in sorted(rows, key=_order)}
    return FitsBy(name, fits)


def fit_sweep_by(
    folder: str | Path, by: str, fit: Callable[[str], BaseFit], count: str, where: str | None = None
) -> FitsBy:
    """Fit the trials of each value of a setting separately.

    Args:
        folder: of the sweep.
        by: the setting, such as `train.weight_decay`.
        fit: fits the trials that a `where` selects, as `fit_sweep` with everything else given.
        count: convention for N.
        where: conditions on the trials, as for `read_sweep`.

    Raises:
        InputError: no finished trial has the setting, or all have one value.
    """
    points = read_sweep(folder, count, where, every_setting=True).points
    values = {
        format_value(value) for point in points if point.result and (value := point.result.setting(by)) is not None
    }
    if not values:
        raise InputError(f"by={by!r}: no finished trial has this setting; give a dotted key such as train.weight_decay")
    _check_kinds(by, sorted(values))
    before = f"{where}," if where else ""
    return FitsBy(by, {value: _tried(fit, f"{before}{by}={value}") for value in sorted(values, key=_order)})


def _order(kind: str) -> tuple[int, float, str]:
    try:
        return 0, float(kind), kind
    except ValueError:
        return 1, 0.0, kind


def _check_kinds(name: str, kinds: list[str]) -> None:
    if len(kinds) < 2:
        raise InputError(f"by={name!r}: it has one value in these runs, {', '.join(kinds) or 'none'}; leave --by out")
    if len(kinds) > _MOST:
        raise InputError(
            f"by={name!r}: it has {len(kinds)} values, and a fit for each is made of at most {_MOST}; select some with "
            "--where"
        )


def _tried(fit: Callable[[Any], BaseFit], kind: Any) -> BaseFit | str:
    """Return the fit of a kind, or why it cannot be fitted: the other kinds do not depend on it."""
    try:
        return fit(kind)
    except InputError as error:
        return str(error)


def _row(found: BaseFit | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"points": 0, "law": None, **_numbers("k", None), **_numbers("floor", None), "reason": found}
    k, floor = _chosen(found, EXPONENT), _chosen(found, FLOOR)
    law = k or floor
    numbers = {**_numbers("k", k), **_numbers("floor", floor)}
    # Why no law has a k is said of the laws; where there are none, of whatever there is.
    of_laws = [item.reason for item in found if item.group == EXPONENT and item.reason and "law" in item.details]
    reasons = of_laws or [item.reason for item in found if item.reason]
    return {
        "points": len(found.table.points),
        "law": law.details["law"] if law else None,
        **numbers,
        "reason": "" if k or not reasons else reasons[0],
    }


def _estimated(item: Estimate) -> dict[str, Any]:
    """Return value, interval and reason of an estimate, and of D* what is known at each N."""
    found = {
        "value": item.value,
        "interval": None if item.interval is None else to_json_types(item.interval),
        "reason": item.reason or "",
    }
    if dstars := item.details.get("dstar"):
        found["dstar"] = [to_json_types({"N": each.N, "low": each.lower, "high": each.upper}) for each in dstars]
    return found


def _numbers(name: str, estimate: Estimate | None) -> dict[str, Any]:
    interval = None if estimate is None or estimate.interval is None else list(estimate.interval)
    return {name: None if estimate is None else estimate.value, f"{name}_interval": interval}


def _chosen(fit: BaseFit, group: str) -> Estimate | None:
    """Return the recommended law's estimate of a group, if it is determined."""
    for item in fit:
        if item.group == group and item.details.get("recommended") and item.value is not None:
            return item
    return None
