"""Run several trials in one process: one engine over their stacked parameters, and all else as for a trial alone.

Each member is an open trial with a model, an optimiser and a DeepSpeed engine of its own, which validate, probe, and
write and read its checkpoints. Steps are made by an engine over the stack. What a member needs of it is copied into its
own model before, so that a checkpoint does not tell whether it was written in a pack or alone, and a run goes on either
way. A member that ends leaves the others; the stack is then made again of those.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator

from amscale import models
from amscale.config import Experiment
from amscale.data import TokenStore
from amscale.errors import EXIT_PREEMPTED
from amscale.files import write_atomically
from amscale.planning.placement import check_supported
from amscale.training import engine
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.first_update import FirstUpdate
from amscale.training.loop import LoopOutcome, Step, after_step, grace_seconds, is_due, learning_rate, save
from amscale.training.loss import objective
from amscale.training.packed.stack import PackError, StackedAdamW, StackedNetwork, flat
from amscale.training.run import OpenTrial
from amscale.training.shutdown import GracefulShutdown
from amscale.trials.records import Placement, ResultPacked
from amscale.trials.trial_store import TrialStore

_LOSS_TOLERANCE = 1e-4
_GRADIENT_TOLERANCE = 1e-3
"""Largest relative difference of a member's first loss and gradient from those of its own network: float32 rounds
differently in a product of stacked matrices, by 1e-6; an error in the stack is of the order of 1."""

_CACHED_ACTIVATIONS = 100_000
"""Elements of the residual stream of a stack, at most: those of more members do not stay in a core's cache, and a step
of them takes longer than two of half as many (benchmarks/packing.py)."""

Opened = tuple[TrialStore, Experiment, Placement, TokenStore | None]
"""What `run.resolve` returns of a trial."""


@dataclass
class Member:
    """One trial of a pack."""

    trial: OpenTrial
    outcome: LoopOutcome = field(default_factory=LoopOutcome)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Those of its own model."""
        return [*self.trial.run.engine.module.parameters()]

    @property
    def adamw(self) -> torch.optim.AdamW:
        """Its own optimiser, which holds what a checkpoint of it has."""
        return engine.adamw(self.trial.run.optimizer)


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
    _check_alike(opened)
    torch.set_num_threads(placement.cpus_per_process)
    accelerator = engine.start_accelerator(placement, first.launch.collective_timeout)
    logging.getLogger("accelerate.accelerator").setLevel(logging.ERROR)  # it warns of every engine after the first
    books = Bookkeeping(first.launch.files_timeout)
    shutdown = GracefulShutdown(accelerator)
    members = [
        Member(_opened(OpenTrial.begin(accelerator, books, store, cell, placed, tokens, shutdown.requested, began)))
        for store, cell, placed, tokens in opened
        if tokens is not None
    ]
    packed = ResultPacked(largest=len(members), members=[store.read_spec().label for store, _, _, _ in opened])

    def end(member: Member) -> None:
        member.trial.end(member.outcome, packed)
        member.trial.say(member.outcome, f"{member.trial.run.store.read_spec().label}: ")

    for member in [m for m in members if m.trial.progress.step >= m.trial.run.steps]:
        members.remove(member)
        end(member)
    stacks = _stacks(accelerator, members, placement)
    checked = False
    while members:
        if shutdown.requested():
            for stack in stacks:
                stack.write_back(stack.members)
            for member in members:
                member.outcome.state = "preempted"
                save(member.trial.run, member.trial.progress, member.outcome)
                end(member)
            return _ended(accelerator, EXIT_PREEMPTED)
        steps = [step for stack in stacks for step in stack.step(check=not checked)]
        checked = True
        for stack, made in zip(stacks, _split(steps, [len(stack.members) for stack in stacks]), strict=True):
            stack.write_back([m for m, step in zip(stack.members, made, strict=True) if is_due(m.trial.run, step)])
        saved = max(m.outcome.checkpoint_seconds for m in members)
        leaving = [
            m
            for m, step in zip(members, steps, strict=True)
            if after_step(m.trial.run, m.trial.progress, m.outcome, step)
        ]
        if leaving:
            for stack in stacks:
                stack.write_back(stack.members)
            for member in leaving:
                members.remove(member)
                end(member)
            stacks = _stacks(accelerator, members, placement)
        if members and max(m.outcome.checkpoint_seconds for m in members) != saved:
            _leave_grace(leader, members)
    return _ended(accelerator, 0)


def _opened(trial: OpenTrial) -> OpenTrial:
    """Return a trial that reads no counters of the machine: those of a pack are not of one trial."""
    return replace(trial, run=replace(trial.run, electricity=None))


def _stacks(accelerator: Accelerator, members: Sequence[Member], placement: Placement) -> "list[Stack]":
    """Return stacks of as many members as are fastest at a time, in the order of the members."""
    if not members:
        return []
    first = members[0].trial
    tokens = first.run.batches.sequences * first.run.batches.mean_targets_per_sequence
    size = max(1, int(_CACHED_ACTIVATIONS / (tokens * first.shape.width)))
    return [Stack(accelerator, members[i : i + size], placement) for i in range(0, len(members), size)]


def _split(steps: Sequence[Step], sizes: Sequence[int]) -> list[list[Step]]:
    left = iter(steps)
    return [[next(left) for _ in range(size)] for size in sizes]


def _ended(accelerator: Accelerator, status: int) -> int:
    accelerator.end_training()
    return status


def _leave_grace(leader: TrialStore, members: Sequence[Member]) -> None:
    """Leave where the pack's supervisor looks, beside the log, how long all checkpoints together may take."""
    if members[0].trial.run.measures_grace:
        interval = sum(m.outcome.longest_interval for m in members)
        checkpoints = sum(m.outcome.checkpoint_seconds for m in members)
        write_atomically(leader.grace_file, f"{grace_seconds(interval + checkpoints):.1f}\n")


def _check_alike(opened: Sequence[Opened]) -> None:
    """Raise PackError if trials differ in what the members of a pack share."""
    store, cell, placement, _ = opened[0]
    if placement.world_size > 1 or placement.zero_stage or placement.precision != "fp32" or placement.accumulation > 1:
        raise PackError(
            f"{store.path}: {placement}: only trials of one process, fp32, stage 0 and one forward pass a step pack"
        )
    for one, its_cell, _, tokens in opened:
        if its_cell.train.script or tokens is None or one.read_spec().branches:
            raise PackError(f"{one.path}: a trial with train.script, or with trials that branch off it, trains alone")
    for other, others_cell, others_placement, _ in opened[1:]:
        for name, here, there in (
            ("placement", placement, others_placement),
            ("train.betas", cell.train.betas, others_cell.train.betas),
            ("train.epsilon", cell.train.epsilon, others_cell.train.epsilon),
        ):
            if here != there:
                raise PackError(f"{other.path}: {name} is {there} here and {here} in {store.path}; a pack needs one")


class Stack:
    """Members with their parameters stacked, under one DeepSpeed engine that makes their steps.

    Args:
        accelerator: of this process.
        members: at least one; their own models and optimisers hold where they are.
        placement: of each.

    Raises:
        PackError: their networks cannot be stacked, or are of different shapes.
        EngineError: DeepSpeed does not run as the placement says.
    """

    def __init__(self, accelerator: Accelerator, members: Sequence[Member], placement: Placement) -> None:
        self.members = list(members)
        trials = [member.trial for member in members]
        shapes = [[p.shape for p in member.parameters] for member in members]
        if any(shape != shapes[0] for shape in shapes):
            raise PackError("the trials' networks have different shapes; a pack needs one")
        networks = [trial.run.engine.module for trial in trials]
        self._network = StackedNetwork(networks, models.build(trials[0].shape))
        settings = trials[0].run.settings
        states = [[member.adamw.state.get(p, {}) for p in member.parameters] for member in members]
        counts = [int(max((float(s["step"]) for s in state if "step" in s), default=0)) for state in states]
        moments = [
            torch.stack([_row(member, state, name) for member, state in zip(members, states, strict=True)])
            for name in ("exp_avg", "exp_avg_sq")
        ]
        self._adamw = StackedAdamW(
            self._network,
            settings.betas,
            settings.epsilon,
            [trial.run.settings.weight_decay for trial in trials],
            counts,
            (moments[0], moments[1]),
        )
        self._engine, _ = engine.prepare_with(accelerator, self._network, self._adamw, settings, placement.micro_batch)
        engine.check(accelerator, self._engine, placement, settings.model_copy(update={"weight_decay": 0.0}))
        self._engine.train()

    def step(self, check: bool) -> list[Step]:
        """Make the next step of every member.

        Args:
            check: whether to hold each member's loss and gradient against its own network's.

        Raises:
            PackError: they differ by more than rounding.
            EngineError: an update that is a member's first is not AdamW's.
        """
        began = time.perf_counter()
        runs = [member.trial.run for member in self.members]
        numbers = [member.trial.progress.step + 1 for member in self.members]
        rates = [learning_rate(run.settings, n, run.steps) for run, n in zip(runs, numbers, strict=True)]
        batches = [run.batches.batch(n - 1) for run, n in zip(runs, numbers, strict=True)]
        counted = [int((targets != -100).sum()) for _, targets in batches]
        inputs_RT, targets_RT = _joined(batches)
        size = len(batches[0][0])
        parts = zip(self._engine(inputs_RT).split(size), targets_RT.split(size), runs, strict=True)
        pairs = [
            objective(logits, wanted, r.settings.z_loss, r.settings.label_smoothing) for logits, wanted, r in parts
        ]
        minimised = torch.stack([loss / n for (loss, _), n in zip(pairs, counted, strict=True)]).sum()
        self._engine.set_gradient_accumulation_boundary(is_boundary=True)
        self._engine.backward(minimised)
        losses = [float(plain.detach()) / n for (_, plain), n in zip(pairs, counted, strict=True)]
        gradient_MN = self._network.rows.grad
        assert gradient_MN is not None
        if check:
            self._check_first(batches, losses, gradient_MN)
        firsts = self._first_updates(numbers, rates, gradient_MN)
        norms = [float(norm) for norm in torch.linalg.vector_norm(gradient_MN, dim=1)]
        scale_M1 = torch.tensor(
            [_clip(run.settings.gradient_clip, norm) for run, norm in zip(runs, norms, strict=True)]
        )
        gradient_MN.mul_(scale_M1[:, None])
        finite = [math.isfinite(loss) and math.isfinite(norm) for loss, norm in zip(losses, norms, strict=True)]
        self._adamw.rates, self._adamw.skipped = rates, {m for m, is_finite in enumerate(finite) if not is_finite}
        self._engine.step()
        for m, first in firsts.items():
            if finite[m]:
                self.write_back([self.members[m]])
                first.check(norms[m])
        seconds, share = time.perf_counter() - began, 1 / len(runs)
        return [
            Step(numbers[m], rates[m], losses[m], counted[m], norms[m], finite[m], seconds, share)
            for m in range(len(runs))
        ]

    def write_back(self, members: Sequence[Member]) -> None:
        """Copy parameters and optimiser state of some members into their own models and optimisers."""
        for member in members:
            m = self.members.index(member)
            rows = (self._network.rows.data[m], self._adamw.first_MN[m], self._adamw.second_MN[m])
            split = [row.split(self._network.sizes) for row in rows]
            step = float(self._adamw.counts[m])
            for parameter, value, first, second in zip(member.parameters, *split, strict=True):
                parameter.data.copy_(value.view(parameter.shape))
                if step:
                    member.adamw.state[parameter] = {
                        "step": torch.tensor(step),
                        "exp_avg": first.view(parameter.shape).clone(),
                        "exp_avg_sq": second.view(parameter.shape).clone(),
                    }

    def _check_first(self, batches: Sequence[Any], losses: Sequence[float], gradient_MN: torch.Tensor) -> None:
        """Raise PackError if a member's loss or gradient is not that of its own network."""
        for m, (member, (inputs, targets)) in enumerate(zip(self.members, batches, strict=True)):
            run = member.trial.run
            targets_BT = torch.from_numpy(targets)
            counted = int((targets_BT != -100).sum())
            logits_BTV = run.engine.module(torch.from_numpy(inputs))
            minimised, plain = objective(logits_BTV, targets_BT, run.settings.z_loss, run.settings.label_smoothing)
            gradients = torch.autograd.grad(minimised / counted, member.parameters)
            own_N, loss = flat(gradients), float(plain.detach()) / counted
            off = float((gradient_MN[m] - own_N).norm() / own_N.norm())
            if abs(losses[m] - loss) > _LOSS_TOLERANCE * abs(loss) or off > _GRADIENT_TOLERANCE:
                raise PackError(
                    f"{run.store.path}: packed, the loss is {losses[m]:.6f} and alone {loss:.6f}, and the gradients "
                    f"differ by {off:.2g} of their norm: this network cannot be stacked"
                )

    def _first_updates(
        self, numbers: Sequence[int], rates: Sequence[float], gradient_MN: torch.Tensor
    ) -> dict[int, FirstUpdate]:
        """Return what AdamW's update would be of the members whose first it is."""
        found = {}
        for m in [m for m, number in enumerate(numbers) if number == 1]:
            member = self.members[m]
            for parameter, part in zip(member.parameters, gradient_MN[m].split(self._network.sizes), strict=True):
                parameter.grad = part.view(parameter.shape).clone()
            found[m] = FirstUpdate(member.trial.run.engine, member.trial.run.settings, rates[m])
            for parameter in member.parameters:
                parameter.grad = None
        return found


def _row(member: Member, state: Sequence[dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    pairs = zip(member.parameters, state, strict=True)
    return flat([found.get(name, torch.zeros_like(parameter)) for parameter, found in pairs])


def _clip(most: float, norm: float) -> float:
    return min(1.0, most / (norm + 1e-6)) if most and math.isfinite(norm) else 1.0


def _joined(batches: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets of all members, one below the other; shorter sequences are padded on the right.

    What follows a token does not change its loss: every family is causal.
    """
    width = max(inputs.shape[1] for inputs, _ in batches)
    pad = torch.nn.functional.pad
    inputs = [pad(torch.from_numpy(i), (0, width - i.shape[1])) for i, _ in batches]
    targets = [pad(torch.from_numpy(t), (0, width - t.shape[1]), value=-100) for _, t in batches]
    return torch.cat(inputs), torch.cat(targets)
