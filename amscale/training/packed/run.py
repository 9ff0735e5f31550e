"""Run several trials in one process: one engine over their stacked parameters, and all else as for a trial alone.

Each member is an open trial with a model, an optimiser and a DeepSpeed engine of its own, which validate, probe, and
write and read its checkpoints. Steps are made by an engine over the stack. What a member needs of it is copied into its
own model before, so that a checkpoint does not tell whether it was written in a pack or alone, and a run goes on either
way. A member that ends leaves the others; the stack is then made again of those.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from amscale.config import Experiment
from amscale.data import TokenStore
from amscale.errors import EXIT_PREEMPTED
from amscale.files import write_atomically
from amscale.planning.packs import what_members_share, why_not_packed, why_not_stacked
from amscale.planning.placement import check_supported
from amscale.training import engine
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.loop import after_step, grace_seconds, is_due, save
from amscale.training.packed.stack import PackError
from amscale.training.packed.step import Member, Stack
from amscale.training.run import OpenTrial
from amscale.training.shutdown import GracefulShutdown
from amscale.trials.records import Placement, ResultPacked
from amscale.trials.trial_store import TrialStore

_CACHED_ACTIVATIONS = 100_000
"""Elements of the residual stream of a stack, at most: those of more members do not stay in a core's cache, and a step
of them takes longer than two of half as many (benchmarks/packing.py)."""

Opened = tuple[TrialStore, Experiment, Placement, TokenStore | None]
"""What `resolve` returns of a trial."""


def run_pack(opened: Sequence[Opened]) -> int:
    """Train several trials to their results, each from its newest whole checkpoint on.

    Args:
        opened: the trials; those that have a result are left out.

    Returns:
        0 with all results; EXIT_PREEMPTED after checkpoints of all that had none, when the run was asked to end.

    Raises:
        PackError: they cannot be trained together.
        EngineError: DeepSpeed does not run as the placements say.
        AttemptReplaced: a newer attempt of one of them has begun.
    """
    began, leader = time.time(), opened[0][0]
    opened = [one for one in opened if not one[0].done()]
    if not opened:
        return 0
    _, first, placement, _ = opened[0]
    check_supported(placement)
    _check_alone(opened)
    torch.set_num_threads(placement.cpus_per_process)
    accelerator = engine.start_accelerator(placement, first.launch.collective_timeout)
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)  # it warns of every engine after the first
    books = Bookkeeping(first.launch.files_timeout)
    requested = GracefulShutdown(accelerator).requested
    members = [
        Member(_opened(OpenTrial.begin(accelerator, books, store, cell, placed, tokens, requested, began)))
        for store, cell, placed, tokens in opened
        if tokens is not None
    ]
    _check_alike(members, [placed for _, _, placed, _ in opened])
    labels = [member.trial.run.store.read_spec().label for member in members]
    pack = Pack(accelerator, placement, leader, members, ResultPacked(largest=len(members), members=labels))
    status = pack.train(requested)
    accelerator.end_training()
    return status


@dataclass
class Pack:
    """The members of a pack that have no result yet, and the loop that trains them.

    Args:
        accelerator: of this process.
        placement: of each member.
        leader: the trial beside whose log the pack's supervisor looks.
        members: those that are still trained.
        packed: what their results say of the pack.
    """

    accelerator: Accelerator
    placement: Placement
    leader: TrialStore
    members: list[Member]
    packed: ResultPacked

    def train(self, requested: Callable[[], bool]) -> int:
        """Train all members to their results, or until the run is asked to end; return the exit status."""
        for member in [m for m in self.members if m.trial.progress.step >= m.trial.run.steps]:
            self._end(member)
        stacks, checked = self._stacks(), False
        while self.members:
            if requested():
                self._preempt(stacks)
                return EXIT_PREEMPTED
            saved = max(m.outcome.checkpoint_seconds for m in self.members)
            leaving = self._step(stacks, check=not checked)
            checked = True
            if leaving:
                _write_back(stacks)
                for member in leaving:
                    self._end(member)
                stacks = self._stacks()
            if self.members and max(m.outcome.checkpoint_seconds for m in self.members) != saved:
                _leave_grace(self.leader, self.members)
        return 0

    def _step(self, stacks: Sequence[Stack], check: bool) -> list[Member]:
        """Make a step of every member and what is due after it; return the members that have ended."""
        leaving = []
        for stack, steps in [(stack, stack.step(check)) for stack in stacks]:
            made = list(zip(stack.members, steps, strict=True))
            stack.write_back([member for member, step in made if is_due(member.trial.run, step)])
            leaving += [m for m, step in made if after_step(m.trial.run, m.trial.progress, m.outcome, step)]
        return leaving

    def _stacks(self) -> list[Stack]:
        """Return stacks of as many members as are fastest at a time, in the order of the members."""
        if not self.members:
            return []
        first = self.members[0].trial
        tokens = first.run.batches.sequences * first.run.batches.mean_targets_per_sequence
        size = max(1, int(_CACHED_ACTIVATIONS / (tokens * first.shape.width)))
        parts = [self.members[i : i + size] for i in range(0, len(self.members), size)]
        return [Stack(self.accelerator, part, self.placement) for part in parts]

    def _preempt(self, stacks: Sequence[Stack]) -> None:
        """Write a checkpoint of every member."""
        _write_back(stacks)
        for member in list(self.members):
            member.outcome.state = "preempted"
            save(member.trial.run, member.trial.progress, member.outcome)
            self._end(member)

    def _end(self, member: Member) -> None:
        self.members.remove(member)
        member.trial.end(member.outcome, self.packed)
        member.trial.say(member.outcome, f"{member.trial.run.store.read_spec().label}: ")


def _write_back(stacks: Sequence[Stack]) -> None:
    for stack in stacks:
        stack.write_back(stack.members)


def _opened(trial: OpenTrial) -> OpenTrial:
    """Return a trial that reads no counters of the machine: those of a pack are not of one trial."""
    return replace(trial, run=replace(trial.run, electricity=None))


def _leave_grace(leader: TrialStore, members: Sequence[Member]) -> None:
    """Leave where the pack's supervisor looks, beside the log, how long all checkpoints together may take."""
    if members[0].trial.run.measures_grace:
        interval = sum(m.outcome.longest_interval for m in members)
        checkpoints = sum(m.outcome.checkpoint_seconds for m in members)
        write_atomically(leader.grace_file, f"{grace_seconds(interval + checkpoints):.1f}\n")


def _check_alone(opened: Sequence[Opened]) -> None:
    """Raise PackError if one of the trials cannot be trained with others."""
    for store, cell, placement, tokens in opened:
        reason = why_not_packed(cell, placement, bool(store.read_spec().branches))
        if reason := reason or ("it has no tokens" if tokens is None else None):
            raise PackError(f"{store.path} cannot be trained in a pack: {reason}")


def _check_alike(members: Sequence[Member], placements: Sequence[Placement]) -> None:
    """Raise PackError if networks cannot be stacked, or trials differ in what the members of a pack share."""
    shared = []
    for member, placement in zip(members, placements, strict=True):
        trial = member.trial
        if reason := why_not_stacked(trial.shape):
            raise PackError(f"{trial.run.store.path} cannot be trained in a pack: {reason}")
        shared.append(what_members_share(trial.cell, placement, trial.shape, trial.run.batches.sequences))
    for member, theirs in zip(members, shared, strict=True):
        for name, value in shared[0].items():
            if theirs[name] != value:
                raise PackError(
                    f"{member.trial.run.store.path}: {name} differs from {members[0].trial.run.store.path}'s "
                    f"({theirs[name]} and {value}); a pack needs one"
                )
