"""A module that runs without the trackers that are installed."""

import os
import subprocess
import sys

PROBE = """
import subprocess, sys
try:
    import mlflow
except ImportError:
    print("none", __name__, sys.argv[1:])
ran = subprocess.run([sys.executable, "-c", "import mlflow"], capture_output=True, text=True)
print(ran.stdout.strip())
"""


def test_a_launcher_finds_no_tracker_and_what_it_starts_does(tmp_path):
    (tmp_path / "mlflow.py").write_text("print('a tracker')")
    (tmp_path / "probe.py").write_text(PROBE)
    ran = subprocess.run(
        [sys.executable, "-m", "amscale.cluster.without_trackers", "probe", "--flag", "word"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines() == ["none __main__ ['--flag', 'word']", "a tracker"]
