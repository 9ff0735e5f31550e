"""The answer to whether the loss has a floor: how training, validation and laws stand to 1 and to the entropy."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from amscale.scaling.answer import Answer, by_law, counted_noun, range_of
from amscale.scaling.estimate import FLOOR, Estimate, interval_text
from amscale.scaling.floor import references
from amscale.scaling.points import Point, PointTable
from amscale.settings import format_size

NEAR = 0.01
"""A loss within this share of an entropy is near it: about what the choice of some thousand held-out lines moves."""


@dataclass
class _Draft:
    """An answer that is being written: sentences of its headline, what is said, and what cannot be."""

    heads: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    cannot_say: list[str] = field(default_factory=list)


def answer_on_floor(table: PointTable, estimates: Sequence[Estimate]) -> Answer:
    """Return what the estimates say of a floor under the loss, at 1 or at the entropy, and what they cannot say.

    Args:
        table: the points.
        estimates: all of their fit.
    """
    floors = [item for item in estimates if item.group == FLOOR]
    known = references(table) if table.points else {"1": 1.0}
    entropy = known.get("entropy")
    of_corpora = any("corpus" in item.details for item in floors)
    draft = _Draft()
    if of_corpora:
        place = "the entropy of each text"
        _judge_corpora(floors, draft)
    else:
        place = "the entropy of the text" + (f", {entropy:.4g}" if entropy is not None else ", which is not known")
        _judge_training(floors, entropy, draft)
        _judge_validation(table, floors, entropy, draft)
    _judge_law(floors, draft)
    if table.unit_in_doubt:
        draft.cannot_say.append(f"Whether a floor is 1 nat per token: {table.unit_in_doubt}.")
    return Answer(
        question=f"Is there a floor under the loss, at 1 nat per token or at {place}?",
        headline=" ".join(draft.heads) or "These runs do not determine a floor.",
        says=tuple(draft.says),
        cannot_say=tuple(draft.cannot_say),
    )


def _judge_training(floors: Sequence[Estimate], entropy: float | None, draft: _Draft) -> None:
    """Say whether a training loss settled below 1 and below the entropy."""
    item = next((item for item in floors if item.id == "floor_train_settled"), None)
    if item is None:
        return
    if item.value is None:
        draft.cannot_say.append(f"Training loss: {item.reason}.")
        return
    below, runs = item.details.get("runs_below", {}).get("1", (0, 0))
    text = f"Training loss settles at {item.value:.4g} (95 % interval {_interval(item.interval)})"
    marks = [("1", 1.0)] if entropy is None else [("1", 1.0), ("the entropy", entropy)]
    passed = [name for name, value in marks if value in item.rejected]
    if not passed:
        draft.says.append(f"{text} at the least, not below {' or '.join(name for name, _ in marks)}.")
    else:
        by_heart = ": that run knows text by heart" if "the entropy" in passed else ""
        draft.says.append(f"{text} at the least, below {' and '.join(passed)}{by_heart}.")
    if 1.0 in item.rejected:
        draft.says.append(f"Training loss passes below 1 in {below} of {counted_noun(runs, 'run')}.")
        draft.heads.append("1 is no floor of the training loss.")
    elif below:
        draft.cannot_say.append(
            f"Whether training loss settles below 1: it passed below in {below} of {counted_noun(runs, 'run')}, and "
            "none settled there with all of its interval."
        )
    else:
        draft.cannot_say.append(
            "Whether training loss could pass below 1: no run did, and longer training on fewer tokens might."
        )


def _interval(interval: tuple[float, float] | None) -> str:
    """Return `0.91 to 0.95`, or `± 3e-05` where the ends are alike to four digits."""
    text = interval_text(interval)
    ends = text.split(" to ")
    return f"± {(interval[1] - interval[0]) / 2:.1g}" if interval and len(ends) == 2 and ends[0] == ends[1] else text


def _judge_validation(table: PointTable, floors: Sequence[Estimate], entropy: float | None, draft: _Draft) -> None:
    """Say how far the least validation loss is from the entropy and from 1, and whether it has come to rest."""
    item = next((item for item in floors if item.id == "floor_validation"), None)
    if item is None or item.value is None:
        return
    loss, cell = item.value, item.details["cell"]
    text = f"The least validation loss is {loss:.4g} (N = {format_size(cell['N'])}, D = {format_size(cell['D'])})"
    upper = loss if item.interval is None else item.interval[1]
    if entropy is None:
        draft.says.append(f"{text}{', below 1' if upper < 1 else ''}.")
        draft.heads += ["1 is no floor of the validation loss."] if upper < 1 else []
        draft.cannot_say.append("Whether validation loss rests at the entropy: that of this text is not known.")
        return
    over = loss - entropy
    text += f", {abs(over):.2g} {'above' if over >= 0 else 'below'} the entropy"
    at_entropy, at_one = abs(over) <= NEAR * entropy, abs(loss - 1) <= NEAR
    points = [point for point in table.points if (cell["N"], cell["D"]) == (point.N, point.D)]
    if not at_entropy and not at_one:
        draft.says.append(f"{text}.")
        if over > 0:
            draft.cannot_say.append(
                f"Whether validation loss comes to rest at the entropy: the best run is {over:.2g} above it."
            )
        else:
            draft.cannot_say.append(
                "Why validation loss is below the entropy: too little is held out, or it repeats training text."
            )
    elif not all(_rests(point) for point in points):
        draft.says.append(f"{text}, and still moves at the end of its run.")
        draft.cannot_say.append("Where validation loss comes to rest: it still moves.")
    elif not at_entropy:
        draft.says.append(f"{text}, and rests there.")
        draft.heads.append(f"Validation loss comes to rest at 1, above the entropy, {entropy:.4g}.")
        draft.cannot_say.append("Whether larger models or more text would pass below 1: no run did.")
    elif at_one:
        draft.says.append(f"{text}, and rests there.")
        draft.heads.append(f"Validation loss comes to rest at the entropy, {entropy:.4g}.")
        draft.cannot_say.append(
            "Whether that is the entropy or 1: they are too close; a text of another entropy would tell "
            "(data.word_classes, data.copied_half)."
        )
    else:
        draft.says.append(f"{text}, and rests there.")
        draft.heads.append(f"Validation loss comes to rest at the entropy, {entropy:.4g}, not at 1.")


def _rests(point: Point) -> bool:
    """Return whether a run's validation loss moved by less than NEAR over the last fifth of its steps."""
    if point.curves is None:
        return False
    late = point.curves.validation_losses[point.curves.validation_steps >= 0.8 * point.curves.steps]
    return bool(len(late) > 1 and np.ptp(late) <= NEAR * late[-1])


def _judge_corpora(floors: Sequence[Estimate], draft: _Draft) -> None:
    """Compare the least validation losses of several corpora with their entropies."""
    validation = [item for item in floors if item.id.startswith("floor_validation") and item.value is not None]
    pairs = [(item.value, entropy) for item in validation if (entropy := item.details["references"].get("entropy"))]
    if not pairs:
        draft.cannot_say.append("Whether validation loss rests at the entropy: those of these texts are not known.")
        return
    ends = range_of([entropy for _, entropy in pairs])
    over = [(loss - entropy) / entropy for loss, entropy in pairs if loss is not None]
    near = sum(abs(share) <= NEAR for share in over)
    if len(pairs) == 1:
        draft.says.append(f"The least validation loss of the text of entropy {ends} is {100 * over[0]:.2g} % above it.")
    else:
        draft.says.append(
            f"The least validation losses of {len(pairs)} texts, whose entropies are {ends}, are {100 * min(over):.2g} "
            f"to {100 * max(over):.2g} % above these, {near} of them within 1 %."
        )
    apart = max(entropy for _, entropy in pairs) / min(entropy for _, entropy in pairs) > 1 + 3 * NEAR
    if near == len(pairs) and apart:
        draft.heads.append("Validation loss follows the entropy from text to text, and 1 is no floor for all of them.")
    elif near < len(pairs):
        others = f" in the other {len(pairs) - near}" if near else ""
        draft.cannot_say.append(f"Whether validation loss comes to rest at the entropy{others}.")


def _judge_law(floors: Sequence[Estimate], draft: _Draft) -> None:
    """Say which floor the recommended law has, or where nothing was observed the first law that determines one."""
    laws = [item for item in floors if item.details.get("law") and item.value is not None and item.interval]
    laws.sort(key=lambda item: not item.details.get("recommended"))
    if not laws or (draft.heads and not laws[0].details.get("recommended")):
        return  # what was observed says more than a law that is not the one to recommend
    item = laws[0]
    rejected = [test.name.removeprefix("floor = ") for test in item.tests if test.rejected]
    kept = [test.name.removeprefix("floor = ") for test in item.tests if not test.rejected]
    parts = [f"rejects {' and '.join(rejected)}"] if rejected else []
    parts += [f"does not reject {' or '.join(kept)}"] if kept else []
    text = f"{by_law(item)} the floor is {item.value:.4g} (95 % interval {interval_text(item.interval)})"
    draft.says.append(f"{text}, which {' and '.join(parts)}." if parts else f"{text}.")
    if not draft.heads and rejected:
        draft.heads.append(f"{by_law(item)} the floor is {item.value:.4g}, which rejects {' and '.join(rejected)}.")
