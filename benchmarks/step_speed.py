"""Measure a training step: this project's engine and loop beside a bare PyTorch loop and beside a small GPT-2.

    OMP_NUM_THREADS=2 python benchmarks/step_speed.py [--sizes 140k,1.07M,7.6M] [--rounds 5]

One process, float32, no dropout. Each round trains for so many steps with each side, one after the other, so that
whatever else the machine does affects all; the ratios are of tokens per second of processor and of wall time within a
round, with their least and greatest.

- *here*: `training.loop.train` with DeepSpeed's engine as a trial has it, on tokens from a token store's subset.
- *bare*: the same network in the shortest loop that trains it: forward, loss, backward, clipping, AdamW, loss read.
- *small*: a GPT-2 of the same shape written as short as can be (SDPA, exact GELU, torch's default AdamW), in that loop.

With --compiled *here* and *small* are there once more, compiled by torch.compile; what compiling takes does not count.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rows import Row
from rows import middle as middle_of

from amscale.trials.records import Placement

CONTEXT = 128
VOCABULARY = 256
SEQUENCES = 16
PLACEMENT = Placement(1, 1, 1, "cpu", 0, "fp32", SEQUENCES, 1)


def set_rank_environment() -> None:
    """Set what `accelerate launch` sets for one process under ZeRO 0."""
    launch = Path(__file__).resolve().parent.parent / "launch"
    os.environ |= {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(launch / "zero0.json"),
        "ACCELERATE_MIXED_PRECISION": "no",
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


def _bare(model: Any, batches: Any, **options: Any) -> Callable[[int], None]:
    import torch
    from torch.nn import functional as F

    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, **options)
    step = 0

    def train(steps: int) -> None:
        nonlocal step
        for _ in range(steps):
            inputs, targets = (torch.from_numpy(array) for array in batches.batch(step))
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            float(loss.detach())
            step += 1

    return train


def _here(shape: Any, batches: Any, accelerator: Any, compiled: bool = False) -> Callable[[int], None]:
    import torch

    from amscale import models
    from amscale.config import TrainSettings
    from amscale.training import compiling, engine
    from amscale.training.bookkeeping import Bookkeeping
    from amscale.training.checkpoint import Progress
    from amscale.training.loop import Run, train
    from amscale.training.loss import Evaluation

    torch.manual_seed(0)
    settings = TrainSettings(steps=10**6, validate_every=10**6)
    prepared, optimiser = engine.prepare(accelerator, models.build(shape), settings, SEQUENCES)
    if compiled:
        compiling.compile_network(prepared.module, PLACEMENT, suppress=False)
    given: dict[str, Any] = {
        "accelerator": accelerator, "engine": prepared, "optimizer": optimiser, "settings": settings, "steps": 10**6,
        "seed": 0, "batches": batches, "validation": Evaluation(batches.data, 1, 1), "micro_batch": SEQUENCES,
        "validate_every": 10**6,
        "accumulation": 1, "probe": None, "probe_every": 0, "store": None, "checkpoint_every": 10**6,
        "keep_checkpoints": 1, "records": None, "preemption_requested": lambda: False,
        "books": Bookkeeping(60), "measures_grace": False,
    }  # fmt: skip
    run = Run(**{name: value for name, value in given.items() if name in Run.__dataclass_fields__})
    progress = Progress()

    def steps(count: int) -> None:
        train(replace(run, steps=progress.step + count), progress)

    return steps


def measure(size: str, rounds: int, steps: int, only: str | None, compiled: bool) -> None:
    """Print one size's tokens per second and ratios, and its row."""
    import numpy as np
    import torch
    from plain_gpt import PlainGPT

    from amscale import models
    from amscale.data import Batches, Subset
    from amscale.models.families.gpt2 import GPT2Settings
    from amscale.settings import format_size
    from amscale.training import engine

    shape = models.solve(GPT2Settings(size=size, dropout=0.0), VOCABULARY, CONTEXT)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 400_000).astype(np.uint16)
    subset = _subset(Subset, tokens)
    batches = Batches(subset, CONTEXT, SEQUENCES, 0)
    sides: dict[str, Callable[[int], None]] = {"here": _here(shape, batches, _accelerator(engine))}
    if only != "here":
        torch.manual_seed(0)
        sides["bare"] = _bare(models.build(shape), batches, fused=True)
        network = PlainGPT(shape.layers, shape.width, shape.heads, VOCABULARY, CONTEXT)
        sides["small"] = _bare(network, batches)
    if compiled:
        sides["here, compiled"] = _here(shape, batches, _accelerator(engine), compiled=True)
        network = PlainGPT(shape.layers, shape.width, shape.heads, VOCABULARY, CONTEXT)
        sides["small, compiled"] = _bare(torch.compile(network), batches)
    for train in sides.values():
        train(3)
    wall: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, train in sides.items():
            before, used = time.perf_counter(), time.process_time()
            train(steps)
            wall[name].append(time.perf_counter() - before)
            processor[name].append(time.process_time() - used)
    trained = steps * SEQUENCES * CONTEXT
    print(f"\nN = {format_size(shape.parameters.under('non_embedding'))}, {shape.describe()}, {steps} steps a round")
    for name in sides:
        print(
            f"  {name:15} {trained / statistics.median(wall[name]):10,.0f} tokens/s, "
            f"{1e3 * statistics.median(processor[name]) / steps:8.2f} ms of processor time a step"
        )
    for other in [name for name in sides if name != "here"]:
        for kind, seconds in (("wall", wall), ("processor", processor)):
            ratios = sorted(b / a for a, b in zip(seconds["here"], seconds[other], strict=True))
            middle = statistics.median(ratios)
            print(f"  here / {other:15} by {kind:9} time: {middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    if only == "here":
        return
    best = ", the better of compiled and not" if compiled else ""
    for kind, seconds in (("wall", wall), ("processor", processor)):
        ours, theirs = (
            [min(times) for times in zip(*(seconds[n] for n in sides if n.startswith(start)), strict=True)]
            for start in ("here", "small")
        )
        Row(
            f"tokens/s of {kind} time, GPT-2 of {size}, here / a small GPT-2{best}",
            middle_of([trained / each for each in ours], "/s"),
            middle_of([trained / each for each in theirs], "/s"),
            [b / a for a, b in zip(ours, theirs, strict=True)],
            "1.2",
        ).print()


_made: list[Any] = []


def _accelerator(engine: Any) -> Any:
    if not _made:
        _made.append(engine.start_accelerator(PLACEMENT))
    return _made[0]


def _subset(cls: Any, tokens: Any) -> Any:
    import numpy as np

    return cls(tokens=tokens, offsets=np.array([0, len(tokens)]), packing="stream", end_token=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="140k,1.07M,7.6M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", default="40,20,6", help="steps of a round, for each size")
    parser.add_argument("--compiled", action="store_true", help="both sides once more, compiled")
    parser.add_argument("--only", choices=["here"], help="leave the other sides out, to profile")
    options = parser.parse_args()
    set_rank_environment()
    for size, steps in zip(options.sizes.split(","), options.steps.split(","), strict=False):
        measure(size, options.rounds, int(steps), options.only, options.compiled)


if __name__ == "__main__":
    main()
