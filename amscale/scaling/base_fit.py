"""The estimates of one source, with the points that they rest on and the laws side by side."""

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import amscale
from amscale.errors import InputError
from amscale.files import write_atomically
from amscale.scaling.dstar import Criterion
from amscale.scaling.estimate import Estimate, to_json_types
from amscale.scaling.health import Health
from amscale.scaling.laws.compare import Comparison
from amscale.scaling.points import PointTable
from amscale.scaling.power_law import HYPOTHESES, DStarSetting
from amscale.scaling.tuning_rule import TuningSummary
from amscale.scaling.verdict import NextStep, Verdict, make_verdict
from amscale.settings import counted
from amscale.trials.storage_errors import storage_errors

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 20_000
"""With more rows only the laws are fitted, without intervals: resampling them would take hours."""

_POINT_COLUMNS = ("name", "N", "D", "loss", "seed", "flops", "tokens")


class UnknownEstimate(InputError, KeyError):
    """An id that no estimate of a fit has."""

    __str__ = Exception.__str__


@dataclass(frozen=True)
class BaseFit:
    """The estimates of one source, with the points that they rest on and the laws side by side.

    `fit["k_dstar"]` is an estimate by its id; a fit iterates over its estimates.

    Attributes:
        table: the points used, and those left out.
        estimates: every estimate, those included that are not determined.
        laws: every law under every objective.
        settings: the arguments of the fit.
        criteria: the D* criterion of every run by (N, D); empty for a table.
        sensitivity: the exponent at D* under other thresholds and windows; empty for a table.
        forecasts: the scores of the forecasts in the sweep's folder, the oldest first; empty for a table.
        tuning: the tuned cells with their rules; None where no setting is tuned by cell.
        health: the loss curves of a sweep's runs on one scale; None for a table, or without curves.
        next_step: what to run next, where it was looked for.

    Raises:
        InputError: two estimates share an id, as where an installed law has the id of another estimate.
    """

    table: PointTable
    estimates: list[Estimate]
    laws: list[Comparison]
    settings: dict[str, Any]
    criteria: dict[tuple[float, float], list[Criterion]] = field(default_factory=dict)
    sensitivity: list[DStarSetting] = field(default_factory=list)
    forecasts: list[dict[str, Any]] = field(default_factory=list)
    tuning: TuningSummary | None = None
    health: Health | None = None
    next_step: NextStep | None = None

    def __post_init__(self) -> None:
        repeated = sorted({id for id in self.ids if self.ids.count(id) > 1})
        if repeated:
            raise InputError(f"two estimates have the id {', '.join(repeated)}; give the installed law another id")

    @property
    def ids(self) -> list[str]:
        """The ids of the estimates, in their order."""
        return [estimate.id for estimate in self.estimates]

    def __getitem__(self, id: str) -> Estimate:
        """Return the estimate of that id.

        Raises:
            UnknownEstimate: the fit has none; a KeyError that lists the ids.
        """
        for estimate in self.estimates:
            if estimate.id == id:
                return estimate
        raise UnknownEstimate(f"{id!r} is not an estimate of this fit; its estimates are {', '.join(self.ids)}")

    def __contains__(self, id: object) -> bool:
        return id in self.ids

    def __iter__(self) -> Iterator[Estimate]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each estimate: id, name, value, ends of the interval, points, values rejected, reason, …

        An infinite end is unbounded; `rejected` holds the values of the hypotheses that the data reject at 5 %.
        """
        import pandas as pd

        rows = [
            {
                "id": estimate.id,
                "name": estimate.name,
                "value": estimate.value,
                "low": None if estimate.interval is None else estimate.interval[0],
                "high": None if estimate.interval is None else estimate.interval[1],
                "n": estimate.used,
                "rejected": estimate.rejected,
                "reason": estimate.reason,
                "group": estimate.group,
                "convention": estimate.convention,
                "objective": estimate.objective,
                "method": estimate.method,
            }
            for estimate in self.estimates
        ]
        return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})

    def laws_frame(self) -> "pd.DataFrame":
        """Return a row for each law and objective; a parameter of any law has a column of its name."""
        import pandas as pd

        rows = []
        for law in self.laws:
            row: dict[str, Any] = {
                name: getattr(law, name)
                for name in ("id", "law", "objective", "used", "value", "k", "floor", "r_squared", "rmse", "aicc")
            }
            row |= {f"held_out_{axis}": error for axis, error in law.held_out.items() if isinstance(error, float)}
            for name, interval in law.intervals.items():
                row |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
            rows.append(row | law.parameters | {"flags": "; ".join(law.flags), "reason": law.reason})
        return pd.DataFrame(rows)

    def points_frame(self) -> "pd.DataFrame":
        """Return a row for each point used: name, N, D, loss (nats per token), seed, FLOPs, tokens seen.

        A tuned cell is one row, with a column for each of its best settings.
        """
        import pandas as pd

        columns = {name: [getattr(point, name) for point in self.table.points] for name in _POINT_COLUMNS}
        axes = dict.fromkeys(axis for point in self.table.points for axis in point.settings)
        columns |= {axis: [point.settings.get(axis) for point in self.table.points] for axis in axes}
        return pd.DataFrame(columns)

    def verdict(self) -> Verdict:
        """Return what was asked, what the runs say to it and what they cannot say; `print` shows it as lines."""
        hypotheses = self.settings.get("hypotheses", tuple(HYPOTHESES))
        return make_verdict(self.table, self.estimates, hypotheses, self.laws, self.next_step)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; an infinite end of an interval is null."""
        shown = self.table.points if len(self.table.points) <= MOST_ROWS else []
        points = [{name: getattr(point, name) for name in _POINT_COLUMNS} | point.settings for point in shown]
        criteria = [{"N": N, "D": D, "seeds": values} for (N, D), values in self.criteria.items()]
        return {
            "verdict": to_json_types(self.verdict()),
            "format": 1,
            "amscale": amscale.__version__,
            "source": self.table.source,
            "convention": self.table.convention,
            "settings": to_json_types(self.settings),
            "points_used": len(self.table.points),
            "points": to_json_types(points),
            "other_settings": [point.name for point in self.table.others],
            "left_out": [{"name": name, "reason": reason} for name, reason in self.table.left_out],
            "warnings": list(self.table.warnings),
            "dstar_criteria": to_json_types(criteria),
            "dstar_sensitivity": to_json_types(self.sensitivity),
            "forecasts": to_json_types(self.forecasts),
            "tuning": to_json_types(self.tuning.to_dict()) if self.tuning else None,
            "health": to_json_types(self.health),
            "laws": to_json_types(self.laws),
            "estimates": to_json_types(self.estimates),
        }

    def to_json(self) -> str:
        """Return the text of fit.json."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Write fit.json whole or not at all.

        Raises:
            InputError: its folder does not exist, or takes no file.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"output={str(path)!r}: there is no folder {path.parent}")
        with storage_errors(path.parent):
            write_atomically(path, self.to_json())

    def __repr__(self) -> str:
        determined = sum(estimate.value is not None for estimate in self.estimates)
        points = len(self.table.points)
        return f"BaseFit({self.table.source!r}: {points} points, {determined} of {len(self)} estimates determined)"

    def _repr_html_(self) -> str:
        """Return the verdict and the table of estimates for a notebook."""
        shown = self.to_frame().drop(columns=["group", "convention", "objective", "method"])
        shown["rejected"] = [", ".join(f"{value:.4g}" for value in values) for values in shown["rejected"]]
        table = shown.to_html(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
        source = f"{self.table.source}: {counted(len(self.table.points), 'point')}; {self.table.convention}"
        said = "".join(
            f"<tr><th>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>"
            for label, text in self.verdict().lines()
        )
        return f"<p>{html.escape(source)}</p><table>{said}</table>{table}"
