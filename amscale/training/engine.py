"""Accelerate and DeepSpeed, engaged and checked.

Accelerate can drop to plain DistributedDataParallel without a word when it is started in the wrong way; a loss curve
would never show it. So the engine is asked what it is, and a run that did not get what it was promised ends at once.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from amscale.config import TrainSettings


class EngineError(RuntimeError):
    """DeepSpeed is not running as it was asked to."""


@dataclass(frozen=True)
class EngineFacts:
    """What the engine says of itself, read after it was made."""

    distributed_type: str
    engine: str
    world_size: int
    zero_stage: int
    precision: str
    micro_batch: int
    accumulation: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def start_accelerator(device: str, accumulation: int) -> Accelerator:
    """The Accelerator of this rank, with the process group of its device.

    Args:
        device: `cpu` (gloo) or `cuda` (NCCL).
        accumulation: forward passes per optimiser step.

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
    return Accelerator(
        gradient_accumulation_steps=accumulation, kwargs_handlers=[InitProcessGroupKwargs(backend=backend)]
    )


def _without_shared_memory_extension() -> None:
    """Keep DeepSpeed from compiling and loading an extension of which nothing is used here.

    It serves ranks that DeepSpeed's own launcher has started (LOCAL_SIZE). Its load goes through a lock file that stays
    behind where a rank is killed meanwhile, and then every later rank of this user waits for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def optimizer_for(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW; matrices decay by `weight_decay`, vectors (norms, biases) never."""
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
    """Wrap model and optimiser by DeepSpeed: (engine, optimiser)."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = micro_batch
    config["gradient_clipping"] = settings.gradient_clip
    engine, optimizer = accelerator.prepare(model, optimizer_for(model, settings))
    return engine, optimizer


def check(
    accelerator: Accelerator, engine: Any, *, world_size: int, zero_stage: int, precision: str, micro_batch: int
) -> EngineFacts:
    """Read the engine's own account of itself and hold it against what was asked for.

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
    """Elements of AdamW's first moment that this rank holds: about 1/world of the parameters under ZeRO ≥ 1.

    Read from the optimiser's own state after its first step, so that it shows what is really sharded.
    """
    inner = optimizer
    while not isinstance(inner, torch.optim.AdamW):
        inner = inner.optimizer
    return sum(state["exp_avg"].numel() for state in inner.state.values() if "exp_avg" in state)
