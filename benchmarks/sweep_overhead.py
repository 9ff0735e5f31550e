"""Measure what a sweep costs beside its trials: the sweep against a shell loop of the commands that its plan prints.

    python benchmarks/sweep_overhead.py [--trials 8] [--steps 1000] [--rounds 1] [--set launch.warm_starts=false …]
    python benchmarks/sweep_overhead.py --trials 24 --rounds 3
    python benchmarks/sweep_overhead.py --quick          the quick sweep alone, and its time beside its plan's

Both sides train the same small cells, as many at a time as there are cores, in alternation. Printed are

    ratio           seconds of the sweep, from the command to the end of its report, over seconds of the loop
    steps           share of the slots' time that was training steps
    first step      seconds from the start of a trial to the end of its first step; first trials, and later ones
    gap             seconds from a trial's result to the start of the next one in its slot
    before, after   seconds of the sweep before its first trial, and after its last result

What else the machine does affects both sides; read ratios.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rows import Row, middle

_SIZES = (1_700, 6_600)
_POLL_SECONDS = 0.02
_CONFIGURATION = """
model: {family: vanilla, layers: 2}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {batch_tokens: 512, validate_every: 200, validation_tokens: 2k}
probes: {sequences: 0}
"""


@dataclass
class Watched:
    """What is seen of a sweep's trials from outside while they run."""

    folder: Path
    first_steps: dict[Path, float] = field(default_factory=dict)
    """When each trial's first step ended."""
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Watched":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def trials(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("*/trials/*/spec.yaml"))

    def started(self) -> list[float]:
        """When trials started, in order."""
        return sorted(path.stat().st_mtime for path in self.folder.glob("*/trials/*/start"))

    def ended(self) -> list[float]:
        """When trials had their results, in order."""
        return sorted(path.stat().st_mtime for path in self.folder.glob("*/trials/*/result.json"))

    def step_seconds(self) -> float:
        """Seconds of training of all trials; those that one process trains together share its seconds."""
        return sum(_times(trial)[-1] / len(_together(trial)) for trial in self.trials())

    def _watch(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            for trial in self.trials():
                if trial not in self.first_steps and (times := _times(trial)):
                    # Records are written some at a time; they hold their own clock.
                    self.first_steps[trial] = time.time() - (times[-1] - times[0])


def _together(trial: Path) -> list[str]:
    """Return the trials that one process trained with this one, itself included."""
    packed = json.loads((trial / "result.json").read_text()).get("packed")
    return packed["members"] if packed else [trial.name]


def _times(trial: Path) -> list[float]:
    """Return seconds of training at each record of a step."""
    try:
        lines = (trial / "metrics.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record["time"] for record in records if record["kind"] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000, help="of a trial; 1000 take about 5 seconds")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings of the sweep's side")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        _quick(options.set)
        return
    slots = len(os.sched_getaffinity(0))
    grid = {"model.size": _SIZES, "seed": list(range(max(1, options.trials // len(_SIZES))))}
    ratios: list[float] = []
    found: list[Overhead] = []
    sides_seconds: list[tuple[float, float]] = []
    for round_ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            configuration = folder / "overhead.yaml"
            text = _CONFIGURATION.replace("train: {", f"train: {{steps: {options.steps}, ")
            configuration.write_text(f"name: overhead\ngrid: {json.dumps(grid)}\n{text}")
            loop = 0.0
            for side in ("sweep", "loop") if round_ % 2 == 0 else ("loop", "sweep"):
                if side == "sweep":
                    found.append(run_sweep(str(configuration), folder, slots, options.set))
                else:
                    loop = _loop(configuration, folder, slots)
        ratios.append(found[-1].seconds / loop)
        sides_seconds.append((found[-1].seconds, loop))
        print(
            f"round {round_ + 1}: sweep {found[-1].seconds:.0f} s, loop {loop:.0f} s, ratio {ratios[-1]:.2f}",
            flush=True,
        )
    ours, theirs = (middle([pair[index] for pair in sides_seconds], "s") for index in (0, 1))
    Row(f"sweep of {options.trials} small cells / shell loop", ours, theirs, ratios, "at most 0.5").print()
    _print_rows(found)


@dataclass(frozen=True)
class Overhead:
    """What a sweep took beside its trials' steps, in seconds."""

    seconds: float
    share: float
    """Of the slots' time, in steps."""
    later: list[float]
    """From the start of a trial to the end of its first step, the first trials left out."""
    gaps: list[float]
    before: float
    after: float

    @property
    def between(self) -> float:
        """From the first trial's start to the last one's result."""
        return self.seconds - self.before - self.after


def run_sweep(configuration: str, folder: Path, slots: int, overrides: Sequence[str]) -> Overhead:
    """Run the sweep, print and return what was seen of it."""
    storage = folder / "sweep"
    command = [sys.executable, "-m", "amscale.sweep", configuration, f"storage={storage}", *overrides]
    with Watched(storage) as seen:
        began = time.time()
        _run(command)
        seconds = time.time() - began
    started, ended = seen.started(), seen.ended()
    starts = {path.parent: path.stat().st_mtime for path in storage.glob("*/trials/*/start")}
    first = [at - starts[trial] for trial, at in sorted(seen.first_steps.items(), key=lambda item: starts[item[0]])]
    packed = any(len(_together(trial)) > 1 for trial in seen.trials())  # a pack has one start and one end
    gaps = [] if packed else [start - end for start, end in zip(started[slots:], ended, strict=False)]
    within = seen.step_seconds() / (slots * (ended[-1] - started[0]))
    found = Overhead(
        seconds=seconds,
        share=seen.step_seconds() / (slots * seconds),
        later=first[slots:],
        gaps=gaps,
        before=started[0] - began,
        after=began + seconds - ended[-1],
    )
    print(
        f"  sweep: {len(ended)} trials, steps {found.share:.0%} of the slots' time "
        f"({within:.0%} from first start to last result); "
        f"first step {_spread(first[:slots])}, later {_spread(found.later)}; gap {_spread(gaps)}; "
        f"before {found.before:.1f} s, after {found.after:.1f} s",
        flush=True,
    )
    return found


def _print_rows(found: Sequence[Overhead]) -> None:
    later, gaps = ([value for one in found for value in getattr(one, name)] for name in ("later", "gaps"))
    Row("share of the slots' time in steps, trials of seconds", "", "", [one.share for one in found], "0.6", "").print()
    for what, values, goal in (
        ("start of a later trial to its first step", later, "at most 2.5 s"),
        ("a trial's end to the next one's start", gaps, "at most 0.3 s"),
        ("before the first trial", [one.before for one in found], "at most 5 s"),
        ("after the last trial", [one.after for one in found], "at most 8 s"),
    ):
        if values:
            Row(what, middle(values, "s"), "", values, goal, "s").print()


def run_planned(configuration: str, overrides: Sequence[str]) -> tuple[float, Overhead]:
    """Run a sweep after a plan that has measured this machine; return the seconds of the plan, and what was seen."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "amscale.plan", configuration, f"storage={folder / 'sweep'}"]
        command += [*overrides, "--calibrate", "--json"]
        os.environ["AMSCALE_CACHE"] = str(folder / "cache")  # as on a machine that has run nothing
        planned = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
        found = run_sweep(configuration, folder, len(os.sched_getaffinity(0)), overrides)
    return json.loads(planned.stdout)["seconds"], found


def _quick(overrides: Sequence[str]) -> None:
    expected, found = run_planned("quick.yaml", overrides)
    seconds = found.between
    Row("the quick sweep", f"{found.seconds:.0f} s", "", [found.seconds], "at most 180 s", "s").print()
    Row("share of the slots' time in steps, quick sweep", "", "", [found.share], "0.85", "").print()
    Row(
        "trials of the quick sweep / their plan", f"{seconds:.0f} s", f"{expected:.0f} s", [seconds / expected],
        "0.75 to 1.25",
    ).print()  # fmt: skip


def _loop(configuration: Path, folder: Path, slots: int) -> float:
    """Run the commands that the plan prints, `slots` at a time; return their seconds."""
    storage = folder / "loop"
    plan = [sys.executable, "-m", "amscale.plan", str(configuration), f"storage={storage}", "--commands", "--json"]
    printed = subprocess.run(plan, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    commands = [row["command"] for row in json.loads(printed)["trials"]]
    with Watched(storage) as seen, ThreadPoolExecutor(slots) as pool:
        began = time.time()
        list(pool.map(_run, map(shlex.split, commands)))
        seconds = time.time() - began
    print(f"  loop: {len(seen.ended())} trials, steps {seen.step_seconds() / (slots * seconds):.0%} of the slots' time")
    return seconds


def _run(command: Sequence[str]) -> None:
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ran.returncode:
        sys.exit(f"exit status {ran.returncode}: {shlex.join(command)}\n{ran.stdout[-3000:]}")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})" if values else "-"


if __name__ == "__main__":
    main()
