"""Run the benchmarks of docs/performance.md one after the other, and print one table: `make bench`.

    python benchmarks/all.py [--only fit_speed,nearest_neighbours]

Under 30 minutes on 2 free cores. Each benchmark runs both of its sides in alternation; one that is over its time, or
has no other side to run (faiss, say), is named and the others go on.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from rows import Row, read

_FOLDER = Path(__file__).resolve().parent
_BENCHMARKS: dict[str, tuple[list[str], int]] = {
    "fit_speed": (["--rounds", "2"], 180),
    "nearest_neighbours": ([], 180),
    "step_speed": (["--rounds", "3"], 420),
    "probe_cost": ([], 180),
    "packing": ([], 300),
    "sweep_overhead": (["--trials", "24"], 600),
    "sweep_overhead ": (["--quick"], 420),
}
"""Arguments, and the most seconds of each; a space sets a second run of one apart."""
_RATIO = re.compile(r"^ *(.+?) by wall +time: ([\d.]+) \(([\d.]+) to ([\d.]+)\)$", re.MULTILINE)
"""How benchmarks that print no rows print their ratios."""


def main() -> int:
    """Run them, print the table; return 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join({name.strip(): None for name in _BENCHMARKS}))
    chosen = parser.parse_args().only.split(",")
    found: list[Row] = []
    failed: list[str] = []
    for name, (arguments, most) in _BENCHMARKS.items():
        if name.strip() not in chosen:
            continue
        script = _FOLDER / f"{name.strip()}.py"
        if not script.is_file():
            failed.append(f"{script.name} is not here")
            continue
        print(f"\n{script.name} {' '.join(arguments)}", flush=True)
        began = time.monotonic()
        try:
            ran = subprocess.run(
                [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True, check=False, timeout=most
            )
        except subprocess.TimeoutExpired:
            failed.append(f"{script.name}: more than {most} s")
            continue
        print(ran.stdout, end="", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        if ran.returncode:
            failed.append(f"{script.name}: exit status {ran.returncode}")
        found += read(ran.stdout) or [
            Row(f"{script.stem}: {what}", "", "", [float(value) for value in values], "")
            for what, *values in _RATIO.findall(ran.stdout)
        ]
    _print_table([("row", "ours", "theirs", "ratio", "spread", "goal"), *(row.cells() for row in found)])
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
