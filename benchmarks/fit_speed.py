"""Time `fit` of a table of points with all its estimates, from the command to its end, and until the laws are fitted.

    python benchmarks/fit_speed.py [--points 240] [--rounds 3]

Points of Chinchilla's law with noise, scattered and as a grid. Beside the whole command: the fits of all laws under all
objectives without refits, which are the point estimates.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rows import Row, middle

_FITS = """
import json, sys, time
began, used = time.perf_counter(), time.process_time()
from amscale.scaling.laws.compare import compare
from amscale.scaling.laws.law import rows_of
from amscale.scaling.table import Columns, read_table
compare(rows_of(read_table(sys.argv[1], Columns())), 0, intervals=False)
print(json.dumps([time.perf_counter() - began, time.process_time() - used]))
"""


def _points(kind: str, count: int, random: np.random.Generator) -> str:
    if kind == "grid":
        sizes, amounts = np.geomspace(4e7, 1e10, 12), np.geomspace(1e9, 2e11, count // 12)
        N, D = map(np.ravel, np.meshgrid(sizes, amounts))
    else:
        N, D = (np.exp(random.uniform(np.log(low), np.log(high), count)) for low, high in ((4e7, 1e10), (1e9, 2e11)))
    loss = (1.69 + 406.4 / N**0.34 + 410.7 / D**0.28) * np.exp(random.normal(0, 0.005, len(N)))
    return "N,D,loss\n" + "".join(f"{n:.0f},{d:.0f},{value:.6f}\n" for n, d, value in zip(N, D, loss, strict=True))


def main() -> None:
    """Print seconds of wall and of processor time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    whole: list[tuple[float, float]] = []
    first: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(options.rounds):
            for kind in ("scattered", "grid"):
                path = Path(folder) / f"{kind}{round_}.csv"
                path.write_text(_points(kind, options.points, random))
                began, used = time.perf_counter(), _children()
                subprocess.run([sys.executable, "-m", "amscale.fit", str(path)], stdout=subprocess.DEVNULL, check=True)
                whole.append((time.perf_counter() - began, _children() - used))
                command = [sys.executable, "-c", _FITS, str(path)]
                ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                first.append(tuple(json.loads(ran.stdout)))
                print(
                    f"{kind}: fit {whole[-1][0]:.1f} s ({whole[-1][1]:.1f} s of processor time), "
                    f"point estimates {first[-1][0]:.1f} s ({first[-1][1]:.1f})",
                    flush=True,
                )
    for name, seconds, goal in (("fit", whole, "at most 5 s"), ("point estimates of", first, "at most 2 s")):
        for index, kind in enumerate(("wall", "processor")):
            values = [value[index] for value in seconds]
            what = f"{name} {options.points} points, {kind} time"
            Row(what, middle(values, "s"), "", values, goal, unit="s").print()


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
