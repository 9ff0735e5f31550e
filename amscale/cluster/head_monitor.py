"""Watch the head of the driver's Ray cluster.

Without its head a cluster runs nothing new, and Ray's processes give up only after a minute, the driver in the middle
of a call into Ray and with pages of logs. So the driver looks by itself, reports in one sentence what happened, and
ends.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from amscale.cluster.network import check_reachable
from amscale.cluster.tune import Listener

_LOOK_SECONDS = 1.0
_REFUSALS = 3
"""A head that refuses connections this many times in a row is dead."""
_ANSWER_SECONDS = 30.0
"""A head that cannot be reached this long is given up: a network may come back."""


@contextmanager
def head_monitored(listener: Listener) -> Iterator[None]:
    """End this process with status 1 when the head of its Ray cluster is gone, while the block runs."""
    import ray

    address = ray.get_runtime_context().gcs_address
    over = threading.Event()
    threading.Thread(target=_monitor, args=(address, listener, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _monitor(address: str, listener: Listener, over: threading.Event) -> None:
    refused = silent = 0.0
    while not over.wait(_LOOK_SECONDS):
        try:
            check_reachable(address, _ANSWER_SECONDS / 3)
            refused = silent = 0
        except TimeoutError:
            silent += _ANSWER_SECONDS / 3
        except OSError:  # refused, or no way to the host
            refused += 1
        if refused >= _REFUSALS or silent >= _ANSWER_SECONDS:
            break
    if not over.is_set():
        listener.lost(
            f"the Ray cluster is gone: its head at {address} does not answer. Trials end by themselves within a "
            "minute; start the cluster and give the same command again to go on from their checkpoints"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        # The main thread is inside Ray, which would wait for the head; what Ray has started here ends with this one.
        os._exit(1)
