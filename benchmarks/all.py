"""Run the benchmarks of docs/performance.md one after the other, and print one table: `make bench`.

    python benchmarks/all.py [--only fit_speed,nearest_neighbours]

Under 30 minutes on 2 free cores. Each benchmark runs both of its sides in alternation; one that fails or is over its
time is named, what it had measured by then is kept, and the others go on.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rows import Row, read

_FOLDER = Path(__file__).resolve().parent
_BENCHMARKS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("fit_speed", ("--rounds", "2"), 180),
    ("nearest_neighbours", (), 180),
    ("step_speed", ("--rounds", "3"), 300),
    ("step_speed", ("--compiled", "--rounds", "3", "--sizes", "142k,1.04M"), 420),
    ("evaluation_share", (), 240),
    ("packing", ("--rounds", "1"), 240),
    ("plan_time", (), 240),
    ("sweep_overhead", ("--trials", "24"), 480),
    ("sweep_overhead", ("--quick",), 300),
)
"""Names, arguments, and the most seconds of each."""
_RATIO = re.compile(r"^ *(.+?) by wall +time: ([\d.]+) \(([\d.]+) to ([\d.]+)\)$", re.MULTILINE)
"""How benchmarks that print no rows print their ratios."""
_END_SECONDS = 30.0


def main() -> int:
    """Run them, print the table; return 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(name for name, _, _ in _BENCHMARKS))
    parser.add_argument("--only", default=",".join(names), help=f"of {', '.join(names)}")
    chosen = parser.parse_args().only.split(",")
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"--only: {unknown[0]!r} is none of {', '.join(names)}")
    found: list[Row] = []
    failed: list[str] = []
    for name, arguments, most in _BENCHMARKS:
        if name not in chosen:
            continue
        print(f"\n{name}.py {' '.join(arguments)}", flush=True)
        began = time.monotonic()
        output, failure = _run([sys.executable, str(_FOLDER / f"{name}.py"), *arguments], most)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        if failure:
            failed.append(f"{name}.py {' '.join(arguments)}: {failure}")
        found += read(output) or [
            Row(f"{name}: {what}", "", "", [float(value) for value in values], "")
            for what, *values in _RATIO.findall(output)
        ]
    _print_table([("row", "ours", "theirs", "ratio", "spread", "goal"), *(row.cells() for row in found)])
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def _run(command: Sequence[str], most: float) -> tuple[str, str]:
    """Run a benchmark; return what it printed, and why it failed, empty where it did not.

    It has a session of its own: one that is over its time is ended with the sweeps that it has started.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, start_new_session=True)
        try:
            status = process.wait(most)
            failure = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failure = f"more than {most:.0f} s"
            os.killpg(process.pid, signal.SIGTERM)  # a sweep ends its trials and its Ray then
            try:
                process.wait(_END_SECONDS)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        text = output.read()
    print(text, end="", flush=True)
    return text, failure


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
