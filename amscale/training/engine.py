"""Start Accelerate with DeepSpeed, and check that DeepSpeed runs as asked.

Accelerate falls back to plain DistributedDataParallel without a message when it is started in the wrong way, and no
loss curve shows it. So the engine's settings are read back, and a run whose engine differs from what was asked for
ends.
"""

import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from amscale.config import TrainSettings


class EngineError(RuntimeError):
    """DeepSpeed does not run as it was asked to."""


@dataclass(frozen=True)
class EngineFacts:
    """The engine's settings as the engine reports them."""

    distributed_type: str
    engine: str
    world_size: int
    zero_stage: int
    precision: str
    micro_batch: int
    accumulation: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return asdict(self)


def start_accelerator(device: str, accumulation: int, timeout: float = 1800.0) -> Accelerator:
    """Make the Accelerator of this rank, with the process group of its device.

    Args:
        device: `cpu` (gloo) or `cuda` (NCCL).
        accumulation: forward passes per optimiser step.
        timeout: seconds that a collective of the engine may take.

    Raises:
        EngineError: the process was not started by `accelerate launch` with DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
        raise EngineError(
            "this process was not started by `accelerate launch --use_deepspeed`; `python -m amscale.plan` prints the "
            "command that starts a trial by hand"
        )
    if device == "cpu":
        _without_shared_memory_extension()
    backend = "gloo" if device == "cpu" else "nccl"
    group = InitProcessGroupKwargs(backend=backend, timeout=timedelta(seconds=timeout))
    return Accelerator(gradient_accumulation_steps=accumulation, kwargs_handlers=[group])


def _without_shared_memory_extension() -> None:
    """Keep DeepSpeed from compiling and loading its shared-memory extension, which is not used here.

    It serves ranks that DeepSpeed's launcher has started (LOCAL_SIZE). It is loaded under a lock file that remains if a
    rank is killed meanwhile; then every later rank of this user waits for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def optimizer_for(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Make an AdamW that decays matrices by `weight_decay`, and vectors (norms, biases) never."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((matrices, settings.weight_decay), (vectors, 0.0))
        if group
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon)


def prepare(
    accelerator: Accelerator, model: torch.nn.Module, settings: TrainSettings, micro_batch: int
) -> tuple[Any, Any]:
    """Wrap model and optimiser by DeepSpeed; return (engine, optimiser)."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = micro_batch
    config["gradient_clipping"] = settings.gradient_clip
    engine, optimizer = accelerator.prepare(model, optimizer_for(model, settings))
    return engine, optimizer


def check(
    accelerator: Accelerator, engine: Any, *, world_size: int, zero_stage: int, precision: str, micro_batch: int
) -> EngineFacts:
    """Read the engine's settings and compare them with what was asked for.

    Raises:
        EngineError: naming every difference.
    """
    from deepspeed import DeepSpeedEngine

    if not isinstance(engine, DeepSpeedEngine):
        raise EngineError(
            f"DeepSpeed is not engaged: Accelerate reports {accelerator.distributed_type} and the model is a "
            f"{type(engine).__name__}"
        )
    facts = EngineFacts(
        distributed_type=accelerator.distributed_type.value,
        engine=type(engine).__name__,
        world_size=int(engine.world_size),
        zero_stage=int(engine.zero_optimization_stage()),
        precision="bf16" if engine.bfloat16_enabled() else "fp16" if engine.fp16_enabled() else "fp32",
        micro_batch=int(engine.train_micro_batch_size_per_gpu()),
        accumulation=int(engine.gradient_accumulation_steps()),
        device=str(engine.device),
    )
    wanted = {
        "distributed_type": "DEEPSPEED",
        "world_size": world_size,
        "zero_stage": zero_stage,
        "precision": precision,
        "micro_batch": micro_batch,
        "accumulation": accelerator.gradient_accumulation_steps,
    }
    wrong = [f"{k} is {getattr(facts, k)!r}, asked for {v!r}" for k, v in wanted.items() if getattr(facts, k) != v]
    if accelerator.num_processes != world_size:
        wrong.append(f"Accelerate counts {accelerator.num_processes} processes, asked for {world_size}")
    if wrong:
        raise EngineError("DeepSpeed does not run as asked: " + "; ".join(wrong))
    return facts


def optimizer_elements(optimizer: Any) -> int:
    """Count the elements of AdamW's first moment on this rank: about 1/world of the parameters under ZeRO ≥ 1.

    They are read from the optimiser's state after its first step, so they show what is really sharded.
    """
    inner = optimizer
    while not isinstance(inner, torch.optim.AdamW):
        inner = inner.optimizer
    return sum(state["exp_avg"].numel() for state in inner.state.values() if "exp_avg" in state)
