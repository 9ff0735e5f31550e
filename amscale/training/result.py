"""Make the result of a run that ended."""

import math
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from amscale import __version__, models
from amscale.cluster.cards import MFU_FORMULA, utilisation
from amscale.config import Experiment
from amscale.data import Subset, TokenStore
from amscale.models import FLOPS_FORMULA, Shape
from amscale.training.checkpoint import Progress
from amscale.training.electricity import result_electricity
from amscale.training.engine import EngineFacts
from amscale.training.loop import LoopOutcome
from amscale.training.loss import Measured
from amscale.trials.identity import settings_of
from amscale.trials.metrics import TrainRecord, ValidationRecord
from amscale.trials.records import (
    FORMAT,
    ResultBranch,
    ResultData,
    ResultEngine,
    ResultFlops,
    ResultLosses,
    ResultMemory,
    ResultParameters,
    ResultShape,
    ResultTime,
    TrialResult,
)
from amscale.trials.trial_store import TrialStore

_WINDOW_SHARE = 0.02
"""Share of the steps that a training loss is the mean over."""


def make_result(
    folder: TrialStore,
    cell: Experiment,
    shape: Shape,
    store: TokenStore,
    subset: Subset,
    progress: Progress,
    outcome: LoopOutcome,
    facts: EngineFacts,
    shards: list[int],
    memory: ResultMemory,
    train_evaluated: float | None,
    whole: Measured | None,
    wall_seconds: float,
) -> TrialResult:
    """Return the result of a run that ended.

    Args:
        folder: the trial's, with its spec and metrics.
        cell: settings of the trial.
        shape: its model.
        store: tokens of its corpus.
        subset: those that it was trained on.
        progress: where training ended.
        outcome: how it ended.
        facts: what the engine said of itself.
        shards: elements of AdamW's first moment on each rank.
        memory: its peaks.
        train_evaluated: loss over the training set without dropout, nats per token; None if it was not measured.
        whole: loss over more held-out tokens than a validation's sample, at the end; None if it was not measured.
        wall_seconds: seconds since this attempt began.
    """
    spec = folder.read_spec()
    per_token = models.flops_per_token(shape)
    return TrialResult(
        format=FORMAT,
        trial=spec.trial,
        label=spec.label,
        state=outcome.state,
        reason=outcome.reason,
        seed=cell.seed,
        steps=progress.step,
        shape=ResultShape(**shape.as_dict()),
        parameters=ResultParameters(**shape.parameters.as_dict()),
        flops=_flops(per_token, progress, facts),
        data=ResultData(
            corpus=store.corpus,
            unique_tokens=subset.unique_tokens,
            documents=subset.documents,
            tokens_seen=progress.tokens,
            epochs=progress.tokens / subset.unique_tokens,
            entropy_per_token=store.entropy_per_token,
            memorised_per_token=store.memorised_per_token(subset.documents),
        ),
        losses=losses_of(folder, progress.validation_least, progress.validation_least_step, train_evaluated, whole),
        time=ResultTime(
            wall_seconds=wall_seconds,
            device_seconds=progress.device_seconds * facts.world_size,
            probe_seconds=outcome.probe_seconds,
            probe_share=outcome.probe_seconds / outcome.step_seconds if outcome.step_seconds else None,
            checkpoint_seconds=outcome.checkpoint_seconds or None,
        ),
        memory=memory,
        engine=ResultEngine(
            **facts.to_dict(),
            device_name=device_name(facts.device),
            optimizer_elements=shards,
            out_of_memory_at=[entry.placement.micro_batch for entry in folder.out_of_memory()],
            compiled=progress.compiled,
            skipped_updates=progress.skipped,
        ),
        electricity=result_electricity(progress),
        **({"branch": ResultBranch(**progress.branch)} if progress.branch else {}),
        versions=versions(),
        settings=settings_of(cell),
    )


def versions() -> dict[str, str]:
    """Return the versions of amscale, Python and what training rests on."""
    packages = ("torch", "deepspeed", "accelerate", "transformers", "ray")
    own = {"amscale": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


def _flops(per_token: float, progress: Progress, facts: EngineFacts) -> ResultFlops:
    """Return the FLOPs of a run, with its MFU where the device's peak is known."""
    found: dict[str, Any] = {}
    measure = utilisation(per_token, facts.world_size, facts.device, facts.precision)
    if measure and progress.device_seconds:
        mfu = measure.mfu(progress.tokens, progress.device_seconds)
        found = {"peak": measure.peak, "mfu": mfu, "mfu_formula": MFU_FORMULA}
    return ResultFlops(formula=FLOPS_FORMULA, per_token=per_token, total=per_token * progress.tokens, **found)


def device_name(device: str) -> str:
    """Return the model of the GPU or CPU that a torch device is."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
        return next(models, platform.machine())  # ARM's names no model


def losses_of(
    folder: TrialStore,
    least: float,
    least_step: int | None,
    train_evaluated: float | None,
    whole: Measured | None = None,
) -> ResultLosses:
    """Return last and least losses in nats per token; None where nothing was measured.

    A single batch is noisy: the training losses are means over a window of 2 % of the steps, at least 10 of them.

    Where more held-out tokens were measured at the end, their loss is the last one, and the least one is moved by as
    much as the sample's mean is off at the end: of the sample's error only its change between the two steps is left.

    Args:
        folder: the trial's, with its metrics.
        least: least validation loss, infinite if there was none.
        least_step: its step.
        train_evaluated: loss over the training set without dropout; None if it was not measured.
        whole: loss over more held-out tokens, at the end; None if it was not measured.
    """
    train = np.array([record.loss for record in folder.read_metrics(TrainRecord)])
    validation = [record.loss for record in folder.read_metrics(ValidationRecord)]
    window, means = None, np.array([])
    if len(train):
        window = min(len(train), max(10, round(_WINDOW_SHARE * len(train))))
        means = np.convolve(train, np.ones(window) / window, mode="valid")
    last = validation[-1] if validation else None
    if whole and last is not None:
        last, least = whole.loss, least + whole.loss - last
    return ResultLosses(
        validation_last=last,
        validation_least=least if math.isfinite(least) else None,
        validation_standard_error=whole.standard_error if whole else None,
        validation_tokens=whole.tokens if whole else None,
        validation_least_step=least_step,
        train_last=float(means[-1]) if window else None,
        train_least=float(means.min()) if window else None,
        train_least_step=int(means.argmin()) + window if window else None,
        train_window=window,
        train_evaluated=train_evaluated,
    )
