"""`plan` of a radius experiment: known before the model is there, and without a network."""

import subprocess
import sys

_CHECK = """
import sys
from amscale.plan import plan
assert plan("configs/radius_gpt2_openwebtext.yaml", "sample.chunks=1k", "sample.layers=[0]") == 0
assert "torch" not in sys.modules
"""


def test_the_published_experiment():
    ran = subprocess.run([sys.executable, "-c", _CHECK], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "24 x 1024, 355M parameters, r* = 7.74" in ran.stdout
    assert "1k chunks of at most 256 tokens, vectors at 1 places" in ran.stdout
    # Trained and random weights, 2 FLOPs a weight and token, attention scores beside: 4 x 1000 x 256 x 354M = 3.6e14.
    assert "3.7e+14 in forward passes, 1e+10 in distances" in ran.stdout
    # 355M weights and two sets of 1000 vectors of 1024, in float32.
    assert "1.4 GB of weights" in ran.stdout
