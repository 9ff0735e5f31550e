"""Activations of the transformers library whose formula is written out, exchanged for PyTorch's single kernels."""

import math

import torch
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, NewGELUActivation

_SCALE = math.sqrt(8 / math.pi)


class TanhGELU(nn.GELU):
    """GELU by the formula with tanh, in one kernel; in compiled code by the logistic function, which is the same.

    ½(1 + tanh u) = 1/(1 + exp(−2u)). Compiled code takes tanh from a slow library function: a tenth of a step.
    """

    def __init__(self) -> None:
        super().__init__(approximate="tanh")

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of every element."""
        if torch.compiler.is_compiling():
            return input * torch.sigmoid(input * (_SCALE + 0.044715 * _SCALE * input * input))
        return super().forward(input)


def fuse_activations(model: nn.Module) -> None:
    """Exchange every GELU by the formula with tanh for PyTorch's kernel of the same function, in place.

    Written out it is eight kernels, each of which reads and writes the hidden layer: a fifth of a step of GPT-2 on a
    CPU. The results differ in the last bits (tests/models/test_activations.py).
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(module, name, TanhGELU())
