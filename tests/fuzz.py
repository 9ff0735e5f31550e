"""Damaged configurations, specs, metrics and checkpoints by the thousand, through the functions that commands call.

    python tests/fuzz.py --examples 10000 --seed 0
    python tests/fuzz.py --seed 0 --only 1234          # one example again, with the traceback of what it broke

Each failure is printed once a kind, with the number of an example. Exit status 1 if there was any.
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

ROOMS = ("configuration", "spec", "metrics", "checkpoint")
_FULL = 100
"""One example in so many goes through the whole of fit and report."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one example")
    parser.add_argument("--rooms", nargs="+", default=ROOMS, choices=ROOMS)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"}
    from helpers.fuzzing.judge import Broken
    from helpers.fuzzing.targets import Rooms

    broken: collections.Counter[str] = collections.Counter()
    ran: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        rooms = Rooms(Path(temporary))
        rooms.check_undamaged()
        for number in range(options.examples) if options.only is None else [options.only]:
            room = ROOMS[number % len(ROOMS)]
            if room not in options.rooms:
                continue
            ran[room] += 1
            try:
                chance = random.Random(f"{options.seed}-{number}")
                rooms.run(room, chance, full=number // len(ROOMS) % _FULL == _FULL - 1)
            except Broken as failure:
                cause = failure.__cause__ or failure
                where = traceback.extract_tb(cause.__traceback__)
                own = [frame for frame in where if "/amscale/" in frame.filename] or where
                kind = f"{room}: {Path(own[-1].filename).name}:{own[-1].lineno}: {failure}"[:400]
                key = f"{room}: {own[-1].filename}:{own[-1].lineno}: {type(cause).__name__}"
                if not broken[key]:
                    print(f"example {number}: {kind}", flush=True)
                broken[key] += 1
                if options.only is not None:
                    traceback.print_exception(cause)
    seconds = time.monotonic() - began
    counts = ", ".join(f"{count} {room}" for room, count in ran.items())
    print(
        f"{sum(ran.values())} examples ({counts}), seed {options.seed}: {sum(broken.values())} broken, {seconds:.0f} s"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
