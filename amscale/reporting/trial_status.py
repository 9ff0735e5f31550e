"""The status of one trial, read from its folder."""

import time
from dataclasses import dataclass

from amscale.errors import one_line
from amscale.trials.metrics import MetricsRecord, TrainRecord, ValidationRecord
from amscale.trials.store import TrialStore

_RUNNING_SECONDS = 60.0
"""A trial whose metrics changed this recently counts as running."""


@dataclass(frozen=True)
class TrialStatus:
    """State, step and losses of one trial.

    `state` is finished or diverged (with a result), running, failed, stopped or waiting (without one). `remark` is why
    a trial diverged or failed.
    """

    label: str
    state: str
    step: int
    steps: int | None
    train_loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    remark: str = ""


def trial_status(folder: TrialStore) -> TrialStatus:
    """Read the status of a trial: from its result if it has one, from its metrics otherwise."""
    result = folder.read_result()
    if result is not None:
        seconds = (result.time.device_seconds or 0.0) / result.engine.world_size
        return TrialStatus(
            label=folder.path.name,
            state=result.state,
            step=result.steps,
            steps=result.steps,
            train_loss=result.losses.train_last,
            validation_loss=result.losses.validation_least,
            tokens_per_second=(result.data.tokens_seen or 0) / seconds if seconds else None,
            remark=one_line(result.reason or ""),
        )
    last: TrainRecord | None = None
    validation = None
    for record in folder.read_metrics(MetricsRecord):
        if isinstance(record, TrainRecord):
            last = record
        elif isinstance(record, ValidationRecord):
            validation = record.loss
    failures = folder.failures()
    changed = folder.metrics.stat().st_mtime if folder.metrics.is_file() else 0.0
    running = time.time() - changed < _RUNNING_SECONDS
    state = "running" if running else "failed" if failures else "stopped" if last else "waiting"
    return TrialStatus(
        label=folder.path.name,
        state=state,
        step=last.step if last else 0,
        steps=None,
        train_loss=last.loss if last else None,
        validation_loss=validation,
        tokens_per_second=last.tokens / last.time if last and last.time and last.tokens is not None else None,
        remark=one_line(failures[-1].reason.strip().partition("\n")[0]) if failures else "",
    )
