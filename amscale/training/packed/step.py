"""Make the steps of several trials by one DeepSpeed engine over their stacked parameters."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from amscale import models
from amscale.training import engine
from amscale.training.first_update import FirstUpdate
from amscale.training.loop import LoopOutcome, Step, learning_rate
from amscale.training.loss import objective
from amscale.training.packed.stack import PackError, StackedAdamW, StackedNetwork, flat
from amscale.training.run import OpenTrial
from amscale.trials.records import Placement

_LOSS_TOLERANCE = 1e-4
_GRADIENT_TOLERANCE = 1e-3
"""Largest relative difference of a member's first loss and gradient from those of its own network: float32 rounds
differently in a product of stacked matrices, by 1e-6; an error in the stack is of the order of 1."""


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


class Stack:
    """Members with their parameters stacked, under one DeepSpeed engine that makes their steps.

    Args:
        accelerator: of this process.
        members: at least one; their own models and optimisers hold where they are.
        placement: of each.

    Raises:
        PackError: their networks cannot be stacked.
        EngineError: DeepSpeed does not run as the placement says.
    """

    def __init__(self, accelerator: Accelerator, members: Sequence[Member], placement: Placement) -> None:
        self.members = list(members)
        trials = [member.trial for member in members]
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
