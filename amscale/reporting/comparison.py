"""What differs between two sweeps: settings, losses of the cells that both have, estimates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from amscale.files import parse_json
from amscale.scaling.estimate import ends_of
from amscale.settings import flatten
from amscale.trials.records import TrialResult
from amscale.trials.sweep_store import SweepStore

_NAMES = ("name", "storage")
"""Settings in which any two sweeps differ."""


@dataclass(frozen=True)
class SettingDifference:
    """A setting of the sweeps' configurations, by its dotted key; None where one has no such setting."""

    key: str
    first: Any
    second: Any


@dataclass(frozen=True)
class CellPair:
    """A cell that both sweeps have a result of: least validation loss and last training loss, nats per token."""

    family: str | None
    N: int
    """Attention and feed-forward."""
    D: int
    seed: int | None
    settings: dict[str, Any]
    """Of the axes that both grids have, beside these."""
    same_trial: bool
    """Whether it is one and the same trial, by its id."""
    first: str
    """Label."""
    second: str
    validation: tuple[float | None, float | None]
    train: tuple[float | None, float | None]


Interval = tuple[float | None, float | None]
"""As fit.json has it: an infinite end is None."""


@dataclass(frozen=True)
class EstimateDifference:
    """An estimate of both fits: value, 95 % interval and rejected hypotheses; None where it is not determined."""

    id: str
    estimand: str
    values: tuple[float | None, float | None]
    intervals: tuple[Interval | None, Interval | None]
    rejected: tuple[list[float], list[float]]

    @property
    def changed(self) -> bool:
        """Whether only one is determined, what is rejected differs, or neither interval has both values."""
        first, second = self.values
        if first is None or second is None or first == second:
            return first != second
        known = [ends_of(interval) for interval in self.intervals if interval]
        overlap = any(low <= first <= high and low <= second <= high for low, high in known)
        return self.rejected[0] != self.rejected[1] or not overlap


@dataclass(frozen=True)
class VerdictDifference:
    """A question of both verdicts, with the headlines of their answers."""

    question: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Two sweeps side by side."""

    first: str
    second: str
    settings: list[SettingDifference]
    cells: list[CellPair]
    only_first: list[str]
    """Labels of results that the other has no cell of."""
    only_second: list[str]
    verdicts: list[VerdictDifference]
    """Those that differ."""
    estimates: list[EstimateDifference]
    no_estimates: str
    """Why verdicts and estimates are not compared; empty where they are."""


def compare_sweeps(
    addresses: tuple[str, str], folders: tuple[Path, Path], configurations: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> Comparison:
    """Compare two sweeps.

    Args:
        addresses: where they are, as a user names them.
        folders: of their small files on this machine.
        configurations: their settings, defaults included, as plain data.
    """
    flat = [{k: list(v) if isinstance(v, tuple) else v for k, v in flatten(tree)} for tree in configurations]
    keys = [key for key in {**flat[0], **flat[1]} if key not in _NAMES]
    settings = [SettingDifference(k, flat[0].get(k), flat[1].get(k)) for k in keys if flat[0].get(k) != flat[1].get(k)]
    axes = set(configurations[0]["grid"]) & set(configurations[1]["grid"])
    first, second = (_results(folder, sorted(axes)) for folder in folders)
    pairs = [_pair(key, first[key], second[key]) for key in first if key in second]
    verdicts, estimates, reason = _compare_fits(folders)
    return Comparison(
        *addresses,
        settings=settings,
        cells=sorted(pairs, key=lambda pair: (pair.N, pair.D, pair.seed or 0)),
        only_first=[str(r.label) for key, r in first.items() if key not in second],
        only_second=[str(r.label) for key, r in second.items() if key not in first],
        verdicts=verdicts,
        estimates=estimates,
        no_estimates=reason,
    )


_Key = tuple[Any, ...]


def _results(folder: Path, axes: Sequence[str]) -> dict[_Key, TrialResult]:
    """Return the results by what makes cells common; of cells that are still alike, those with unique ids."""
    found = [result for trial in SweepStore(folder).all_trials() if (result := trial.read_result()) is not None]
    keys = [_key(result, axes) for result in found]
    several = {key for key, count in Counter(keys).items() if count > 1}
    return {(*key, r.trial) if key in several else key: r for key, r in zip(keys, found, strict=True)}


def _key(result: TrialResult, axes: Sequence[str]) -> _Key:
    further = tuple((a, str(result.setting(a))) for a in axes if a not in ("model.size", "data.size", "seed"))
    counts = result.parameters
    return (
        result.shape.family,
        int(counts.attention + counts.feed_forward),
        int(result.data.unique_tokens),
        result.seed,
        further,
    )


def _pair(key: _Key, first: TrialResult, second: TrialResult) -> CellPair:
    family, n, d, seed, further, *_ = key
    return CellPair(
        family=family,
        N=n,
        D=d,
        seed=seed,
        settings={axis: first.setting(axis) for axis, _ in further},
        same_trial=first.trial is not None and first.trial == second.trial,
        first=str(first.label),
        second=str(second.label),
        validation=(first.losses.validation_least, second.losses.validation_least),
        train=(first.losses.train_last, second.losses.train_last),
    )


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Test(_Read):
    value: float
    rejected: bool = False


class _Estimate(_Read):
    id: str
    estimand: str = ""
    value: float | None = None
    interval: tuple[float | None, float | None] | None = None
    hypotheses: tuple[_Test, ...] = ()

    @property
    def rejected(self) -> list[float]:
        return [test.value for test in self.hypotheses if test.rejected]


class _Answer(_Read):
    question: str
    headline: str


class _Verdict(_Read):
    answers: tuple[_Answer, ...]


class _Fit(_Read):
    """What is compared of a fit.json."""

    estimates: tuple[_Estimate, ...]
    verdict: _Verdict


def _compare_fits(folders: Sequence[Path]) -> tuple[list[VerdictDifference], list[EstimateDifference], str]:
    fits = []
    for folder in folders:
        file = folder / "fit.json"
        if not file.is_file():
            return [], [], f"{file} is not there: run `python -m amscale.fit` on that sweep"
        try:
            fits.append(_Fit.model_validate(parse_json(file.read_bytes())))
        except ValueError:  # a ValidationError is one
            return [], [], f"{file} is not what this version writes: run `python -m amscale.fit` on that sweep"
    first, second = ({entry.id: entry for entry in fit.estimates} for fit in fits)
    asked, headlines = ({answer.question: answer.headline for answer in fit.verdict.answers} for fit in fits)
    verdicts = [
        VerdictDifference(question, headline, headlines[question])
        for question, headline in asked.items()
        if headlines.get(question, headline) != headline
    ]
    differences = [
        EstimateDifference(
            id=name,
            estimand=first[name].estimand,
            values=(first[name].value, second[name].value),
            intervals=(first[name].interval, second[name].interval),
            rejected=(first[name].rejected, second[name].rejected),
        )
        for name in first
        if name in second
    ]
    return verdicts, differences, ""
