"""Measure training on one GPU: tokens per second, MFU and peak memory, beside plain PyTorch. Ends within 8 minutes.

    python benchmarks/gpu.py                         GPT-2 124M at context 1024, Llama 1B at 2048, in bf16; no network
    python benchmarks/gpu.py --device cpu --tiny     the same code on models of no size, to see that it runs

- *here*: a whole trial as a sweep starts one (`accelerate launch`, DeepSpeed, the loop, its records), of random tokens;
  *here+compile* is that with `train.compile=true`.
- *plain*: for GPT-2 the network of plain_gpt.py, for Llama the network of the trial, in the shortest loop that trains
  it: bf16 by autocast, fused AdamW, the same micro-batches. *compiled* is that under torch.compile.

Each side is a process of its own, one after the other. The first steps do not count. MFU is FLOPs per token · tokens
per second / peak of the card, as in results (`amscale/cluster/cards.py`). Peak memory is the most that nvidia-smi shows
of the whole card (on a CPU: of one process), in a look every half second.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WHOLE_SECONDS = 460.0
"""After which no side is started or goes on."""
SIDES = {"gpt2": ("here", "here+compile", "plain", "compiled"), "llama": ("here", "plain")}
FULL: dict[str, dict[str, dict[str, Any]]] = {
    "gpt2": {
        "model": {"family": "gpt2", "size": "small", "dropout": 0.0},
        "data": {"vocabulary": 50256, "sequence_length": 1024, "sequences": 5000, "validation": 100},
        "train": {"steps": 36, "batch_tokens": 491520},
    },
    "llama": {
        "model": {"family": "hub", "architecture": "llama", "size": "1B"},
        "data": {"vocabulary": 32000, "sequence_length": 2048, "sequences": 2000, "validation": 50},
        "train": {"steps": 24, "batch_tokens": 131072},
    },
}
TINY: dict[str, dict[str, dict[str, Any]]] = {
    "gpt2": {
        "model": {"family": "gpt2", "layers": 2, "width": 32, "heads": 2, "dropout": 0.0},
        "data": {"vocabulary": 64, "sequence_length": 32, "sequences": 200, "validation": 20},
        "train": {"steps": 6, "batch_tokens": 256},
    },
    "llama": {
        "model": {"family": "hub", "architecture": "llama", "size": "20k"},
        "data": {"vocabulary": 64, "sequence_length": 32, "sequences": 200, "validation": 20},
        "train": {"steps": 6, "batch_tokens": 256},
    },
}
WARM = 0.3
"""Share of the steps that do not count: kernels are chosen and compiled in the first ones."""


@dataclass(frozen=True)
class Measured:
    """What one side did."""

    model: str
    side: str
    tokens_per_second: float
    spread: tuple[float, float]
    """Tokens per second of the slowest and the fastest step."""
    mfu: float | None
    peak_bytes: int
    estimated_bytes: float
    """By the plan, of the side `here`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models of some thousand parameters, some steps")
    parser.add_argument("--models", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--sides", nargs="+", choices=SIDES["gpt2"], default=SIDES["gpt2"])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plain", help=argparse.SUPPRESS)  # how this file starts a plain side
    options = parser.parse_args()
    if options.plain:
        _train_plainly(**json.loads(options.plain))
        return 0
    deadline = time.monotonic() + WHOLE_SECONDS
    found = []
    chosen = [(model, side) for model in options.models for side in SIDES[model] if side in options.sides]
    for model, side in chosen:
        try:
            measured = measure(model, side, options.device, options.tiny, deadline)
        except (subprocess.SubprocessError, RuntimeError) as error:
            print(f"{model:6} {side:12} no figure: {error}", flush=True)
            continue
        print(_line(measured), flush=True)
        found.append(measured)
    if options.device == "cpu":
        print("measured on a CPU: unmeasured on a GPU")
    if options.json:
        options.json.write_text(json.dumps([vars(one) for one in found], indent=1))
    return 0 if len(found) == len(chosen) else 1


def _line(found: Measured) -> str:
    mfu = "MFU unknown" if found.mfu is None else f"MFU {found.mfu:.1%}"
    estimate = f", estimated {found.estimated_bytes / 1e9:.1f}" if found.side.startswith("here") else ""
    return (
        f"{found.model:6} {found.side:12} {found.tokens_per_second:12,.0f} tokens/s ({found.spread[0]:,.0f} to "
        f"{found.spread[1]:,.0f}), {mfu}, at most {found.peak_bytes / 1e9:.1f} GB{estimate}"
    )


def measure(model: str, side: str, device: str, tiny: bool, deadline: float) -> Measured:
    """Train with one side in processes of its own.

    Raises:
        RuntimeError: it failed.
        subprocess.TimeoutExpired: the time was up.
    """
    from amscale import models
    from amscale.cluster.cards import Utilisation, peak_flops
    from amscale.cluster.environment import rank_environment
    from amscale.cluster.gpus import find_gpus
    from amscale.cluster.machine import launch_command
    from amscale.cluster.network import LOOPBACK
    from amscale.planning.single_trial import plan_single_trial

    card = find_gpus().gpus[0] if device == "cuda" else None
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "speed.yaml")
        configuration.write_text(yaml.safe_dump(_experiment(model, device, tiny, side == "here+compile")))
        trial = plan_single_trial(str(configuration), [f"storage={folder}"])
        placement, shape = trial.plan.placement, trial.plan.shape
        environment = rank_environment(placement)
        if side.startswith("here"):
            store = trial.sweep.trial(trial.plan.label)
            trial.write(store)
            peak = _run(
                launch_command(placement, [str(store.spec)], rank=0, address=LOOPBACK, port=0),
                environment,
                card,
                deadline,
            )
            steps = [json.loads(line) for line in store.metrics.read_text().splitlines()]
            times = [(step["tokens"], step["time"]) for step in steps if step["kind"] == "train"]
        else:
            output = Path(folder, "steps.json")
            asked = {"configuration": str(configuration), "storage": folder, "compiled": side == "compiled"}
            line = [sys.executable, __file__, "--plain", json.dumps({**asked, "output": str(output)})]
            peak = _run(line, environment, card, deadline)
            times = json.loads(output.read_text())
    times = times[int(WARM * len(times)) :]
    speeds = [(b[0] - a[0]) / max(b[1] - a[1], 1e-3) for a, b in itertools.pairwise(times)]
    tokens, seconds = times[-1][0] - times[0][0], times[-1][1] - times[0][1]
    most = None if card is None else peak_flops(card.name)
    mfu = None if most is None else Utilisation(most, models.flops_per_token(shape), 1).mfu(tokens, seconds)
    return Measured(model, side, tokens / seconds, (min(speeds), max(speeds)), mfu, peak, trial.plan.memory.total)


def _experiment(model: str, device: str, tiny: bool, compiled: bool) -> dict[str, Any]:
    given = (TINY if tiny else FULL)[model]
    return {
        "name": "speed",
        "grid": {"seed": [0]},
        "model": given["model"],
        "data": {"corpus": "random_tokens", **given["data"]},
        # Validated once, at the end, on little.
        "train": {
            "learning_rate": 3e-4, "validate_every": 10**6, "validation_tokens": 1000, "compile": compiled,
            **given["train"],
        },
        "probes": {"every": 0, "sequences": 0},
        "launch": {
            "device": device, "precision": "bf16", "machines": 1, "processes_per_machine": 1,
            "checkpoint_every": 10**6,
        },
    }  # fmt: skip


def _run(line: list[str], environment: dict[str, str], card: Any, deadline: float) -> int:
    """Run a command to its end; return the most bytes of memory that were seen in use."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise RuntimeError("no time was left")
    path = [str(Path(__file__).parents[1]), *filter(None, [environment.get("PYTHONPATH")])]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            line,
            env={**environment, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with _watched(process.pid, card) as peak:
            try:
                process.wait(left)
            except subprocess.TimeoutExpired:
                _end(process)
                raise
        log.seek(0)
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}: {log.read()[-1500:]}")
        return peak()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started: ranks have sessions of their own."""
    import psutil

    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


@contextmanager
def _watched(root: int, card: Any) -> Iterator[Callable[[], int]]:
    """Look at the memory in use twice a second while the block runs; give the most that was seen."""
    import psutil

    seen, over = [0], threading.Event()

    def look() -> int:
        if card is not None:
            query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={card.uuid}"]
            return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
        process = psutil.Process(root)
        return max(each.memory_info().rss for each in [process, *process.children(recursive=True)])

    def watch() -> None:
        while not over.wait(0.5):
            # A process has just ended, or the driver did not answer once.
            with contextlib.suppress(psutil.NoSuchProcess, subprocess.CalledProcessError, ValueError):
                seen.append(look())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(seen)
    finally:
        over.set()
        watcher.join()


def _train_plainly(configuration: str, storage: str, compiled: bool, output: str) -> None:
    """Train the trial's network, or the plain GPT-2, on the trial's batches; write tokens and seconds of each step."""
    import numpy as np
    import torch
    from plain_gpt import PlainGPT
    from torch.nn import functional as F

    from amscale import models
    from amscale.data import Batches
    from amscale.planning.single_trial import plan_single_trial

    trial = plan_single_trial(configuration, [f"storage={storage}"])
    shape, placement, steps = trial.plan.shape, trial.plan.placement, trial.plan.step_plan
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    if shape.family == "gpt2":
        network: Any = PlainGPT(shape.layers, shape.width, shape.heads, shape.vocabulary, shape.context)
    else:
        network = models.build(shape)
    network = network.to(placement.device)
    run = torch.compile(network) if compiled else network
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    data = trial.plan.cell.data
    assert trial.tokens is not None
    subset = trial.tokens.training(data.size, data.packing, data.copies)
    batches = Batches(subset, steps.context, steps.sequences, 0)
    seconds, tokens, found = 0.0, 0, []
    for step in range(steps.steps):
        began = time.perf_counter()
        inputs, targets = batches.batch(step)
        for first in range(0, len(inputs), placement.micro_batch):
            part = np.s_[first : first + placement.micro_batch]
            inputs_BT, targets_BT = (torch.from_numpy(a[part]).to(placement.device) for a in (inputs, targets))
            with torch.autocast(placement.device, dtype=torch.bfloat16):
                loss = F.cross_entropy(run(inputs_BT).flatten(0, 1), targets_BT.flatten(), reduction="sum")
            (loss / targets.size).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        float(loss.detach())
        seconds += time.perf_counter() - began
        tokens += targets.size
        found.append((tokens, seconds))
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
