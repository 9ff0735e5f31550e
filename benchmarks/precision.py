"""Hold every precision and ZeRO stage against fp32 on one process, on CPUs.

    python benchmarks/precision.py [--quick]

Trains one small model for 60 steps under each precision, stage, number of processes and accumulation, as a sweep starts
trials; then once more, killed (SIGKILL) after its first checkpoint and continued. Prints the largest difference of a
training loss from the first line's, and whether the continued run gave the same losses bit for bit. Exits with 1 if a
loss differs by more than 0.003 nats, or a continued run in any bit. There are 28 lines, and 7 with `--quick`: one
process, no accumulation.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from trial import run

from amscale.planning.single_trial import SingleTrial

CONFIGURATION = """
name: precision
model: {family: vanilla, layers: 1, width: 16, heads: 2, dropout: 0.0}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {steps: 60, batch_tokens: 1600, learning_rate: 5e-3, validate_every: 20, validation_tokens: 2k}
probes: {sequences: 0}
launch: {device: cpu, checkpoint_every: 20}
"""
# Batches have 80 sequences: by processes, the micro-batches of 1 pass a step and of 8 or 9.
MICRO_BATCHES = {1: (80, 9), 2: (40, 5)}
ENGINES = [("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3), ("bf16", 1), ("bf16", 2), ("bf16", 3)]
MOST = 0.003


def losses(storage: Path) -> list[float]:
    """Return the training losses of the only trial."""
    (path,) = storage.glob("precision/trials/*/metrics.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]


def at_a_checkpoint(trial: SingleTrial) -> bool:
    """Return whether the trial has written its first checkpoint."""
    return (trial.sweep.trial(trial.plan.label).checkpoints / "step_000000020").is_dir()


def main(quick: bool) -> int:
    """Print one line an engine; return the exit status."""
    failed = 0
    reference: list[float] = []
    print(f"{'engine':>10} {'processes':>9} {'passes':>6} {'largest difference, nats':>25}  continued after SIGKILL")
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "precision.yaml"
        configuration.write_text(CONFIGURATION)
        for processes, micro_batches in list(MICRO_BATCHES.items())[: 1 if quick else None]:
            for micro_batch in micro_batches[: 1 if quick else None]:
                for precision, stage in ENGINES:
                    settings = [f"launch.precision={precision}", f"launch.zero_stage={stage}"]
                    settings += [f"launch.micro_batch={micro_batch}", f"launch.processes_per_machine={processes}"]
                    calm, killed = (Path(folder) / f"{name}-{os.urandom(4).hex()}" for name in ("calm", "killed"))
                    run(configuration, [*settings, f"storage={calm}"])
                    run(configuration, [*settings, f"storage={killed}"], kill=at_a_checkpoint)
                    interrupted = not list(killed.glob("precision/trials/*/result.json"))
                    run(configuration, [*settings, f"storage={killed}"])
                    reference = reference or losses(calm)
                    largest = max(abs(a - b) for a, b in zip(losses(calm), reference, strict=True))
                    same = losses(killed) == losses(calm)
                    failed |= largest > MOST or not same or not interrupted
                    ending = "the same in every bit" if same else "DIFFERENT"
                    passes = -(-80 // (processes * micro_batch))
                    print(
                        f"{precision + ' ZeRO ' + str(stage):>11} {processes:>9} {passes:>6} {largest:>25.5f}  "
                        f"{ending if interrupted else 'not interrupted in time'}",
                        flush=True,
                    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main("--quick" in sys.argv))
