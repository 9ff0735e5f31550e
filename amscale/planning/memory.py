"""Memory of one process under each ZeRO stage.

Model states per parameter follow Rajbhandari et al. 2020 (arXiv 1910.02054), table 1, with AdamW: the weights, the
gradients, and the optimiser's part, which ZeRO 1 to 3 shard over the processes in turn.
"""

from dataclasses import dataclass
from typing import Literal

from amscale import models
from amscale.models import Shape

# What a process needs before it holds a model: interpreter, torch and DeepSpeed; on a GPU its context and workspaces.
_PROCESS = {"cpu": 0.55e9, "cuda": 1.5e9}
# Share of a device's memory that a plan may fill: allocators fragment, and peaks overlap.
_USABLE = 0.85


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    states: float
    activations: float
    process: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.states + self.activations + self.process


def model_states(parameters: int, stage: int, world_size: int, precision: str) -> float:
    """Bytes of weights, gradients and AdamW's state that one process holds.

    fp32: 4 + 4 + 8 bytes a parameter; ZeRO 1 to 3 keep one more fp32 copy of the shard that they update.
    bf16: 2 + 2 + 12 (fp32 weights and two moments), and fp32 accumulated gradients where DeepSpeed keeps them.
    """
    element = 2 if precision == "bf16" else 4
    weights = gradients = element
    optimizer = 12 if precision == "bf16" or stage > 0 else 8
    share = 1 / world_size
    return parameters * (
        weights * (share if stage >= 3 else 1)
        + gradients * (share if stage >= 2 else 1)
        + optimizer * (share if stage >= 1 else 1)
    )


def estimate(
    shape: Shape, stage: int, world_size: int, precision: str, micro_batch: int, device: Literal["cpu", "cuda"]
) -> Memory:
    """Estimated peak memory of one process."""
    element = 2 if precision == "bf16" else 4
    return Memory(
        states=model_states(shape.parameters.total, stage, world_size, precision),
        activations=models.activation_bytes(shape, micro_batch, element, device),
        process=_PROCESS[device],
    )


def fits(memory: Memory, device_memory: float) -> bool:
    """Whether an estimate leaves the margin that a device needs."""
    return memory.total <= _USABLE * device_memory
