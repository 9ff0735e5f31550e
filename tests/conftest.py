"""What holds for every test."""

import os
from collections import Counter


def pytest_configure():
    """Let plans rest on no measurement that another sweep of this user has left, and give each process one thread.

    Workers share the cores: threads of one that wait for each other while others compute take several times as long.
    Compiled modules are kept, whatever the shell has set: the tests start hundreds of processes, and each would compile
    amscale anew, a tenth of the time of a small sweep.
    """
    os.environ["AMSCALE_CACHE"] = f"{os.devnull}/none"
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items):
    """Run the files with most slow tests first, and those without at the end: all workers then end at one time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
