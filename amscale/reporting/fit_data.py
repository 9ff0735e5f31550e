"""What a fit found and the points it used: all that the figures of a fit need, for a sweep or a table of points."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from amscale.scaling.estimate import FLOOR, ends_of
from amscale.scaling.floor import common_value
from amscale.settings import format_size

if TYPE_CHECKING:
    from amscale.scaling.base_fit import BaseFit

MAX_SIZE_COLOURS = 16
"""Where there are more sizes than this, neighbouring sizes share a colour."""

MAX_POINTS = 5000
"""Of more points than this, a random sample of this many is drawn."""

_CORPUS_FACTS = ("entropy_per_token", "memorised_per_token")


class RunLoss(NamedTuple):
    """The loss of one run in nats per token, with N, D and the run's label."""

    N: float
    D: float
    loss: float
    label: str


@dataclass(frozen=True)
class FitData:
    """A fit as fit.json holds it, except that an open end of an interval is infinite, and the points it used.

    `rows` are these points (or a random MAX_POINTS of them), each with N, D, loss and seed. `facts` are properties of
    the corpus, such as `entropy_per_token`, that all runs agree on.
    """

    name: str
    fit: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    facts: dict[str, float]

    @property
    def loss_name(self) -> str:
        """What the loss of a point is."""
        return "loss"

    @property
    def sample_note(self) -> str:
        """A sentence for captions that says how many of the points are drawn; empty where all are."""
        used = self.fit["points_used"]
        return f" {len(self.rows):,} of {used:,} points, drawn at random, are shown." if used > len(self.rows) else ""

    @cached_property
    def sizes(self) -> list[float]:
        """Every N, ascending."""
        return sorted({row["N"] for row in self.rows})

    @cached_property
    def tokens(self) -> list[float]:
        """Every D, ascending."""
        return sorted({row["D"] for row in self.rows})

    @property
    def one_colour_per_size(self) -> bool:
        """Whether every N has a colour that no other N has."""
        return len(self.sizes) <= MAX_SIZE_COLOURS

    @cached_property
    def _size_colours(self) -> dict[float, str]:
        sizes = self.sizes
        if self.one_colour_per_size:
            return {N: f"size:{index}" for index, N in enumerate(sizes)}
        log_range = math.log(sizes[-1] / sizes[0])
        return {N: f"size:{round((MAX_SIZE_COLOURS - 1) * math.log(N / sizes[0]) / log_range)}" for N in sizes}

    def size_colour(self, N: float | None) -> str:
        """Return the name of the colour of one N."""
        return "muted" if N is None else self._size_colours.get(N, "muted")

    def losses(self, name: str) -> list[RunLoss]:
        """Return the loss `name` of every run that has it; a point has only its least validation loss."""
        if name != "validation_least":
            return []
        return [
            RunLoss(row["N"], row["D"], row["loss"], run_label(row["N"], row["D"], row["seed"])) for row in self.rows
        ]

    def mean_losses(self) -> dict[tuple[float, float], float]:
        """Return the mean loss of the points of each (N, D); of a tuned sweep, a point is a tuned cell."""
        return mean_by_cell((row["N"], row["D"], row["loss"]) for row in self.rows)

    def corpus_fact(self, name: str, trials: Sequence[Any] | None = None) -> float | None:
        """Return a property of the corpus that the runs agree on, or None; `trials` matters for a sweep only."""
        return self.facts.get(name)

    @property
    def corpora(self) -> list[str]:
        """The names of the corpora where the points come from several; empty for a single corpus."""
        names = [(estimate["details"] or {}).get("corpus") for estimate in self.fit["estimates"]]
        return list(dict.fromkeys(name for name in names if name))

    def floors_with_entropy(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        """Return (entropy of the corpus, estimate) for the floor `name` of every corpus whose entropy is known."""
        floors = [row for row in self.estimates(FLOOR) if row["estimand"].startswith(name) and row["value"] is not None]
        of_corpora = [row for row in floors if "corpus" in row["details"]]
        pairs = [(row["details"]["references"].get("entropy"), row) for row in of_corpora]
        return [(float(entropy), row) for entropy, row in pairs if entropy is not None]

    def estimates(self, group: str) -> list[dict[str, Any]]:
        """Return the estimates of one group."""
        return [estimate for estimate in self.fit["estimates"] if estimate["group"] == group]

    @property
    def groups(self) -> list[str]:
        """The groups of estimates, in their order."""
        return list(dict.fromkeys(estimate["group"] for estimate in self.fit["estimates"]))

    def estimate_with(self, detail: str) -> dict[str, Any] | None:
        """Return the first estimate that has a detail of that name, or None."""
        return next((e for e in self.fit["estimates"] if (e.get("details") or {}).get(detail)), None)

    def detail(self, name: str) -> Any:
        """Return the detail of that name of the first estimate that has it, or None."""
        found = self.estimate_with(name)
        return None if found is None else found["details"][name]


def mean_by_cell(losses: Iterable[tuple[float, float, float]]) -> dict[tuple[float, float], float]:
    """Return the mean loss of each (N, D), of N, D and loss of every run."""
    found: dict[tuple[float, float], list[float]] = {}
    for N, D, loss in losses:
        found.setdefault((N, D), []).append(loss)
    return {cell: sum(values) / len(values) for cell, values in found.items()}


def data_of_fit(fit: "BaseFit") -> FitData:
    """Return the data that the figures of a fit are drawn from."""
    points = fit.table.points
    corpora = [point.result.data if point.result else None for point in points]
    agreements = {name: common_value([getattr(corpus, name, None) for corpus in corpora]) for name in _CORPUS_FACTS}
    facts = {name: value for name, value in agreements.items() if value is not None}
    sample = points if len(points) <= MAX_POINTS else random.Random(0).sample(points, MAX_POINTS)
    rows = [{"N": point.N, "D": point.D, "loss": point.loss, "seed": point.seed} for point in sample]
    return FitData(fit.table.source, with_infinite_ends(fit.to_dict()), rows, facts)


def with_infinite_ends(document: dict[str, Any]) -> dict[str, Any]:
    """Replace the null ends of intervals in a fit.json by infinities, in place: JSON has none."""
    for estimate in document["estimates"]:
        if estimate.get("interval") is not None:
            estimate["interval"] = ends_of(estimate["interval"])
    return document


def run_label(N: float, D: float, seed: int | None) -> str:
    """Return `N = 6k, D = 8k, seed 0`."""
    text = f"N = {format_size(N)}, D = {format_size(D)}"
    return text if seed is None else f"{text}, seed {seed}"
