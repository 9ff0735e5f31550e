"""What a fit says, and the points that it rests on: all that its figures need, of a sweep or of a table."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from amscale.scaling.estimate import FLOOR
from amscale.scaling.floor import common_value
from amscale.settings import format_size

if TYPE_CHECKING:
    from amscale.scaling.fit import Fit

MOST_TONES = 16
"""More sizes than this share colours, neighbour with neighbour."""

MOST_DRAWN = 5000
"""Of more points than this, so many are drawn, at random."""

_FACTS = ("entropy_per_token", "memorised_per_token")


@dataclass(frozen=True)
class Analysis:
    """The fit as fit.json holds it (an open end of an interval infinite), and its points.

    `rows` are the points used, each with N, D, loss and seed, or a random MOST_DRAWN of them; `facts` what is known of
    the corpus, such as `entropy_per_token`, where all runs agree on it.
    """

    name: str
    fit: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    facts: dict[str, float]

    @property
    def thinned(self) -> str:
        """How many of the points are drawn, as an end of a caption; nothing where all are."""
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

    @cached_property
    def _tones(self) -> dict[float, str]:
        sizes = self.sizes
        if len(sizes) <= MOST_TONES:
            return {N: f"size:{index}" for index, N in enumerate(sizes)}
        reach = math.log(sizes[-1] / sizes[0])
        return {N: f"size:{round((MOST_TONES - 1) * math.log(N / sizes[0]) / reach)}" for N in sizes}

    def tone(self, N: float | None) -> str:
        """The colour of one N."""
        return "muted" if N is None else self._tones.get(N, "muted")

    def losses(self, key: str) -> list[tuple[float, float, float, str]]:
        """(N, D, loss, what to call the run) of every run that has the loss `key` of a result; a point's own loss is
        its least validation loss."""
        if key != "validation_least":
            return []
        return [(row["N"], row["D"], row["loss"], _called(row)) for row in self.rows]

    def cells(self) -> dict[tuple[float, float], float]:
        """The mean loss of the points of each (N, D)."""
        found: dict[tuple[float, float], list[float]] = {}
        for row in self.rows:
            found.setdefault((row["N"], row["D"]), []).append(row["loss"])
        return {cell: sum(values) / len(values) for cell, values in found.items()}

    def fact(self, key: str, trials: Sequence[Any] | None = None) -> float | None:
        """One of the facts; a sweep knows those of some trials, too."""
        return self.facts.get(key)

    @property
    def mixed(self) -> list[str]:
        """The corpora that the points are of, where there are several."""
        named = [(estimate["details"] or {}).get("corpus") for estimate in self.fit["estimates"]]
        return list(dict.fromkeys(name for name in named if name))

    def beside_entropy(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        """The floors of that name of several corpora, each with the entropy of its own, where that is known."""
        floors = [row for row in self.estimates(FLOOR) if row["estimand"].startswith(name) and row["value"] is not None]
        mixed = [row for row in floors if "corpus" in row["details"]]
        pairs = [(row["details"]["references"].get("entropy"), row) for row in mixed]
        return [(float(entropy), row) for entropy, row in pairs if entropy is not None]

    def estimates(self, group: str) -> list[dict[str, Any]]:
        """The estimates of one group."""
        return [estimate for estimate in self.fit["estimates"] if estimate["group"] == group]

    @property
    def groups(self) -> list[str]:
        """The groups of estimates, in their order."""
        return list(dict.fromkeys(estimate["group"] for estimate in self.fit["estimates"]))

    def estimate_with(self, key: str) -> dict[str, Any] | None:
        """The first estimate that has a detail of that name."""
        return next((e for e in self.fit["estimates"] if (e.get("details") or {}).get(key)), None)

    def detail(self, key: str) -> Any:
        """The first estimate's detail of that name, or None."""
        found = self.estimate_with(key)
        return None if found is None else found["details"][key]


def analysis_of(fit: "Fit") -> Analysis:
    """A fit at hand, ready to draw."""
    points = fit.table.points
    corpora = [point.result.data if point.result else None for point in points]
    agreements = {key: common_value([getattr(corpus, key, None) for corpus in corpora]) for key in _FACTS}
    facts = {key: value for key, value in agreements.items() if value is not None}
    shown = points if len(points) <= MOST_DRAWN else random.Random(0).sample(points, MOST_DRAWN)
    rows = [{"N": point.N, "D": point.D, "loss": point.loss, "seed": point.seed} for point in shown]
    return Analysis(fit.table.source, bounded(fit.to_dict()), rows, facts)


def bounded(document: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a missing end of an interval is that side unbounded."""
    for estimate in document["estimates"]:
        if estimate.get("interval") is not None:
            low, high = estimate["interval"]
            estimate["interval"] = (-math.inf if low is None else low, math.inf if high is None else high)
    return document


def _called(row: dict[str, Any]) -> str:
    text = f"N = {format_size(row['N'])}, D = {format_size(row['D'])}"
    return text if row["seed"] is None else f"{text}, seed {row['seed']}"
