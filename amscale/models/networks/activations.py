"""Activations of the transformers library whose formula is written out, exchanged for PyTorch's single kernels."""

from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation


def fuse_activations(model: nn.Module) -> None:
    """Exchange every GELU by the formula with tanh for PyTorch's kernel of the same function, in place.

    Written out it is eight kernels, each of which reads and writes the hidden layer: a fifth of a step of GPT-2 on a
    CPU. The results differ in the last bits (tests/models/test_activations.py).
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
