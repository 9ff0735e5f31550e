"""The result of a trial that a training script of the user's own ran: what it handed over, checked."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amscale.config import Experiment
from amscale.data import Subset, TokenStore
from amscale.errors import InputError
from amscale.models import Shape
from amscale.models.user_code import script_hash
from amscale.training.result import device_name, losses_of, versions
from amscale.trials.identity import settings_of
from amscale.trials.metrics import ValidationRecord
from amscale.trials.records import (
    FORMAT,
    Placement,
    ResultData,
    ResultEngine,
    ResultFlops,
    ResultParameters,
    ResultScript,
    ResultShape,
    ResultTime,
    TrialResult,
)
from amscale.trials.trial_store import TrialStore

_COMPONENTS = ("embedding", "output_head", "attention", "feed_forward", "norms_and_rest")


@dataclass(frozen=True)
class Reported:
    """What a script hands over at its end; None where it leaves that to what was planned and logged."""

    train_loss: float | None
    parameters: int | Mapping[str, int] | None
    unique_tokens: int | None
    tokens: int | None
    diverged: str


def script_result(
    reported: Reported,
    store: TrialStore,
    cell: Experiment,
    placement: Placement,
    shape: Shape,
    corpus: TokenStore | None,
    subset: Subset | None,
    D: int,
    seen: float,
    steps: int,
    began: float,
) -> TrialResult:
    """Make the result of a trial from what its script has logged and handed over.

    Args:
        reported: at the end.
        store: the trial's.
        cell: its settings.
        placement: where it ran.
        shape: the model that was planned.
        corpus: its tokens, None where the script reads data by itself.
        subset: those it trained on.
        D: unique tokens that the cell asks for.
        seen: tokens seen, as logged.
        steps: the last one that was logged.
        began: seconds since the epoch.

    Raises:
        InputError: a count that is none.
    """
    counts = shape.parameters.as_dict() if reported.parameters is None else _counts(reported.parameters)
    unique = D if reported.unique_tokens is None else _count("unique_tokens", reported.unique_tokens)
    seen = seen if reported.tokens is None else float(_count("tokens", reported.tokens))
    given = {
        "parameters": reported.parameters,
        "unique_tokens": reported.unique_tokens,
        "tokens_seen": reported.tokens,
    }
    per_token = 6.0 * (counts["total"] - counts["embedding"])
    script, spec = str(cell.train.script), store.read_spec()
    validation = [(r.loss, r.step) for r in store.read_metrics(ValidationRecord) if math.isfinite(r.loss)]
    least = min(validation, default=(math.inf, 0))
    return TrialResult(
        format=FORMAT,
        trial=spec.trial,
        label=spec.label,
        state="diverged" if reported.diverged else "finished",
        reason=reported.diverged or None,
        seed=cell.seed,
        steps=steps,
        shape=ResultShape(**shape.as_dict()),
        parameters=ResultParameters(**counts),
        flops=ResultFlops(
            formula="6·(parameters without embedding)·tokens seen", per_token=per_token, total=per_token * seen
        ),
        data=ResultData(
            corpus=cell.data.corpus,
            unique_tokens=unique,
            documents=subset.documents if subset else None,
            tokens_seen=seen,
            epochs=seen / unique,
            entropy_per_token=corpus.entropy_per_token if corpus else None,
            memorised_per_token=corpus.memorised_per_token(subset.documents) if corpus and subset else None,
        ),
        losses=losses_of(store, least[0], least[1], _optional("train_loss", reported.train_loss)),
        time=ResultTime(wall_seconds=time.time() - began),
        engine=ResultEngine(
            engine="script",
            world_size=placement.world_size,
            precision=placement.precision,
            device=placement.device,
            device_name=device_name(placement.device),
        ),
        script=ResultScript(
            path=script,
            code=script_hash(Path(script)),
            reported=tuple(name for name, value in given.items() if value is not None),
        ),
        versions=versions(),
        settings=settings_of(cell),
    )


def checked_number(name: str, value: Any) -> float:
    """Return a number that a script has handed over.

    Raises:
        InputError: it is none.
    """
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"trial.log: {name}={value!r} is not a number; give a number, such as loss.item()") from None


def _optional(name: str, value: Any) -> float | None:
    return None if value is None else checked_number(name, value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"trial.finish: {name}={value!r}; give a whole number of at least 1")
    return value


def _counts(parameters: int | Mapping[str, int]) -> dict[str, int]:
    """Return the counts that a result records. A single number counts under every convention."""
    if not isinstance(parameters, Mapping):
        parameters = {"feed_forward": _count("parameters", parameters)}
    unknown = sorted(set(parameters) - set(_COMPONENTS))
    if unknown:
        raise InputError(f"trial.finish: parameters has {unknown[0]!r}; allowed are {', '.join(_COMPONENTS)}")
    counts = {name: int(parameters.get(name, 0)) for name in _COMPONENTS}
    return counts | {"total": _count("parameters", sum(counts.values()))}
