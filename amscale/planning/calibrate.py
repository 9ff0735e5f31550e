"""Measure how long training steps of a sweep's models take on this machine's CPUs: some seconds, once a machine.

    python -m amscale.planning.calibrate < REQUEST

The request is JSON that `calibrate` writes. Plain PyTorch trains the models of a few trials on tokens that are
drawn at random, in as many processes at a time as trials will run: cores share caches and memory.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from amscale.planning.plan import SweepPlan
from amscale.planning.speeds import Speeds, StepTime, keep
from amscale.planning.times import places
from amscale.planning.trial_plan import TrialPlan

_SECONDS = 1.0
"""Of each model."""
_LEAST_STEPS = 4
_ENGINE_SECONDS = 0.0005
"""What DeepSpeed's engine, batches and records add to a step of plain PyTorch."""
_MOST_PROCESSES = 8
_MOST_STEP_SECONDS = 3.0
"""A step that is expected to take longer is not measured."""
_TIMEOUT = 120.0


def calibrate(plan: SweepPlan, concurrent: int | None) -> list[StepTime]:
    """Measure steps of trials that no kept measurement is near to, keep and return them; none where all are known.

    Args:
        plan: of the sweep, on this machine.
        concurrent: trials that may run at a time, at most.
    """
    trials = unknown(plan)
    if not trials:
        return []
    at_a_time = min(len(plan.trials), _MOST_PROCESSES, places(trials[0].placement, plan.resources, concurrent))
    threads = trials[0].placement.cpus_per_process
    request = json.dumps({"at_a_time": at_a_time, "threads": threads, "trials": [_describe(trial) for trial in trials]})
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "amscale.planning.calibrate"]
    try:
        ran = subprocess.run(
            command,
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment,
            timeout=_TIMEOUT,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return []  # the plan then says that its speed is assumed
    measured = [StepTime(**point) for point in json.loads(ran.stdout)]
    keep(measured)
    return measured


def unknown(plan: SweepPlan) -> list[TrialPlan]:
    """Return trials to measure: of those whose speed is not known, with the least, middle and most FLOPs a step."""
    found: dict[tuple[str, float], TrialPlan] = {}
    for trial in plan.unmeasured:
        placement, flops = trial.placement, trial.flops / trial.steps
        if placement.device == "cpu" and placement.world_size == 1 and trial.cell.data.has_tokens:
            expected = Speeds().step_seconds(trial.shape.family, flops, placement, plan.resources)
            if expected <= _MOST_STEP_SECONDS:
                found.setdefault((trial.shape.family, flops), trial)
    ordered = [found[key] for key in sorted(found)]
    return [ordered[index] for index in sorted({0, len(ordered) // 2, len(ordered) - 1})] if ordered else []


def _describe(trial: TrialPlan) -> dict[str, Any]:
    """Return what is needed to make a trial's model and batch, and its step as the plan has it."""
    placement = trial.placement
    return {
        "settings": trial.cell.model_dump(mode="json", exclude_unset=True),
        "vocabulary": trial.shape.vocabulary,
        "sequences": trial.step_plan.sequences,
        "context": trial.step_plan.context,
        "step": {
            "family": trial.shape.family,
            "device": placement.device,
            "precision": placement.precision,
            "cpus": placement.cpus_per_process,
            "flops": trial.flops / trial.steps,
            "calibrated": True,
        },
    }


def _measure(trials: list[dict[str, Any]], threads: int) -> list[float]:
    """Train each model for about a second on one process's cores; return the seconds of a step."""
    import torch
    from torch.nn import functional

    from amscale import config, models

    torch.set_num_threads(threads)
    found: list[float] = []
    for trial in trials:
        settings = config.parse(trial["settings"])
        model = models.build(models.solve(settings.model, trial["vocabulary"], trial["context"]))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        tokens = torch.randint(trial["vocabulary"], (trial["sequences"], trial["context"] + 1))
        seconds: list[float] = []
        began = time.perf_counter()
        while len(seconds) < _LEAST_STEPS or time.perf_counter() - began < _SECONDS:
            before = time.perf_counter()
            loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            float(loss.detach())
            seconds.append(time.perf_counter() - before)
        # The first step allocates.
        found.append(_ENGINE_SECONDS + statistics.median(seconds[1:]))
    return found


def main() -> None:
    """Answer a request: fork as many processes as trials will run at a time, and average what they measure."""
    request = json.load(sys.stdin)
    import torch  # noqa: F401 - once for all of them, before any has threads

    from amscale.models import families  # noqa: F401

    pipes = []
    for _ in range(request["at_a_time"]):
        read, write = os.pipe()
        if os.fork() == 0:
            status = 1
            try:
                with os.fdopen(write, "w", encoding="utf-8") as file:
                    json.dump(_measure(request["trials"], request["threads"]), file)
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        pipes.append(os.fdopen(read, encoding="utf-8"))
    measured = [json.load(pipe) for pipe in pipes]
    steps = [trial["step"] for trial in request["trials"]]
    means = [statistics.fmean(same) for same in zip(*measured, strict=True)]
    json.dump([step | {"seconds": seconds} for step, seconds in zip(steps, means, strict=True)], sys.stdout)


if __name__ == "__main__":
    main()
