"""Give damaged inputs by the thousand to the functions that commands call.

Configurations, specs, metrics, checkpoints, tables, texts and tokenizers, the environment, and what outside programs
answer; standard output has another encoding each time.

    python tests/fuzz.py --examples 10000 --seed 0
    python tests/fuzz.py --seed 0 --only 1234          # one example again, with the traceback of what it broke

Each kind of failure is printed once, with the number of an example. The exit status is 1 if there was any.
"""

import argparse
import collections
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

TARGETS = ("configuration", "spec", "metrics", "checkpoint", "table", "text", "environment", "program")
_FULL = 100
"""One example in so many runs all of fit and report."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one example")
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"}
    from helpers.fuzzing.checks import Broken
    from helpers.fuzzing.targets import Targets

    broken: collections.Counter[str] = collections.Counter()
    ran: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        targets = Targets(Path(temporary))
        targets.check_undamaged()
        for number in range(options.examples) if options.only is None else [options.only]:
            target = TARGETS[number % len(TARGETS)]
            if target not in options.targets:
                continue
            ran[target] += 1
            try:
                rng = random.Random(f"{options.seed}-{number}")
                targets.run(target, rng, full=number // len(TARGETS) % _FULL == _FULL - 1)
            except Broken as failure:
                cause = failure.__cause__ or failure
                where = traceback.extract_tb(cause.__traceback__)
                own = [frame for frame in where if "/amscale/" in frame.filename] or where
                kind = f"{target}: {Path(own[-1].filename).name}:{own[-1].lineno}: {failure}"[:400]
                key = f"{target}: {own[-1].filename}:{own[-1].lineno}: {type(cause).__name__}"
                if not broken[key]:
                    print(f"example {number}: {kind}", flush=True)
                broken[key] += 1
                if options.only is not None:
                    traceback.print_exception(cause)
    seconds = time.monotonic() - began
    counts = ", ".join(f"{count} {target}" for target, count in ran.items())
    print(
        f"{sum(ran.values())} examples ({counts}), seed {options.seed}: {sum(broken.values())} broken, {seconds:.0f} s"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
