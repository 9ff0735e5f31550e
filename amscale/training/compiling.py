"""Whether a run's network is compiled by torch.compile, and compiling it in place.

Compiled or not, it is the same function and draws the same dropout; results differ by rounding. So `train.compile` is
no part of a trial's identity, and a checkpoint holds the choice: `auto` goes on as the run began.
"""

from dataclasses import dataclass
from typing import Any, Literal

from amscale.cluster.cards import peak_flops
from amscale.cluster.compilers import STAGE_3, compile_obstacle
from amscale.errors import InputError
from amscale.trials.records import Placement

LONG_ENOUGH = {"cpu": 1800.0, "cuda": 300.0}
"""Seconds of steps from which on a run is compiled. Compiling takes 30 to 150 s of a core, and saves 5 to 15 % of a
step on CPUs (docs/performance.md); on GPUs, where it saves more, this is unmeasured."""
_CORE_FLOPS = 5e10
_GPU_FLOPS = 5e13
"""Training FLOP/s of a core and a GPU that runs are judged by. Constants: a measured speed differs between runs, and a
run that is resumed, or repeated, is to be decided as before."""
_OF_PEAK = 0.3


@dataclass(frozen=True)
class Choice:
    """Whether a network is compiled, and why."""

    compiled: bool
    reason: str


def choose(
    setting: Literal["auto"] | bool, before: bool | None, flops: float, placement: Placement, card: str = ""
) -> Choice:
    """Decide by the setting, by what the run's checkpoint says, and by the length of the run.

    Args:
        setting: `train.compile`.
        before: what the checkpoint says that the run goes on from; None where it begins.
        flops: training FLOPs of the whole run.
        placement: of the trial.
        card: what the driver calls its GPU.

    Raises:
        InputError: it is to be compiled, and cannot be.
    """
    if setting is False:
        return Choice(False, "train.compile=false")
    obstacle = _obstacle(placement)
    if setting is True:
        if obstacle:
            raise InputError(f"train.compile=true: {obstacle}; give auto or false")
        return Choice(True, "train.compile=true")
    speed = _CORE_FLOPS * placement.cpus_per_process
    if placement.device == "cuda":
        peak = peak_flops(card) if placement.precision == "bf16" else None
        speed = _GPU_FLOPS if peak is None else _OF_PEAK * peak
    seconds = flops / (speed * placement.world_size)
    least = LONG_ENOUGH[placement.device]
    wanted = seconds >= least if before is None else before
    if wanted and obstacle:
        return Choice(False, f"train.compile=auto would compile it, but {obstacle}")
    if before is not None:
        return Choice(wanted, "as its checkpoint was trained")
    return Choice(wanted, f"its steps take about {seconds:,.0f} s, and {least:.0f} s or more pay for compiling")


def _obstacle(placement: Placement) -> str:
    """Return why a network cannot be compiled here; empty where it can."""
    return STAGE_3 if placement.zero_stage == 3 else compile_obstacle(placement.device)


def compile_network(network: Any, placement: Placement, suppress: bool) -> None:
    """Compile a network in place, at its first call. What has been compiled is cached for all trials of this user here.

    Args:
        network: the module that the engine calls.
        placement: of the trial.
        suppress: whether parts that cannot be compiled run uncompiled, with a warning in the log, instead of an error.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    inductor.compile_threads = placement.cpus_per_process  # more would take the cores of other trials
    dynamo.suppress_errors = suppress
    # Dropout by PyTorch's own kernels, so that the same numbers are drawn as without compiling.
    network.compile(options={"fallback_random": True})
