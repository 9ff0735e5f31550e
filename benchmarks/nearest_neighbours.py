"""Time the exact nearest neighbours within one set of points, and faiss's exact flat index on the same points.

    python benchmarks/nearest_neighbours.py [--points 20000] [--width 1024] [--rounds 3] [--faiss PYTHON]

faiss is no dependency of amscale: PYTHON is the interpreter of an environment that has faiss-cpu, and runs it as a
process of its own with as many threads. Both are timed without imports and without making the points. amscale's side
also finds exact duplicates.
"""

import argparse
import json
import os
import subprocess
import sys

from rows import Row, middle

_OURS = """
import json, sys, time
import numpy as np, torch
from amscale.hopfield.neighbours import nearest_neighbours
points, width, seed, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
x = torch.from_numpy(np.random.default_rng(seed).normal(size=(points, width)).astype("float32"))
nearest_neighbours(x[:500])
began, used = time.perf_counter(), time.process_time()
found = nearest_neighbours(x)
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - used,
                  "mean": float(found.distance_U.mean())}))
"""
_FAISS = """
import json, sys, time
import numpy as np, faiss
points, width, seed, threads = map(int, sys.argv[1:])
faiss.omp_set_num_threads(threads)
x = np.random.default_rng(seed).normal(size=(points, width)).astype("float32")
began, used = time.perf_counter(), time.process_time()
index = faiss.IndexFlatL2(width)
index.add(x)
squared, _ = index.search(x, 2)
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - used,
                  "mean": float(np.sqrt(squared[:, 1]).mean())}))
"""


def main() -> None:
    """Run both in alternation and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--faiss", metavar="PYTHON", default=os.environ.get("FAISS_PYTHON", sys.executable))
    options = parser.parse_args()
    command = [str(options.points), str(options.width)]
    sides = {"amscale": (sys.executable, _OURS), "faiss": (options.faiss, _FAISS)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for round_ in range(options.rounds):
        for name in list(sides)[:: 1 if round_ % 2 == 0 else -1]:
            python, text = sides[name]
            arguments = [python, "-c", text, *command, str(round_), str(options.threads)]
            ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if ran.returncode:
                sys.exit(f"{name}: {ran.stderr.strip().splitlines()[-1]}")
            found[name].append(json.loads(ran.stdout))
        ours, theirs = found["amscale"][-1], found["faiss"][-1]
        print(
            f"round {round_ + 1}: amscale {ours['seconds']:.2f} s ({ours['cpu']:.2f} s of processor time), "
            f"faiss {theirs['seconds']:.2f} s ({theirs['cpu']:.2f}); mean distance {ours['mean']:.6f}, "
            f"{theirs['mean']:.6f}",
            flush=True,
        )
    pairs = list(zip(found["amscale"], found["faiss"], strict=True))
    for key, words in (("seconds", "wall time"), ("cpu", "processor time")):
        Row(
            f"nearest neighbours, {options.points:,} x {options.width}, {words}",
            middle([ours[key] for ours, _ in pairs], "s"),
            middle([theirs[key] for _, theirs in pairs], "s of faiss"),
            [ours[key] / theirs[key] for ours, theirs in pairs],
            "at most 1",
        ).print()


if __name__ == "__main__":
    main()
