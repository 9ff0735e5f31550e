"""Hold the planner's memory estimate against what trials take: a grid of stages, sizes, micro-batches and processes.

    python benchmarks/memory.py [--stages 0,1,2,3] [--sizes 1M,4M,12M] [--micro-batches 1,4,16] [--processes 1,2]
                                [--context 128] [--vocabulary 8192] [--settings "launch.precision=bf16 …"] [--steps 3]

Each trial is started as a sweep starts it (on CPUs by a warm server) and trains a few steps on random tokens. The
measured peak is that of `result.json`: what training takes beyond the process before there is a model.
Printed for each: estimate and measurement in MB, their ratio, and the parts of the estimate.
"""

import argparse
import os
import statistics
import tempfile
from itertools import product
from pathlib import Path

from trial import run

EXPERIMENT = """
name: memory
grid: {{model.size: [1M]}}
model: {{family: gpt2, count: total, dropout: 0.0}}
data: {{corpus: random_tokens, vocabulary: {vocabulary}, sequence_length: {context}, sequences: 600, validation: 50}}
train: {{steps: {steps}, batch_tokens: {batch}, learning_rate: 1e-3, validate_every: 1000, validation_tokens: 1k}}
launch: {{device: {device}, precision: {precision}, checkpoint_every: 1000}}
probes: {{every: 0, sequences: 0}}
"""


def measure(config: Path, settings: list[str]) -> None:
    """Train one trial, and print its estimate beside its measurement."""
    trial = run(config, settings)
    placement = trial.plan.placement
    result = trial.sweep.trial(trial.plan.label).read_result()
    assert result is not None
    estimate, measured = trial.plan.memory, result.memory.training_bytes
    assert measured is not None, "this system does not tell a process's private memory"
    RATIOS.append(estimate.training / measured)
    before = result.memory.before_model_bytes or 0
    print(
        f"{placement.zero_stage:>5} {placement.world_size:>9} {trial.plan.shape.parameters.total:>12,} "
        f"{placement.micro_batch:>11} {estimate.training / 1e6:>10.1f} {measured / 1e6:>10.1f} {RATIOS[-1]:>6.2f}   "
        f"states {estimate.states / 1e6:.1f}, activations {estimate.activations / 1e6:.1f}, "
        f"buffers {estimate.buffers / 1e6:.1f}; "
        f"before the model {before / 1e6:.0f}",
        flush=True,
    )


RATIOS: list[float] = []


def main() -> None:
    """Measure every cell of the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="0,1,2,3")
    parser.add_argument("--sizes", default="1M,4M,12M")
    parser.add_argument("--micro-batches", default="1,4,16")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--accumulation", type=int, default=2, help="forward passes of a step")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--settings", default="", help="further key=value, separated by spaces")
    given = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    print("stage processes   parameters micro-batch   estimate   measured  ratio")
    with tempfile.TemporaryDirectory() as folder:
        axes = (given.sizes, given.micro_batches, given.processes, given.stages)
        for size, micro_batch, processes, stage in product(*(axis.split(",") for axis in axes)):
            if stage == "0" and given.precision == "bf16":
                continue
            config = Path(folder) / "memory.yaml"
            batch = int(micro_batch) * int(processes) * given.accumulation * given.context
            values = {**vars(given), "batch": batch}
            config.write_text(EXPERIMENT.format(**values), encoding="utf-8")
            cell = [f"model.size={size}", f"launch.micro_batch={micro_batch}", f"launch.zero_stage={stage}"]
            cell += [f"launch.processes_per_machine={processes}", f"storage={folder}/{stage}-{processes}-{micro_batch}"]
            measure(config, cell + given.settings.split())
    print(f"ratio: least {min(RATIOS):.2f}, median {statistics.median(RATIOS):.2f}, greatest {max(RATIOS):.2f}")


if __name__ == "__main__":
    main()
