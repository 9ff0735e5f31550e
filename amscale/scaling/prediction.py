"""Predict losses of cells that were not fitted: by the laws that describe the points, with intervals.

The interval of a prediction holds what the refits leave open of the parameters, the residual of one run, and what the
choice among laws that describe the points about as well decides. How far a forecast of this reach was off before is
found on the points themselves: the largest compute is predicted from what is as much smaller as the forecast is larger.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amscale.errors import InputError
from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.design import no_variation
from amscale.scaling.laws import all_laws
from amscale.scaling.laws.adequacy import NO_SUPPORT
from amscale.scaling.laws.compare import resample_law
from amscale.scaling.laws.fitting import LawFit, fit_law, gaussian_aicc
from amscale.scaling.laws.law import HUBER_LOG, SQUARED_LOG, Law, Rows, minimise, rows_of
from amscale.scaling.points import Array, PointTable

_AS_GOOD = 2.0
"""AICc above the least from which a law describes the points less well (Burnham & Anderson 2002, section 2.6)."""

_FLOORS = 5
_SAME = 1.02
"""Compute within this factor of the largest is held out with it."""


@dataclass(frozen=True)
class Reach:
    """How far off forecasts of some reach were on the points: the reach in C, and the error of ln loss there."""

    factor: float
    error: float
    rows: int


@dataclass(frozen=True)
class Predictions:
    """Losses predicted for rows by a law that was fitted to others.

    Attributes:
        law: id of the law that gives the values.
        fit: the fit of it.
        rows: what was predicted.
        loss: predicted losses (R,), nats per token.
        low, high: ends of the 95 % intervals (R,).
        others: losses by the other laws that describe the points about as well, by their id.
        by_floor: floors and the losses (F, R) that follow where the floor is held there; empty for a law without one.
        reach: what the factor of extrapolation cost on the points themselves; None where these are too few.
        factor: the compute of the farthest row over the largest of those fitted.
    """

    law: str
    fit: LawFit
    rows: Rows
    loss: Array
    low: Array
    high: Array
    others: dict[str, Array]
    by_floor: tuple[tuple[float, Array], ...]
    reach: Reach | None
    factor: float

    @property
    def errors(self) -> Array:
        """Predicted over measured loss, minus 1 (R,)."""
        return self.loss / self.rows.loss - 1

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether each measured loss is inside its interval (R,)."""
        return np.logical_and(self.low <= self.rows.loss, self.rows.loss <= self.high)


def cells_to_rows(table: PointTable, N: Array, D: Array, tokens: Array | None = None) -> Rows:
    """Return cells as rows without losses; the tokens seen are as many times D as given, else D."""
    tokens = D if tokens is None else tokens
    known = tokens if table.tokens is not None else None
    return Rows(N, D, np.ones(len(N)), known, _flops(table, N, D, tokens))


def _flops(table: PointTable, N: Array, D: Array, tokens: Array) -> Array:
    """Return the FLOPs of new cells: those of the nearest points, in proportion to N times the tokens seen."""
    seen = table.D if table.tokens is None else table.tokens
    return np.median(table.flops / (table.N * seen)) * N * tokens


def predict_rows(
    table: PointTable, rows: Rows, law: str | None = None, resamples: int = 400, seed: int = 0
) -> Predictions:
    """Predict the losses of rows from the points of a table.

    Args:
        table: the points to fit.
        rows: the rows to predict; their loss is read by `errors` only.
        law: id of a law; by default, of those within 2 of the least AICc, the one of the least error on the largest C.
        resamples: refits for the intervals.
        seed: of the draws.

    Raises:
        InputError: no such law, or none can be fitted to these points.
    """
    fitted = rows_of(table)
    scores = _scores(fitted, law)
    best = min(score for score, _ in scores.values())
    close = [id for id, (score, _) in scores.items() if score <= best + _AS_GOOD]
    factor = float(rows.flops.max() / fitted.flops.max())
    reaches = {id: reach_error(scores[id][1], fitted, max(factor, _SAME)) for id in close}
    error = {id: math.inf if found is None else found.error for id, found in reaches.items()}
    chosen = min(close, key=lambda id: (error[id], scores[id][0]))
    supported = [chosen, *(id for id, (score, _) in scores.items() if score <= best + NO_SUPPORT and id != chosen)]
    fits = {id: fit_law(scores[id][1], fitted, HUBER_LOG) for id in supported}
    drawn = {id: _drawn(fits[id], fitted, rows, resamples, seed) for id in supported}
    ends = np.array([[percentile_interval(column) for column in values.T] for values in drawn.values()])
    losses = {id: fits[id].predict(rows) for id in supported}
    return Predictions(
        law=chosen,
        fit=fits[chosen],
        rows=rows,
        loss=losses.pop(chosen),
        low=ends[:, :, 0].min(axis=0),
        high=ends[:, :, 1].max(axis=0),
        others=losses,
        by_floor=_by_floor(fits[chosen], fitted, rows, resamples, seed),
        reach=reaches[chosen],
        factor=factor,
    )


def _scores(rows: Rows, wanted: str | None) -> dict[str, tuple[float, Law]]:
    """Return AICc of the laws that can be fitted, by squares on ln loss, with the law, by their id."""
    laws = all_laws()
    if wanted is not None and wanted not in laws:
        raise InputError(f"law={wanted!r} is not a law; choose one of {', '.join(laws)}")
    found, reasons = {}, {}
    for id, law in laws.items():
        if wanted is not None and id != wanted:
            continue
        if reason := no_variation(rows.loss) or law.unsupported(rows):
            reasons[id] = reason
            continue
        fit = fit_law(law, rows, SQUARED_LOG)
        if np.isfinite(fit.natural).all() and len(rows) > len(fit.theta) + 2:
            found[id] = gaussian_aicc(max(fit.value, 1e-300), rows, len(fit.theta) + 1), law
    if not found:
        reason = next(iter(reasons.values()), "its parameters grow beyond every number")
        raise InputError(f"no law can be fitted to these {len(rows)} points to predict from: {reason}")
    return found


def _drawn(fit: LawFit, fitted: Rows, rows: Rows, resamples: int, seed: int) -> Array:
    """Return losses of one run each at the rows (resamples, R): by refits, with a residual drawn for each."""
    refits = resample_law(fit, fitted, resamples, seed)
    free = max(len(fitted) - len(fit.theta), 1)
    squares = float(np.sum((np.log(fitted.loss) - np.log(fit.predict(fitted))) ** 2))
    random = np.random.default_rng(seed + 1)
    scale = np.sqrt(squares / random.chisquare(free, size=(resamples, 1)))
    losses = np.array([fit.law.loss(natural, rows) for natural in refits.natural])
    return losses * np.exp(scale * random.normal(size=losses.shape))


def _by_floor(fit: LawFit, fitted: Rows, rows: Rows, resamples: int, seed: int) -> tuple[tuple[float, Array], ...]:
    """Return the losses at the rows with the floor held at values over its interval, everything else refitted."""
    problem = fit.law.problem(fitted)
    floors = fit.law.floor(resample_law(fit, fitted, resamples, seed).natural)
    if floors is None or fit.law.floor_parameter not in problem.names:
        return ()
    least, most = percentile_interval(floors)
    if not 0 < least < most < math.inf:
        return ()
    at = problem.names.index(fit.law.floor_parameter)
    values = np.linspace(least, most, _FLOORS)
    starts = np.repeat(fit.theta[None], _FLOORS, axis=0)
    starts[:, at] = np.log(values)

    def held(theta: Array) -> tuple[Array, Array]:
        log_loss, jacobian = problem.predict(theta)
        jacobian = jacobian.copy()
        jacobian[..., at] = 0.0  # so that no step moves the floor
        return log_loss, jacobian

    low_bounds, high_bounds = problem.low.copy(), problem.high.copy()
    low_bounds[at], high_bounds[at] = -np.inf, np.inf
    theta, _ = minimise(held, HUBER_LOG, starts, fitted.loss, np.ones(len(fitted)), low_bounds, high_bounds)
    natural = problem.natural(theta)
    return tuple((float(value), fit.law.loss(row, rows)) for value, row in zip(values, natural, strict=True))


def reach_error(law: Law, rows: Rows, factor: float) -> Reach | None:
    """Return the error of ln loss on the largest C by a fit to rows of at most C/factor, or as near as rows allow.

    None where no smaller rows determine the law.
    """
    out = rows.flops * _SAME >= rows.flops.max()
    largest = float(rows.flops.max())
    budgets = np.unique(rows.flops[~out])
    # First those of at most largest/factor, from the largest on; where none determines the law, the next above.
    small, large = budgets[budgets <= largest / factor][::-1], budgets[budgets > largest / factor]
    for budget in [*small[:1], *large]:
        inside = rows.take(rows.flops <= budget * (1 + 1e-9))
        if law.unsupported(inside):
            continue
        fit = fit_law(law, inside, HUBER_LOG)
        errors = np.log(fit.predict(rows.take(out))) - np.log(rows.loss[out])
        error = float(np.sqrt(np.mean(errors**2)))
        if math.isfinite(error):
            return Reach(largest / float(budget), error, len(inside))
    return None


def reach_text(predictions: Predictions) -> str:
    """Return a sentence on how far the predictions reach, and what such a reach cost on the points themselves."""
    text = f"The farthest is at {predictions.factor:.3g} times the largest compute that was fitted"
    if predictions.reach is None:
        return f"{text}; the points are too few to tell what such a reach costs."
    reach = predictions.reach
    return (
        f"{text}. On the points themselves this law missed the largest compute by {reach.error:.2%} from a fit to "
        f"{reach.rows} rows of {reach.factor:.3g} times less."
    )


def predict_points(fitted: PointTable, wanted: PointTable, law: str | None, resamples: int) -> dict[str, Any]:
    """Return how well points predict others, as a document: a row for each of `wanted`, and the errors of all.

    Raises:
        InputError: as `predict_rows`.
    """
    found = predict_rows(fitted, rows_of(wanted), law, resamples)
    columns = (found.rows.N, found.rows.D, found.rows.loss, found.loss, found.low, found.high, found.errors)
    rows = [
        {"name": point.name, "N": N, "D": D, "measured": loss, "loss": value, "interval": [low, high], "error": error}
        for point, (N, D, loss, value, low, high, error) in zip(
            wanted.points, zip(*(column.tolist() for column in columns), strict=True), strict=True
        )
    ]
    both = {point.name for point in fitted.points} & {point.name for point in wanted.points}
    return {
        "format": 1,
        "kind": "prediction",
        "source": fitted.source,
        "convention": fitted.convention,
        "law": found.law,
        "formula": found.fit.law.formula,
        "parameters": found.fit.parameters,
        "fitted": len(fitted.points),
        "predicted": len(rows),
        "in_both": len(both),
        "rms_error": float(np.sqrt(np.mean(found.errors**2))),
        "mean_error": float(np.mean(found.errors)),
        "largest_error": float(found.errors[np.argmax(np.abs(found.errors))]),
        "inside": int(found.inside.sum()),
        "reach": reach_text(found),
        "rows": rows,
    }
