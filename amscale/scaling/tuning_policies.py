"""The settings that published policies give for the cells of a fit: what k would be at these."""

from collections.abc import Mapping

from amscale.errors import InputError
from amscale.models.shape import ParameterCounts, Shape
from amscale.policies import POLICIES, PolicyCell, find_policy
from amscale.scaling.points import Point, PointTable
from amscale.scaling.tuning import Tuning, at_settings
from amscale.scaling.tuning_surface import short

_RATES = ("learning_rate", "lr", "peak_lr", "max_lr")
Settings = Mapping[tuple[float, float], Mapping[str, float]]


def tables_of_policies(tuning: Tuning) -> dict[str, PointTable]:
    """Return the cells at the settings of each policy, by its name, where the runs of every cell surround these.

    Only a learning rate, and a batch in tokens, can be compared: the unit of another batch is not known.
    """
    found = {}
    for name in POLICIES:
        wanted = _settings(tuning, name)
        table = at_settings(tuning, wanted) if wanted else None
        if table is not None:
            found[name] = table
    return found


def _settings(tuning: Tuning, name: str) -> Settings | None:
    """Return what a policy gives for the tuned settings of each cell; None where it is not known."""
    rates = [axis for axis in tuning.axes if short(axis).casefold().replace(" ", "_") in _RATES]
    batches = [axis for axis in tuning.axes if axis not in rates]
    if any("batch" not in axis or "token" not in axis for axis in batches) or len(rates) > 1 or len(batches) > 1:
        return None
    policy = find_policy(name)
    found = {}
    for cell, runs in tuning.runs.cells().items():
        try:
            described = _cell(runs[0], None)
            batch = policy.batch_tokens(described) if batches else _batch(runs[0])
            settings = policy.settings(_cell(runs[0], batch)) if rates else {}
        except (InputError, ZeroDivisionError):  # it needs what is not known of these runs: a width, or their batch
            return None
        values = {axis: settings.get("learning_rate") for axis in rates} | dict.fromkeys(batches, batch)
        if any(value is None or not value > 0 for value in values.values()):
            return None
        found[cell] = {axis: float(value) for axis, value in values.items() if value is not None}
    return found


def _batch(point: Point) -> float | None:
    """Return the tokens of a batch, where the settings of a trial tell."""
    value = point.result.setting("train.batch_tokens") if point.result else None
    return float(value) if isinstance(value, int | float) else None


def _cell(point: Point, batch: float | None) -> PolicyCell:
    """Return what a policy can know of a run: N by parts and the width of a trial, N alone of a table's row."""
    counts, width, layers = ParameterCounts(0, 0, round(point.N), 0, 0), 0, 0
    tokens = point.D
    if point.result is not None:
        parts = point.result.parameters
        counts = ParameterCounts(
            round(parts.embedding),
            round(parts.output_head),
            round(parts.attention),
            round(parts.feed_forward),
            round(parts.norms_and_rest),
        )
        width, layers = point.result.shape.width or 0, point.result.shape.layers or 0
        tokens = point.result.data.tokens_seen or point.D

    def known_batch() -> float:
        if batch is None:
            raise InputError("the batch is not known")
        return batch

    shape = Shape("", layers, width, 1, 0, 0, 0, None, counts)
    return PolicyCell(shape, round(point.D), 1, lambda: tokens, known_batch)
