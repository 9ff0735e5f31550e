"""Measure trials an hour of a sweep whose rows are packed, against the same sweep with one process a trial.

    python benchmarks/packing.py [--sizes 6.6k,25k,100k] [--steps 300] [--batch 512] [--rounds 2]

Each round runs the sweep with launch.pack=off and with launch.pack=auto, one after the other, through the command, with
warm starts on both sides. The time is from the first attempt's beginning to the last result, so that neither Ray's
start nor the fit count; the ratio is that of trials an hour within a round. 8 trials a size: four D, two seeds.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = """
name: packing
grid: {{model.size: [{sizes}], data.size: [8k, 12k, 20k, 40k], seed: [0, 1]}}
model: {{family: vanilla, layers: 2, dropout: 0.0}}
data: {{corpus: question_formation, documents: 3k, validation: 200}}
train: {{steps: {steps}, batch_tokens: {batch}, learning_rate: 5e-3, validate_every: 100, validation_tokens: 4k}}
probes: {{every: 0, sequences: 16}}
launch: {{device: cpu}}
"""


def seconds(config: Path, storage: Path, pack: str) -> float:
    """Run the sweep; return the seconds from the first attempt's beginning to the last result."""
    command = [sys.executable, "-m", "amscale.sweep", str(config), f"storage={storage}", f"launch.pack={pack}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    trials = list((storage / "packing" / "trials").iterdir())
    began = min((trial / "start").stat().st_mtime for trial in trials)
    return max((trial / "result.json").stat().st_mtime for trial in trials) - began


def main() -> None:
    """Print each round's seconds, and the median ratio with its least and greatest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="6.6k,25k,100k")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=512, help="tokens of a step")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "packing.yaml"
        config.write_text(CONFIG.format(sizes=given.sizes, steps=given.steps, batch=given.batch), encoding="utf-8")
        for number in range(given.rounds):
            took = {pack: seconds(config, Path(folder) / f"{number}-{pack}", pack) for pack in ("off", "auto")}
            ratios.append(took["off"] / took["auto"])
            print(
                f"alone {took['off']:.1f} s, packed {took['auto']:.1f} s: {ratios[-1]:.2f} times as many trials an hour"
            )
    print(f"packed / alone: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
