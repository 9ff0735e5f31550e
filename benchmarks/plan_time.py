"""Hold the time that a plan gives for its trials against the time that they take: `plan --calibrate`, then the sweep.

    python benchmarks/plan_time.py

Three sweeps beside the quick one, which `sweep_overhead.py --quick` runs: trials of seconds, GPT-2 of several sizes,
and trials of two minutes, of which the share of the slots' time that was steps is printed too. Each plan is that of
a machine that has run nothing yet. It measures the machine as it is then, so that the ratio says little where the
machine's load changes.
"""

import tempfile
from pathlib import Path

from rows import Row
from sweep_overhead import run_planned

_LONG = "two minutes"
_SWEEPS = {
    "seconds": """
name: seconds
grid: {model.size: [1_700, 6_600, 25k], data.size: [4k, 16k], seed: [0, 1]}
model: {family: vanilla, layers: 2}
data: {corpus: question_formation, documents: 4k, validation: 200}
train: {steps: 500, batch_tokens: 512}
""",
    "GPT-2s of three sizes": """
name: sizes
grid: {model.size: [100k, 300k, 1M], seed: [0, 1]}
model: {family: gpt2, dropout: 0.0}
data: {corpus: question_formation, documents: 4k, validation: 200, size: 16k}
train: {steps: 100, batch_tokens: 2048}
""",
    _LONG: """
name: minutes
grid: {model.size: [1M], seed: [0, 1, 2, 3]}
model: {family: gpt2, dropout: 0.0}
data: {corpus: question_formation, documents: 4k, validation: 200, size: 16k}
train: {steps: 300, batch_tokens: 2048}
""",
}


def main() -> None:
    """Print a row for each sweep."""
    for name, text in _SWEEPS.items():
        with tempfile.TemporaryDirectory() as folder:
            configuration = Path(folder) / "plan.yaml"
            configuration.write_text(text, encoding="utf-8")
            expected, found = run_planned(str(configuration), [])
        row = f"trials of {name} / their plan"
        ours, theirs = f"{found.between:.0f} s", f"{expected:.0f} s"
        Row(row, ours, theirs, [found.between / expected], "0.75 to 1.25").print()
        if name == _LONG:
            Row(f"share of the slots' time in steps, trials of {_LONG}", "", "", [found.share], "0.9", "").print()


if __name__ == "__main__":
    main()
