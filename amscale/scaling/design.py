"""What the runs of a table cannot tell, whatever the estimate: losses that do not vary, N and D that vary together."""

import numpy as np

from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import fit_loglog

LEAST_VARIATION = 1e-6
"""Losses closer than this share of themselves are one loss: what remains is rounding."""

_TOGETHER = 0.05
"""Where D is a power of N within this factor (1 + 0.05) at every run, nothing tells the two apart."""


def equal_losses(loss: Array) -> bool:
    """Return whether losses (R,) are equal but for rounding."""
    return bool(np.ptp(loss) <= LEAST_VARIATION * np.abs(loss).max())


def no_variation(loss: Array) -> str:
    """Return why losses (R,) determine nothing, or an empty text: they are all equal."""
    if not loss.size or not equal_losses(loss):
        return ""
    return f"every loss is {loss[0]:.6g}: nothing in these runs depends on N or D"


def one_value(N: Array, D: Array) -> str:
    """Return which of N and D (R,) has one value in all runs, or an empty text."""
    for name, values in (("N", N), ("D", D)):
        if len(np.unique(values)) == 1:
            return f"all runs have one {name}, {values[0]:.4g}"
    return ""


def not_told_apart(N: Array, D: Array) -> str:
    """Return why N and D (R,) cannot be told apart in these runs, or an empty text.

    There is one N, or one D, or D is a power of N: a change of the loss may then be due to either.
    """
    if reason := one_value(N, D):
        return f"{reason}: they cannot tell how N and D trade"
    if len(N) < 3:
        return ""  # too few for every estimate
    line = fit_loglog(N, D)
    left = np.log(D) - line.intercept - line.slope * np.log(N)
    if np.ptp(left) / 2 > np.log1p(_TOGETHER):
        return ""
    law = f"{D[0] / N[0]:.4g} N" if abs(line.slope - 1) < 0.01 else f"{np.exp(line.intercept):.3g} N^{line.slope:.3g}"
    return f"D is {law} at every run: nothing tells a change of N from one of D"


def no_curvature(N: Array, D: Array, loss: Array, error: float | None) -> str:
    """Return why a law of some error in ln loss tells nothing of an optimum, or an empty text.

    A plane in ln N and ln D, of the loss or of ln loss, has no optimum. Where one describes the losses (R,) as well as
    the law, which has more parameters, the curvature that an exponent rests on does not show.
    """
    columns = np.stack([np.ones_like(N), np.log(N), np.log(D)], axis=1)
    log_plane, plane = (columns @ np.linalg.lstsq(columns, y, rcond=None)[0] for y in (np.log(loss), loss))
    planes = [log_plane, np.log(plane)] if (plane > 0).all() else [log_plane]
    least = min(float(np.sqrt(np.mean((values - np.log(loss)) ** 2))) for values in planes)
    if error is None or least > error:
        return ""
    return "a plane in ln N and ln D describes these losses as well as the law: they show no curvature"


def no_exponent(table: PointTable) -> str:
    """Return why the points of a table determine no exponent k, whatever the estimate, or an empty text."""
    return no_variation(table.loss) or not_told_apart(table.N, table.D)


def above_the_losses(table: PointTable, interval: tuple[float, float] | None) -> str:
    """Return that runs went below all of a floor's interval, which then is that of no floor, or an empty text."""
    least = min(table.losses().values())
    if interval is None or interval[0] <= least * (1 + LEAST_VARIATION):
        return ""
    return f"the floor, {interval[0]:.4g} or more, is above the least loss measured, {least:.4g}"
