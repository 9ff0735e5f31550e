"""Real sweeps through the real commands, small enough for a test."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import TINY, Driver, environment, processes_naming


@pytest.fixture
def start_sweep(tmp_path):
    """Start a sweep in the background; whatever is left of it is killed afterwards."""
    drivers = []

    def start(folder: Path, *arguments: str) -> Driver:
        process = subprocess.Popen(
            [sys.executable, "-m", "amscale.sweep", *arguments],
            stdout=(tmp_path / "sweep.log").open("a"),
            stderr=subprocess.STDOUT,
            env=environment(),
            text=True,
            start_new_session=True,
        )
        drivers.append(Driver(process, folder))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            os.killpg(driver.process.pid, signal.SIGKILL)
            driver.process.wait()
        for process in processes_naming(driver.folder):
            process.kill()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A configuration of four trials."""
    path = tmp_path_factory.mktemp("configuration") / "tiny.yaml"
    path.write_text(TINY)
    return path
