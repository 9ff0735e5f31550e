"""Families under ZeRO-3 on two CPU processes: they train, resume exactly, and their named modules can be captured."""

import os
import subprocess
import sys
from pathlib import Path


def test_zero_3_on_two_processes():
    script = Path(__file__).parents[1] / "helpers" / "zero_families.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(script.parents[2])
    command = [*launch, str(script), "3", "fp32", "openelm", "mixtral"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        for family in ("openelm", "mixtral"):
            assert f"rank {rank} {family} ZeRO-3 fp32 resumes exactly" in done.stdout
