"""A trial that a training script of the user's own runs: what the script is told, and what it hands back.

    trial = amscale.current_trial()
    trial.log(step, train_loss=…)
    trial.finish()

Every rank runs the script; what rank 0 logs is recorded.
"""

import math
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from amscale import models
from amscale.config import Experiment
from amscale.data import Subset, TokenStore, statistics_without_tokens
from amscale.errors import EXIT_PREEMPTED, InputError
from amscale.models import Shape
from amscale.planning.trial_plan import StepPlan, plan_steps
from amscale.probes.measurement import Measurement
from amscale.training.metrics_writer import MetricsWriter
from amscale.training.report_to import outcome_of, report_to
from amscale.training.script_result import Reported, checked_number, script_result
from amscale.trials.identity import settings_of
from amscale.trials.metrics import TrainRecord
from amscale.trials.records import (
    Placement,
)
from amscale.trials.trial_store import TrialStore


class ScriptTrial:
    """The trial that this process is a rank of, as a training script sees it.

    Args:
        store: the trial's, on this machine.
        cell: its settings.
        placement: where it runs.
        tokens: of its corpus; None where the script reads data by itself.
    """

    def __init__(self, store: TrialStore, cell: Experiment, placement: Placement, tokens: TokenStore | None) -> None:
        self._store, self._cell, self._tokens = store, cell, tokens
        self._subset: Subset | None = None
        if tokens is not None:
            self._subset = tokens.training(cell.data.size, cell.data.packing, cell.data.copies)
        self._plan: StepPlan = plan_steps(cell, tokens, self._subset)
        self.placement = placement
        """Processes, device, precision, micro-batch and accumulation that the trial was planned with."""
        self.shape: Shape = models.solve(cell.model, self._vocabulary(), self._plan.context)
        """The model that was planned: layers, width, heads, parameters. `amscale.models.build(shape)` makes it, unless
        model.family is `script`."""
        self.rank = int(os.environ.get("RANK", "0"))
        """Of this process, in all of the trial's machines."""
        self.finished = False
        self._records: MetricsWriter | None = None
        self._last_step = 0
        self._seen: float | None = None
        self._before = 0.0
        """Seconds of earlier attempts, up to where this one goes on."""
        self._began = time.time()
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def _vocabulary(self) -> int:
        facts = self._tokens or statistics_without_tokens(self._cell.data)
        return facts.vocabulary_size

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    # What the trial is

    @property
    def N(self) -> int:
        """Parameters that the cell asks for, counted as `model.count` says."""
        return self.shape.wanted or self.shape.reached

    @property
    def D(self) -> int:
        """Unique training tokens of the cell."""
        return self._subset.unique_tokens if self._subset else int(self._cell.data.size or 0)

    @property
    def seed(self) -> int:
        """Seed of the cell."""
        return self._cell.seed

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the cell, by section; `settings["train"]["learning_rate"]`."""
        return settings_of(self._cell)

    @property
    def options(self) -> Mapping[str, Any]:
        """`train.options`: the script's own settings."""
        return self._cell.train.options

    @property
    def steps(self) -> int:
        """Optimiser steps, from train.steps or train.epochs."""
        return self._plan.steps

    @property
    def sequences(self) -> int:
        """Sequences of a global batch, from train.batch_tokens."""
        return self._plan.sequences

    @property
    def context(self) -> int:
        """Tokens of a sequence, at most."""
        return self._plan.context

    @property
    def folder(self) -> Path:
        """Folder of the trial, which its machines share. Whatever the script writes there stays."""
        return self._store.path

    @property
    def checkpoints(self) -> Path:
        """Folder for the script's checkpoints: what a trial that is started again finds; removed when it has a result.

        A trial that fails is started `launch.retries` times without a newer checkpoint; those in folders named
        `step_000000100` count as newer ones.
        """
        self._store.checkpoints.mkdir(parents=True, exist_ok=True)
        return self._store.checkpoints

    @property
    def tokens(self) -> np.ndarray:
        """The D training tokens, one document after the other, as a memory-mapped array of unsigned integers.

        Raises:
            InputError: data.corpus is `script`.
        """
        return self._whole(self._subset)

    @property
    def validation_tokens(self) -> np.ndarray:
        """The held-out tokens.

        Raises:
            InputError: data.corpus is `script`.
        """
        return self._whole(self._tokens.validation(self._cell.data.packing) if self._tokens else None)

    @staticmethod
    def _whole(subset: Subset | None) -> np.ndarray:
        if subset is None:
            raise InputError("data.corpus=script: the trial has no tokens; give another corpus, or read your own data")
        return subset.tokens

    # What the script hands back

    def log(
        self,
        step: int,
        *,
        train_loss: float | None = None,
        validation_loss: float | None = None,
        tokens: int | None = None,
        learning_rate: float | None = None,
        gradient_norm: float | None = None,
        **values: float,
    ) -> None:
        """Record what was measured at a step. Records of that step and later ones, of an attempt before, are dropped.

        Args:
            step: optimiser steps so far, from 1; never smaller than at the call before.
            train_loss: mean loss of the step in nats per token.
            validation_loss: mean loss over held-out tokens in nats per token.
            tokens: tokens seen so far. None: step × train.batch_tokens.
            learning_rate: of the step.
            gradient_norm: of the step.
            values: further numbers by name.

        Raises:
            InputError: a step that is no whole number, or smaller than the one before, or a value that is no number.
            AttemptReplaced: another attempt of the trial has begun.
        """
        if isinstance(step, bool) or not isinstance(step, int) or step < max(1, self._last_step):
            raise InputError(
                f"trial.log: step={step!r}; give whole numbers from 1 that do not fall ({self._last_step})"
            )
        if self.rank:
            self._store.check_attempt()
            return
        if self._records is None:
            reporting = report_to(self._cell, self._store, self.shape, self.D, step - 1)
            self._records = MetricsWriter(self._store, step - 1, reporting=reporting)
            self._before = max((record.time or 0.0 for record in self._store.read_metrics(TrainRecord)), default=0.0)
        self._last_step = step
        self._seen = float(step * self._cell.train.batch_tokens if tokens is None else tokens)
        if train_loss is not None:
            self._records.train(
                step,
                int(self._seen),
                checked_number("train_loss", train_loss),
                None if learning_rate is None else checked_number("learning_rate", learning_rate),
                math.nan if gradient_norm is None else checked_number("gradient_norm", gradient_norm),
                self._before + time.time() - self._began,
                True,
            )
        if validation_loss is not None:
            self._records.validation(step, checked_number("validation_loss", validation_loss))
        if values:
            measured = Measurement(pattern="as the script measured it")
            for name, value in values.items():
                measured.add(f"script/{name}", checked_number(name, value))
            self._records.probe(step, measured)
        self._records.flush_records()  # the script may write a checkpoint of this step and be killed right after

    def preemption_requested(self) -> bool:
        """Return whether this process was asked to end (SIGTERM or SIGUSR1): write a checkpoint, then call `preempt`.

        Ranks are asked at about the same time; where they must agree on a step, share the answer of rank 0.
        """
        return self._asked

    def preempt(self) -> NoReturn:
        """End this process after a checkpoint, so that the trial goes on when it is started again."""
        if self._records:
            self._records.close()
        if self.rank == 0:
            self._store.preempted.touch()
        if self._records:
            self._records.finish_reports(None)
        sys.exit(EXIT_PREEMPTED)

    def finish(
        self,
        *,
        train_loss: float | None = None,
        validation_loss: float | None = None,
        parameters: int | Mapping[str, int] | None = None,
        unique_tokens: int | None = None,
        tokens: int | None = None,
        diverged: str = "",
    ) -> None:
        """Write the trial's result, from what was logged. Call it on every rank, last.

        Args:
            train_loss: over the training tokens without dropout, in nats per token, where it was measured.
            validation_loss: as of the last step, where it was not logged.
            parameters: of the model; or by component: embedding, output_head, attention, feed_forward, norms_and_rest.
                None: those of the planned model.
            unique_tokens: D, where it is not what the cell asked for.
            tokens: tokens seen in all. None: as logged.
            diverged: why the run counts as diverged, if it does.

        Raises:
            InputError: nothing was logged, or a number that is none.
        """
        self.finished = True
        if self.rank:
            return
        if self._records is None:
            raise InputError("trial.finish: nothing was logged; call trial.log(step, train_loss=…) while training")
        if validation_loss is not None:
            self.log(self._last_step, validation_loss=validation_loss)
        self._records.flush()
        self._store.check_attempt()
        reported = Reported(train_loss, parameters, unique_tokens, tokens, diverged)
        result = script_result(
            reported,
            self._store,
            self._cell,
            self.placement,
            self.shape,
            self._tokens,
            self._subset,
            self.D,
            float(self._seen or 0),
            self._last_step,
            self._began,
        )
        self._records.close()
        self._store.publish(result)
        self._records.finish_reports(outcome_of(result))
        self._store.remove_checkpoints()


_current: ScriptTrial | None = None


def current_trial() -> ScriptTrial:
    """Return the trial that this process is a rank of, for a script that `train.script` names.

    Raises:
        InputError: this process is no rank of such a trial.
    """
    if _current is None:
        raise InputError(
            "there is no current trial: a sweep starts this script, as `python -m amscale.sweep CONFIG train.script=…`"
        )
    return _current


def run_script(store: TrialStore, cell: Experiment, placement: Placement, tokens: TokenStore | None) -> int:
    """Run the trial's script in this rank, as `python SCRIPT` would.

    Returns:
        0 with a result; EXIT_PREEMPTED after a checkpoint, when the run was asked to end.

    Raises:
        InputError: the script ended without a result.
        Exception: whatever the script does not handle.
    """
    global _current  # the script reaches its trial by a function, as any script would
    script = str(cell.train.script)
    if not Path(script).is_file():
        raise InputError(f"train.script={script!r} is not on this machine; give a path that all machines have")
    _current = ScriptTrial(store, cell, placement, tokens)
    sys.argv = [script]
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code == EXIT_PREEMPTED:
            return EXIT_PREEMPTED
        if end.code not in (None, 0):
            raise RuntimeError(f"{script} ended with status {end.code}") from end
    if not _current.finished:
        raise InputError(f"{script} ended without a result; call trial.finish(…) last, on every rank")
    return 0
