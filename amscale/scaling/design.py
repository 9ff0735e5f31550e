"""What the runs of a table cannot tell, whatever the estimate: losses that do not vary, N and D that vary together."""

import numpy as np

from amscale.scaling.points import Array, PointTable

LEAST_VARIATION = 1e-6
"""Losses closer than this share of themselves are one loss: what remains is rounding."""

_FOLLOWS = 0.98
"""R² of ln D on ln N from which D is taken to follow N."""


def equal_losses(loss: Array) -> bool:
    """Return whether losses (R,) are equal but for rounding."""
    return bool(np.ptp(loss) <= LEAST_VARIATION * np.abs(loss).max())


def no_variation(loss: Array) -> str:
    """Return why losses (R,) determine nothing, or an empty text: there is one, or they are all equal."""
    if loss.size == 1:
        return "one run tells nothing of how the loss depends on N or D"
    if not loss.size or not equal_losses(loss):
        return ""
    return f"every loss is {loss[0]:.6g}: nothing in these runs depends on N or D"


def one_value(N: Array, D: Array) -> str:
    """Return which of N and D (R,) has one value in all runs, or an empty text."""
    for name, values in (("N", N), ("D", D)):
        if len(np.unique(values)) == 1:
            return f"all runs have one {name}, {values[0]:.4g}"
    return ""


def follows(N: Array, D: Array) -> str:
    """Return how D follows N where it does in every run, or an empty text.

    The loss is then known along one line of the plane of ln N and ln D, and only the form of a law decides its k
    (arXiv 2605.08541).
    """
    x, y = np.log(N), np.log(D)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return ""
    r_squared = float(np.corrcoef(x, y)[0, 1]) ** 2
    if r_squared < _FOLLOWS:
        return ""
    slope = float(np.polyfit(x, y, 1)[0])
    line = f"D = {np.exp(np.mean(y - x)):.3g} N" if abs(slope - 1) < 0.05 else f"D follows N^{slope:.2g}"
    return (
        f"{line} in every run (R² {r_squared:.3f} of ln D on ln N): nothing in the design separates N from D; add runs "
        "of several D at one N"
    )


def not_told_apart(N: Array, D: Array) -> str:
    """Return why N and D (R,) cannot be told apart in these runs, or an empty text.

    There is one N, or one D, or D follows N: a change of the loss may then be due to either.
    """
    reason = one_value(N, D)
    return f"{reason}: they cannot tell how N and D trade" if reason else follows(N, D)


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


_CURVED = 0.01
"""Level at which the curvature of the loss in N must show before its minima are taken for optima."""


def no_minimum(table: PointTable) -> str:
    """Return why minima in N at fixed D are none that the losses show, or an empty text.

    Of losses that do not depend on N or D every grid has interior minima, by chance. A surface of the second degree in
    ln N and ln D is tested for its curvature in N, which must be upwards and beyond what the scatter about it gives.
    """
    from scipy.special import fdtrc

    x, y = (np.log(column) - np.log(column).mean() for column in (table.N, table.D))
    columns = np.stack([np.ones_like(x), x, y, x * y, y**2, x**2, x**2 * y], axis=1)
    target = np.log(table.loss)
    flat = _squares(columns[:, :5], target)
    ranks = [int(np.linalg.matrix_rank(part)) for part in (columns[:, :5], columns)]
    free = len(x) - ranks[1]
    if free < 1 or ranks[1] <= ranks[0]:
        return ""
    curved = _squares(columns, target)
    ratio = (flat - curved) / (ranks[1] - ranks[0]) / max(curved / free, 1e-20)
    p = float(fdtrc(ranks[1] - ranks[0], free, ratio))
    if p < _CURVED and np.linalg.lstsq(columns[:, :6], target, rcond=None)[0][5] > 0:
        return ""
    return f"the losses show no minimum in N at fixed D beyond their scatter (curvature in ln N: p {p:.2g})"


def _squares(columns: Array, target: Array) -> float:
    return float(np.sum((target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]) ** 2))


def no_exponent(table: PointTable) -> str:
    """Return why the points of a table determine no exponent k, whatever the estimate, or an empty text."""
    return no_variation(table.loss) or not_told_apart(table.N, table.D)
