"""What the environment asks of gloo is tried before ranks meet; a rank imports no tracker that is not asked for."""

import os
import subprocess
import sys

import pytest
from helpers.ranks import only_rank

SCRIPT = """
from amscale.errors import InputError
from amscale.training.engine import start_accelerator
from amscale.trials.records import Placement

try:
    start_accelerator(Placement(1, 1, 1, "cpu", 0, "fp32", 1, 1))
except InputError as error:
    print(error)
"""
"""In a process of its own: gloo reads the variable once."""


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "said"), [("garbage", "GLOO_DEVICE_TRANSPORT='garbage' of "), ("TCP", "no error")])
def test_a_transport_that_torch_has_not_is_refused_once(asked, said, tmp_path):
    (tmp_path / "mlflow.py").write_text("print('GLOO: a tracker was imported', flush=True)")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT + "else:\n    print('no error', flush=True)\n"],
        env=os.environ | only_rank() | {"GLOO_DEVICE_TRANSPORT": asked, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith(("GLOO", "no error"))]
    assert line.startswith(said), ran.stderr[-3000:]
