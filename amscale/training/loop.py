"""The training loop: batches and learning rate from (seed, step), DeepSpeed's engine, validation, probes, checkpoints.

Batches, learning rate and dropout are functions of the step, so a checkpoint holds no state of a sampler or scheduler.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from amscale.config import TrainSettings
from amscale.data import Batches
from amscale.files import write_atomically
from amscale.probes.measurement import Measurement
from amscale.training import checkpoint
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.branches import Branches
from amscale.training.checkpoint import Progress
from amscale.training.electricity import Electricity
from amscale.training.engine import clip_gradients, clips_here
from amscale.training.feed import Feed, RankBatch
from amscale.training.first_update import FirstUpdate
from amscale.training.loss import Evaluation, objective
from amscale.training.metrics_writer import MetricsWriter
from amscale.trials.trial_store import TrialStore

_GRACE_MULTIPLE = 2.0
_GRACE_SECONDS = 10.0
"""An orderly end may take twice as long as the longest step and checkpoint seen, and this much more."""


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Return the learning rate of optimiser step `step` (the first is 1) of a run of `steps`.

    Linear warm-up to the peak, then by `schedule`: cosine or linear decay to the final rate, constant, or
    warm-up-stable-decay (constant, then linear decay over the last share `decay` of the steps, or `least_decay` steps).
    """
    warmup = settings.warmup_steps(steps)
    if step < warmup:
        return settings.learning_rate * step / warmup
    final = settings.final_learning_rate
    if settings.schedule == "constant":
        share = 1.0
    elif settings.schedule == "wsd":
        start = settings.decay_start(steps)
        share = 1.0 if step <= start else final + (1 - final) * (steps - step) / max(steps - start, 1)
    else:
        left = (steps - step) / max(steps - warmup, 1)
        share = final + (1 - final) * (left if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))
    return settings.learning_rate * share


MOST_SKIPPED = 10
"""Updates in a row that may be skipped, since their gradients are not finite, before a run counts as diverged."""


@dataclass(frozen=True)
class Run:
    """What the loop works on; `run.run_trial` makes it on every rank."""

    accelerator: Accelerator
    books: Bookkeeping
    engine: Any
    optimizer: Any
    settings: TrainSettings
    steps: int
    seed: int
    batches: Batches
    validation: Evaluation
    validate_every: int
    """Steps between validations; the last step is validated too."""
    micro_batch: int
    """Sequences per forward pass of one rank."""
    accumulation: int
    """Forward passes of one rank per optimiser step."""
    probe: Callable[[], Measurement] | None
    """Measures the probes, on every rank at once; None where nothing is probed."""
    probe_every: int
    """Steps between probes; 0 probes at the last step alone."""
    store: TrialStore
    checkpoint_every: int
    keep_checkpoints: int
    records: MetricsWriter | None
    """None on every rank but 0."""
    measures_grace: bool
    """Whether to leave the seconds that an orderly end needs in the trial's folder, for whoever ends this process."""
    preemption_requested: Callable[[], bool]
    """Whether any rank was asked to stop; called between steps, on all ranks at once."""
    branches: Branches | None = None
    """The trials that branch off this run; None where none can."""
    electricity: Electricity | None = None
    """Reads the counters of this rank's devices; None where several runs share them."""


@dataclass
class LoopOutcome:
    """How a loop ended."""

    state: str = "finished"
    """finished, diverged or preempted."""
    reason: str | None = None
    probe_seconds: float = 0.0
    """Of the probes of this attempt."""
    step_seconds: float = 0.0
    """Of the optimiser steps of this attempt, without probes and validation."""
    checkpoint_seconds: float = 0.0
    """Of the longest checkpoint of this attempt."""
    longest_interval: float = 0.0
    """Seconds between two steps of this attempt at most, with validation and probes and without a checkpoint."""


def train(run: Run, progress: Progress) -> LoopOutcome:
    """Train from `progress` to the last step, to a plateau, or to a loss or MOST_SKIPPED gradients that are not finite.

    `progress` is advanced in place.
    """
    outcome = LoopOutcome()
    run.engine.train()
    parameters = [parameter for parameter in run.engine.module.parameters() if parameter.requires_grad]
    here, device = run.accelerator, run.accelerator.device
    on_gpu = device.type == "cuda"
    feed = Feed(run.batches, here.process_index, here.num_processes, run.micro_batch, run.accumulation, pinned=on_gpu)
    with feed.ahead(progress.step + 1, run.steps, in_thread=on_gpu) as batches:
        for batch in batches:
            if run.branches and run.branches.has(progress.step):
                _settle(run, progress)
                run.branches.leave(progress, run.records)
            if run.preemption_requested():
                outcome.state = "preempted"
                save(run, progress, outcome)
                break
            began = time.perf_counter()
            step = progress.step + 1
            rate = learning_rate(run.settings, step, run.steps)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            loss, norm, applied = _optimiser_step(run, step, batch, parameters)
            seconds = time.perf_counter() - began
            if after_step(run, progress, outcome, Step(step, rate, loss, batch.counted, norm, applied, seconds)):
                break
    return outcome


@dataclass(frozen=True)
class Step:
    """One optimiser step that was made."""

    number: int
    """The first is 1."""
    rate: float
    loss: float
    """Mean cross-entropy of the batch before the update, in nats per token."""
    targets: int
    """Counted targets of the batch."""
    norm: float
    """Global gradient norm before clipping."""
    applied: bool
    """Whether the update was applied."""
    seconds: float
    """What it took."""
    share: float = 1.0
    """The run's part of the processor time in them: less where a process trains several runs at once."""


def is_due(run: Run, step: Step) -> bool:
    """Return whether anything that needs the model follows a step: validation, probes, a checkpoint."""
    probes = run.probe_every if run.probe else 0
    every = [run.validate_every, probes, run.checkpoint_every]
    return step.number >= run.steps or any(n and step.number % n == 0 for n in every)


def after_step(run: Run, progress: Progress, outcome: LoopOutcome, step: Step) -> bool:
    """Record a step, and do what is due after it: validation, probes, a checkpoint; return whether the run ends."""
    if not math.isfinite(step.loss):
        outcome.state, outcome.reason = "diverged", f"the training loss of step {step.number} is {step.loss}"
        return True
    began = time.perf_counter()
    progress.step = step.number
    progress.tokens += step.targets
    progress.device_seconds += step.seconds * step.share
    progress.seconds += step.seconds
    outcome.step_seconds += step.seconds * step.share
    if run.records:
        run.records.train(step.number, progress.tokens, step.loss, step.rate, step.norm, progress.seconds, step.applied)
    progress.skipped += not step.applied
    progress.skipped_in_a_row = 0 if step.applied else progress.skipped_in_a_row + 1
    if progress.skipped_in_a_row == MOST_SKIPPED:
        outcome.state = "diverged"
        outcome.reason = f"the gradients of {MOST_SKIPPED} steps in a row, up to step {step.number}, were not finite"
        return True
    plateau = _between_steps(run, progress, outcome)
    if run.electricity:
        run.electricity.read()
    outcome.longest_interval = max(outcome.longest_interval, step.seconds + time.perf_counter() - began)
    if plateau:
        return True
    if step.number % run.checkpoint_every == 0 and step.number != run.steps:
        save(run, progress, outcome)
    return step.number >= run.steps


def _optimiser_step(
    run: Run, step: int, batch: RankBatch, parameters: Sequence[torch.nn.Parameter]
) -> tuple[float, float, bool]:
    """Train on one global batch.

    Args:
        run: whose model is trained.
        step: of this update, the first is 1.
        batch: this rank's rows.
        parameters: that are trained.

    Returns:
        The mean cross-entropy before the update in nats per token, without the terms that are minimised beside it; the
        global gradient norm before clipping; whether the update was applied: DeepSpeed skips one whose gradients are
        not finite.

    Raises:
        EngineError: the engine's first update is not AdamW's.
    """
    accelerator, engine = run.accelerator, run.engine
    world, rank = accelerator.num_processes, accelerator.process_index
    accumulation = run.accumulation
    total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    for micro in range(accumulation):
        inputs_BT, targets_BT = batch.moved(micro, accelerator.device)
        # Dropout follows from (seed, step, place in the batch), so checkpoints need no random state.
        _seed(_mix(run.seed, step, micro * world + rank), accelerator.device)
        minimised, summed = objective(engine(inputs_BT), targets_BT, run.settings.z_loss, run.settings.label_smoothing)
        # accelerator.backward would set this boundary and step at once; the gradients are read before the step.
        engine.set_gradient_accumulation_boundary(is_boundary=micro == accumulation - 1)
        # DeepSpeed averages over ranks and micro-batches; undo that, and divide by the targets of the whole batch.
        engine.backward(minimised * (world * accumulation / batch.counted))
        total += summed.detach()
    if world > 1:
        total = accelerator.reduce(total, reduction="sum")
    # In bf16 DeepSpeed skips an update that is not finite; so the loss can wait, and a GPU is not stopped for it.
    if not engine.bfloat16_enabled() and not math.isfinite(float(total)):
        return float(total), math.nan, False
    first = FirstUpdate(engine, run.settings, run.optimizer.param_groups[0]["lr"]) if step == 1 else None
    norm = None
    if clips_here(engine):
        norm = clip_gradients(engine, parameters)
        if not math.isfinite(norm):
            # Where DeepSpeed does not look at the gradients, its update would leave no weight finite.
            engine.optimizer.zero_grad()
            return float(total) / batch.counted, norm, False
    engine.step()
    norm = float(engine.get_global_grad_norm()) if norm is None else norm
    applied = bool(engine.was_step_applied())
    if first and applied:
        first.check(norm)
    return float(total) / batch.counted, norm, applied


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, dtype=np.uint64)[0] >> 1)


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout draws from: `torch.manual_seed` without its search for other devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _between_steps(run: Run, progress: Progress, outcome: LoopOutcome) -> bool:
    """Validate and probe where they are due after this step; return True to end the run at a plateau."""
    step, last = progress.step, progress.step == run.steps
    plateau = False
    validates = step % run.validate_every == 0 or last
    if run.records and (validates or (run.probe_every and step % run.probe_every == 0)):
        run.records.flush()  # who watches the records then knows what is being done, and that it may take longer
    if validates:
        plateau = _validate(run, progress)
        last = last or plateau
    if run.probe and (last or (run.probe_every and step % run.probe_every == 0)):
        measurement = run.probe()
        outcome.probe_seconds += measurement.seconds
        if run.records:
            run.records.probe(step, measurement)
    return plateau


def _settle(run: Run, progress: Progress) -> None:
    if run.electricity:
        run.electricity.settle(progress)


def save(run: Run, progress: Progress, outcome: LoopOutcome) -> None:
    """Write a checkpoint."""
    if run.records:
        run.records.flush()
    _settle(run, progress)
    began = time.perf_counter()
    checkpoint.save(run.books, run.engine, run.store, progress, run.keep_checkpoints)
    outcome.checkpoint_seconds = max(outcome.checkpoint_seconds, time.perf_counter() - began)
    if run.measures_grace and run.books.is_first_of_machine and run.store.writes_checkpoints:
        seconds = grace_seconds(outcome.longest_interval + outcome.checkpoint_seconds)
        write_atomically(run.store.grace_file, f"{seconds:.1f}\n")


def grace_seconds(longest: float) -> float:
    """Return the seconds that an orderly end may need, where a step and its checkpoints have taken so many at most."""
    return _GRACE_MULTIPLE * longest + _GRACE_SECONDS


def _validate(run: Run, progress: Progress) -> bool:
    """Measure the validation loss; return True at a plateau."""
    loss = run.validation.loss(run.accelerator, run.engine)
    if run.records:
        run.records.validation(progress.step, loss)
    if loss < progress.validation_least:
        progress.validation_least, progress.validation_least_step = loss, progress.step
        progress.validations_since_least = 0
        return False
    progress.validations_since_least += 1
    return run.settings.patience is not None and progress.validations_since_least >= run.settings.patience
