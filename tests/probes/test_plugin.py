"""A probe of a user's package, that of docs/probes.md: what is said of wrong settings and names."""

import pytest
import yaml
from helpers.commands import TINY
from helpers.packages import code_block, entry_point, install, run

pytestmark = pytest.mark.slow


@pytest.fixture
def package(tmp_path):
    """The page's package, installed into a folder of PYTHONPATH as pip would install it."""
    return install(tmp_path / "site", entry_point("probes.md"), {"my_probes": code_block("probes.md", "python")})


@pytest.fixture
def configuration(tmp_path):
    """One trial of the tiny sweep, with the page's settings of the probe."""
    tree = yaml.safe_load(TINY)
    tree["grid"] = {"model.size": ["1.7k"], "data.size": ["4k"], "seed": [0]}
    tree["probes"] |= yaml.safe_load(code_block("probes.md", "yaml"))["probes"]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_wrong_settings_and_names_are_one_line_before_anything_starts(package, configuration):
    for override, message in (
        ("probes.extra.sparsity.threshold=-1", "sparsity.threshold=-1 must be greater than 0"),
        ("probes.extra.sparsity.treshold=1", "unknown key sparsity.treshold; allowed are threshold"),
        ("probes.extra={sparse: {}}", "there is no probe 'sparse'; allowed are sparsity"),
    ):
        ran = run(package, "-m", "amscale.plan", str(configuration), override)
        assert ran.returncode == 2, ran.stdout + ran.stderr
        assert message in ran.stderr
        assert ran.stderr.count("\n") == 1
    (package / "my_probes.py").write_text("import nothing_of_this_name\n")
    ran = run(package, "-m", "amscale.plan", str(configuration))
    assert ran.returncode == 2
    assert "my_probes:Sparsity) cannot be loaded: ModuleNotFoundError" in ran.stderr
