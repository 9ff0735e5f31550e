"""The verdict on a fit: what was asked, what the runs say to it, what they cannot say, and what to run next.

It is made by rules from the estimates and never stronger than these. An exponent is rejected where the interval of an
estimate leaves it out; a floor of 1 is no bound where a training loss settles below it with all of its interval; and
validation loss is said to rest at the entropy of the text where it comes within 1 % of it and no longer moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from amscale.scaling.answer import Answer, counted_noun
from amscale.scaling.answer_on_floor import answer_on_floor
from amscale.scaling.answer_on_k import answer_on_k
from amscale.scaling.estimate import Estimate
from amscale.scaling.laws.compare import Comparison
from amscale.scaling.points import PointTable
from amscale.settings import format_duration

ASKED, ANSWER, NOT_SAID, NEXT = "asked", "answer", "not said", "next"
"""Labels of a verdict's lines."""


@dataclass(frozen=True)
class NextStep:
    """The commands that would settle most, what they cost, and what they promise; or why none can be named.

    Attributes:
        commands: shell commands, to be given in this order.
        cells: (N, D) of the runs that they add.
        flops: of all runs together.
        seconds: of one device; None where the speed is not known.
        promise: what the runs would narrow, in words.
        reason: why no cells can be named; empty where they are.
    """

    commands: tuple[str, ...] = ()
    cells: tuple[tuple[float, float], ...] = ()
    flops: float = 0.0
    seconds: float | None = None
    promise: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """Answers to the questions of a fit, and the next step where one was looked for; `str` gives them as text."""

    answers: tuple[Answer, ...]
    next_step: NextStep | None = None

    def lines(self) -> list[tuple[str, str]]:
        """Return (label, text) of every line; a label that repeats the one before is empty."""
        found: list[tuple[str, str]] = []
        for answer in self.answers:
            parts = (
                (ASKED, (answer.question,)),
                (ANSWER, (answer.headline,)),
                ("", answer.says),
                (NOT_SAID, answer.cannot_say),
            )
            for label, texts in parts:
                found += _labelled(label, texts)
        if self.next_step is not None:
            found += _labelled(NEXT, (*self.next_step.commands, promise(self.next_step)))
        return found

    def __str__(self) -> str:
        return "\n".join(f"{label:10}{text}" for label, text in self.lines())


def _labelled(label: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts)]


def promise(step: NextStep) -> str:
    """Return what a next step costs and promises, or why there is none, as a sentence."""
    if step.reason:
        return f"No next cells can be named: {step.reason}."
    cost = f"{step.flops:.2g} FLOPs"
    if step.seconds is not None:
        cost += f", about {format_duration(step.seconds)} of training on one device"
    return f"{counted_noun(len(step.cells), 'run')}, {cost}: {step.promise}."


def make_verdict(
    table: PointTable,
    estimates: Sequence[Estimate],
    hypotheses: Sequence[float],
    laws: Sequence[Comparison] = (),
    next_step: NextStep | None = None,
) -> Verdict:
    """Return the verdict on the estimates of a table.

    Args:
        table: the points that they rest on.
        estimates: all of them, those included that are not determined.
        hypotheses: the exponents k of N ∝ D^k that were tested.
        laws: every law under every objective, by which is judged whether others describe the points as well.
        next_step: what to run next, where it was looked for.
    """
    return Verdict((answer_on_k(table, estimates, hypotheses, laws), answer_on_floor(table, estimates)), next_step)
