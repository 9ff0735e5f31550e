"""A trial whose ranks are given too little memory."""

import contextlib
import resource
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from helpers.commands import ranks_of

LARGE = """
name: large
grid: {model.size: [25k]}
model: {family: vanilla, layers: 2, heads: 2, dropout: 0.0}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 20k}
train: {steps: 9, batch_tokens: 32k, learning_rate: 1e-3, validate_every: 4, validation_tokens: 500}
launch: {checkpoint_every: 3, retries: 0}
probes: {every: 0, sequences: 0}
"""


@contextmanager
def limited(folder: Path, megabytes: int, once: Callable[[], bool] = lambda: True):
    """Limit the private memory of every rank of the sweep in `folder`, as soon as `once` holds."""
    over, seen = threading.Event(), set()

    def watch():
        while not over.wait(0.05):
            for process in ranks_of(folder) if once() else ():
                if process.pid not in seen:
                    seen.add(process.pid)
                    with contextlib.suppress(ProcessLookupError):
                        resource.prlimit(process.pid, resource.RLIMIT_DATA, (megabytes * 10**6,) * 2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
