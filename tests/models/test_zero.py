"""Families under ZeRO-3 on two CPU processes: they train, resume exactly, and their named modules can be captured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = ("openelm", "mixtral")


@pytest.mark.slow
def test_zero_3_on_two_processes():
    script = Path(__file__).parents[1] / "helpers" / "zero_families.py"
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(script.parents[2])
    command = [sys.executable, str(script), "3", "fp32", *MODELS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        for name in MODELS:
            assert f"rank {rank} {name} ZeRO-3 fp32 resumes exactly" in done.stdout
