"""Imports without the trackers that DeepSpeed and Ray import where they are installed: a second each, and threads.

    python -m amscale.cluster.without_trackers MODULE [ARGUMENT …]

runs a module as `python -m MODULE` does, in a process that needs no tracker at all: the launcher of a trial, which
imports DeepSpeed. Its ranks are processes of their own, and find their trackers as ever.
"""

import contextlib
import runpy
import sys
from collections.abc import Iterator

_TRACKERS = ("clearml", "comet_ml", "mlflow", "trackio", "wandb")


@contextlib.contextmanager
def without_trackers() -> Iterator[None]:
    """Let imports find no tracker that is not imported already; afterwards they find them as ever."""
    hidden = [name for name in _TRACKERS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: there is no such module
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


if __name__ == "__main__":
    del sys.argv[0]
    with without_trackers():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
