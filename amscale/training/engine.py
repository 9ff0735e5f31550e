"""Start Accelerate with DeepSpeed, and check that DeepSpeed runs as asked.

Accelerate falls back to plain DistributedDataParallel without a message when it is started in the wrong way, and no
loss curve shows it. So the engine's settings are read back, and a run whose engine differs from what was asked for
ends.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from amscale.cluster.without_trackers import without_trackers
from amscale.config import TrainSettings
from amscale.errors import InputError
from amscale.planning.memory import BUCKET
from amscale.planning.sharing import allocator_share
from amscale.trials.records import Placement


class EngineError(InputError):
    """DeepSpeed does not run as it was asked to, and would not the next time."""


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


def start_accelerator(placement: Placement, timeout: float = 1800.0) -> Accelerator:
    """Make the Accelerator of this rank, with the process group of its device: gloo's on CPUs, NCCL's on GPUs.

    A rank that shares its GPU gets an OutOfMemoryError where it would allocate more than its part.

    Args:
        placement: of the trial.
        timeout: seconds that a collective of the engine may take.

    Raises:
        EngineError: the process was not started by `accelerate launch` with DeepSpeed, or GLOO_DEVICE_TRANSPORT names
            what torch has not.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
        raise EngineError(
            "this process was not started by `accelerate launch --use_deepspeed`; `python -m amscale.plan` prints the "
            "command that starts a trial by hand"
        )
    _check_gloo_transport()
    with without_trackers():
        import_module("deepspeed")
    if placement.device == "cpu":
        _without_shared_memory_extension()
    backend = "gloo" if placement.device == "cpu" else "nccl"
    group = InitProcessGroupKwargs(backend=backend, timeout=timedelta(seconds=timeout))
    accelerator = Accelerator(gradient_accumulation_steps=placement.accumulation, kwargs_handlers=[group])
    if placement.gpu_fraction < 1:
        device = accelerator.device
        memory = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(allocator_share(placement.gpu_fraction, memory), device)
    return accelerator


def _check_gloo_transport() -> None:
    """Refuse a transport that torch has not: another attempt would fail like the first.

    It is not replaced by another: a site may ask for one that encrypts.
    """
    asked = os.environ.get("GLOO_DEVICE_TRANSPORT")
    if asked is None:
        return
    try:
        torch.distributed.ProcessGroupGloo.create_device(hostname="127.0.0.1")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise EngineError(
            f"GLOO_DEVICE_TRANSPORT={asked!r} of the environment: torch makes no such device ({reason}); unset it, or "
            "give TCP, or TCP_TLS with its keys"
        ) from None


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
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


def prepare(
    accelerator: Accelerator, model: torch.nn.Module, settings: TrainSettings, micro_batch: int
) -> tuple[Any, Any]:
    """Wrap model and optimiser by DeepSpeed; return (engine, optimiser)."""
    return prepare_with(accelerator, model, optimizer_for(model, settings), settings, micro_batch)


def prepare_with(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    settings: TrainSettings,
    micro_batch: int,
) -> tuple[Any, Any]:
    """Wrap a model and its optimiser by DeepSpeed; return (engine, optimiser)."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = micro_batch
    config["gradient_clipping"] = settings.gradient_clip
    # DeepSpeed allocates a whole bucket, 2 GB by default; one that holds all gradients is filled as a larger one is.
    parameters = sum(p.numel() for p in model.parameters())
    config["zero_optimization"]["reduce_bucket_size"] = min(BUCKET, parameters)
    engine, optimizer = accelerator.prepare(model, optimizer)
    if clips_here(engine):
        # DeepSpeed would measure the norm once more, module by module, and average it over the ranks, who all have it.
        engine.clip_fp32_gradients = lambda: None
        if accelerator.num_processes == 1:
            engine.enable_backward_allreduce = False  # one rank's gradients are the sum; DeepSpeed would copy them all
    return engine, optimizer


def clips_here(engine: Any) -> bool:
    """Return whether the loop measures and clips the gradients, not DeepSpeed: under stage 0 in fp32."""
    return not engine.zero_optimization_stage() and not engine.bfloat16_enabled()


def check(accelerator: Accelerator, engine: Any, placement: Placement, settings: TrainSettings) -> EngineFacts:
    """Read the engine's settings and compare all of them with the placement and the settings of the trial.

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
    inner = adamw(engine.optimizer)
    compiler = accelerator.state.dynamo_plugin.backend.value
    found = facts.to_dict() | {
        "device": engine.device.type,
        "gradients": str(engine.get_data_types()[1]),
        "gradient_clip": float(engine.gradient_clipping()),
        "betas": {tuple(group["betas"]) for group in inner.param_groups},
        "epsilon": {group["eps"] for group in inner.param_groups},
        "weight_decay": {group["weight_decay"] for group in inner.param_groups} - {0.0},
        "offload": engine.zero_cpu_offload() or engine.zero_offload_param() is not None,
        "compiler": None if compiler == "NO" else compiler,
        "Accelerate's processes": accelerator.num_processes,
        "Accelerate's accumulation": accelerator.gradient_accumulation_steps,
    }
    wanted = {
        "distributed_type": "DEEPSPEED",
        "world_size": placement.world_size,
        "zero_stage": placement.zero_stage,
        "precision": placement.precision,
        "micro_batch": placement.micro_batch,
        "accumulation": placement.accumulation,
        "device": placement.device,
        "gradients": str(torch.float32),
        "gradient_clip": settings.gradient_clip,
        "betas": {settings.betas},
        "epsilon": {settings.epsilon},
        "weight_decay": {settings.weight_decay} - {0.0},
        "offload": False,
        "compiler": None,
        "Accelerate's processes": placement.world_size,
        "Accelerate's accumulation": placement.accumulation,
    }
    wrong = [f"{k} is {found[k]!r}, asked for {v!r}" for k, v in wanted.items() if found[k] != v]
    if wrong:
        raise EngineError("DeepSpeed does not run as asked: " + "; ".join(wrong))
    return facts


def adamw(optimizer: Any) -> torch.optim.AdamW:
    """Return the AdamW within the optimisers of Accelerate and DeepSpeed."""
    while not isinstance(optimizer, torch.optim.AdamW):
        optimizer = optimizer.optimizer
    return optimizer


def tensors(engine: Any) -> str:
    """Return a digest of the names and whole shapes of the model's parameters, twelve hexadecimal digits."""
    shapes = [(name, list(getattr(p, "ds_shape", p.shape))) for name, p in engine.module.named_parameters()]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:12]


def clip_gradients(engine: Any, parameters: Sequence[torch.nn.Parameter]) -> float:
    """Clip the gradients to the engine's limit, where they are finite; return their global norm before that.

    Only where `clips_here`: under ZeRO DeepSpeed clips, and `engine.get_global_grad_norm()` is the norm.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    found, most = float(norm), engine.gradient_clipping()
    if most and math.isfinite(found) and found > most:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return found


def optimizer_elements(optimizer: Any) -> int:
    """Count the elements of AdamW's first moment on this rank: about 1/world of the parameters under ZeRO ≥ 1.

    They are read from the optimiser's state after its first step, so they show what is really sharded.
    """
    states = adamw(optimizer).state.values()
    return sum(state["exp_avg"].numel() for state in states if "exp_avg" in state)
