"""What a design of N and D cannot determine, whatever the losses are."""

import numpy as np

from amscale.scaling.points import Array

_FOLLOWS = 0.98
"""R² of ln D on ln N from which D is taken to follow N."""


def follows(N: Array, D: Array) -> str:
    """Return how D follows N where it does in every run, or an empty text.

    The loss is then known along one line of the plane of ln N and ln D, and only the form of a law decides its k
    (arXiv 2605.08541).
    """
    x, y = np.log(N), np.log(D)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
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
