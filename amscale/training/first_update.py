"""Hold the engine's first update against plain AdamW's: a check of a few tensors that no loss curve can replace.

DeepSpeed under ZeRO 0 in bf16 once took AdamW's first step, on gradients of zero, while it was made. Every later update
then had the bias correction of the step after it; the first was 26 % too short, and all gradient norms agreed.
"""

import math
from typing import Any

import torch

from amscale.config import TrainSettings
from amscale.training.engine import EngineError

_TENSORS = 2
"""Tensors of each kind that are looked at: the smallest matrices, and the smallest vectors."""
_TOLERANCE = 0.02
"""Largest difference from AdamW's update, as a share of the largest update that a first step can make."""


class FirstUpdate:
    """The first update of a run, as AdamW would make it and as the engine makes it.

    Made between the backward pass and the update; every rank makes it and asks it, as shards are gathered.

    Args:
        engine: DeepSpeed's, with the gradients of the whole batch.
        settings: of the training.
        rate: learning rate of this update.
    """

    def __init__(self, engine: Any, settings: TrainSettings, rate: float) -> None:
        self._settings = settings
        self._rate = rate
        self._parameters = _chosen(engine.module)
        self._before = [_weights(parameter) for parameter in self._parameters]
        self._gradients = [_gradient(parameter) for parameter in self._parameters]

    def check(self, norm: float) -> float:
        """Compare the weights after the update; return the largest difference, as a share of the learning rate.

        Args:
            norm: global gradient norm before clipping.

        Raises:
            EngineError: the engine has made another update than AdamW does.
        """
        largest = self.difference(norm)
        if largest > _TOLERANCE:
            raise EngineError(
                f"the engine's first update differs from AdamW's by {largest:.1%} of the learning rate, where at most "
                f"{_TOLERANCE:.0%} is rounding: this version of DeepSpeed does not train as asked with this "
                "launch.precision and launch.zero_stage; choose others, or the versions of constraints.txt"
            )
        return largest

    def difference(self, norm: float) -> float:
        """Return the largest difference of a weight from AdamW's, as a share of the learning rate.

        Args:
            norm: global gradient norm before clipping.
        """
        clip = self._settings.gradient_clip
        scale = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        largest = 0.0
        for parameter, before, gradient in zip(self._parameters, self._before, self._gradients, strict=True):
            after = _weights(parameter)
            clipped = gradient * scale
            decay = self._settings.weight_decay if parameter_is_matrix(parameter) else 0.0
            # With both moments corrected for their start at 0, AdamW's first step is g / (|g| + ε).
            expected = before * (1 - self._rate * decay) - self._rate * clipped / (
                clipped.abs() + self._settings.epsilon
            )
            # What float32 cannot hold is no difference: a small rate moves a large weight by a few last places.
            rounding = 4 * torch.finfo(torch.float32).eps * before.abs()
            # Nor is a gradient so near to ε that its last places decide.
            decided = clipped.abs() > 100 * self._settings.epsilon
            excess = ((after - expected).abs() - rounding)[decided]
            if excess.numel() and (most := float(excess.max())) > 0:
                largest = max(largest, most / self._rate if self._rate else math.inf)  # at a rate of 0 nothing moves
        return largest


def parameter_is_matrix(parameter: torch.nn.Parameter) -> bool:
    """Return whether a parameter is decayed: matrices are, vectors are not."""
    return len(getattr(parameter, "ds_shape", parameter.shape)) >= 2


def _chosen(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    chosen = []
    for matrices in (True, False):
        kind = [p for p in parameters if parameter_is_matrix(p) == matrices]
        chosen += sorted(kind, key=lambda p: getattr(p, "ds_numel", p.numel()))[:_TENSORS]
    return chosen


def _weights(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return a copy of the float32 weights that the optimiser holds, gathered from the ranks."""
    from deepspeed.utils import safe_get_full_fp32_param

    full = safe_get_full_fp32_param(parameter)
    return (parameter if full is None else full).detach().float().clone()


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return a copy of the gradient of the whole batch, gathered from the ranks; 0 where there is none."""
    from deepspeed.utils import safe_get_full_grad

    gradient = safe_get_full_grad(parameter)
    return torch.zeros_like(_weights(parameter)) if gradient is None else gradient.detach().float().clone()
