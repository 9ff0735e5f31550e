"""How much the exponent from D* owes to the threshold and the window of its criterion, which are conventions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amscale.scaling.dstar import cell_criteria, locate_all
from amscale.scaling.estimate import interval_text
from amscale.scaling.power_law import exponent_from_dstar
from amscale.scaling.table import Table

FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Setting:
    """k and its interval under one threshold (nats²) and window; None where D* is known on both sides at too few N."""

    threshold: float
    window: float
    k: float | None
    interval: tuple[float, float] | None
    sizes: int


def dstar_sensitivity(table: Table, window: float, threshold: float, hypotheses: Sequence[float]) -> list[Setting]:
    """k under half, once and twice the threshold and the window."""
    cells = table.cells()
    windows = {min(factor * window, 1.0) if window <= 1 else max(2.0, round(factor * window)) for factor in FACTORS}
    found = []
    for width in sorted(windows):
        values = {cell: [x.value for x in items] for cell, items in cell_criteria(cells, width)[0].items()}
        for factor in FACTORS:
            dstars = locate_all(values, factor * threshold)
            fit = exponent_from_dstar(dstars, table.convention, "", hypotheses)
            sizes = sum(dstar.kind == "interval" for dstar in dstars)
            found.append(Setting(factor * threshold, width, fit.value, fit.interval, sizes))
    return found


def sensitivity_remark(settings: Sequence[Setting]) -> tuple[str, ...]:
    """One line: the range of k over the settings, and where there is none."""
    known = [setting for setting in settings if setting.k is not None]
    if not known:
        return ()
    low, high = (min(known, key=_k), max(known, key=_k))
    union = min(s.interval[0] for s in known if s.interval), max(s.interval[1] for s in known if s.interval)
    text = (
        f"with σ² and window halved and doubled k runs from {low.k:.3g} (σ² {low.threshold:g}, window {low.window:g}) "
        f"to {high.k:.3g} (σ² {high.threshold:g}, window {high.window:g}); their intervals span {interval_text(union)}"
    )
    missing = len(settings) - len(known)
    return (text + (f"; refused in {missing} of {len(settings)} settings" if missing else ""),)


def _k(setting: Setting) -> float:
    return np.inf if setting.k is None else setting.k
