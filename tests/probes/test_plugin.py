"""A probe of a user's package, as docs/probes.md shows it: no edit in amscale, found by its entry point."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers.commands import TINY, command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "probes.md"


def block(language):
    """The page's first block of code in that language."""
    return re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The page's package, installed into a folder of PYTHONPATH as pip would install it."""
    folder = tmp_path / "site"
    information = folder / "my_probes-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "my_probes.py").write_text(block("python"), encoding="utf-8")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-probes\nVersion: 1.0\n")
    points = tomllib.loads(block("toml"))["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in points.items()]
    (information / "entry_points.txt").write_text("".join(lines))
    # A relative entry would be another folder in a rank's working directory.
    others = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *others]))
    return folder


@pytest.fixture
def configuration(tmp_path):
    """One trial of the tiny sweep, with the page's settings of the probe."""
    tree = yaml.safe_load(TINY)
    tree["grid"] = {"model.size": ["1.7k"], "data.size": ["4k"], "seed": [0]}
    tree["probes"] |= yaml.safe_load(block("yaml"))["probes"]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_its_numbers_are_in_records_tensorboard_and_report(package, configuration, tmp_path):
    ran = command("sweep", str(configuration), f"storage={tmp_path}")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    (trial,) = (tmp_path / "tiny" / "trials").iterdir()
    records = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    probes = {record["step"]: record["values"] for record in records if record["kind"] == "probe"}
    assert list(probes) == [20, 30]
    tags = [f"sparsity/layer_0{layer}/share_{name}" for layer in (0, 1) for name in ("mean", "q05", "q50", "q95")]
    for values in probes.values():
        assert [tag for tag in values if tag.startswith("sparsity/")] == tags
        assert "energy/global/E_mean" in values
        # A fifth of the root mean square: 16 % of a normal distribution.
        assert 0.02 < values["sparsity/layer_01/share_mean"] < 0.5

    board = EventAccumulator(str(trial / "tb"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("sparsity/layer_01/share_mean")}
    assert shown == pytest.approx({step: values["sparsity/layer_01/share_mean"] for step, values in probes.items()})
    assert "histograms/sparsity/layer_00/share" in board.Tags()["histograms"]
    layout = Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert "sparsity" in {category.title for category in layout.category}

    page = (tmp_path / "tiny" / "report.html").read_text(encoding="utf-8")
    table = re.search(r'<section id="probes">.*?</section>', page, re.DOTALL)[0]
    assert "sparsity/last layer/share_mean" in table
    assert f"{probes[30]['sparsity/layer_01/share_mean']:.4g}" in table


def test_wrong_settings_and_names_are_one_line_before_anything_starts(package, configuration):
    for override, message in (
        ("probes.extra.sparsity.threshold=-1", "sparsity.threshold=-1: Input should be greater than 0"),
        ("probes.extra.sparsity.treshold=1", "unknown key sparsity.treshold; allowed are threshold"),
        ("probes.extra={sparse: {}}", "there is no probe 'sparse'; allowed are sparsity"),
    ):
        ran = command("plan", str(configuration), override)
        assert ran.returncode == 2, ran.stdout + ran.stderr
        assert message in ran.stderr
        assert ran.stderr.count("\n") == 1
    (package / "my_probes.py").write_text("import nothing_of_this_name\n")
    ran = command("plan", str(configuration))
    assert ran.returncode == 2
    assert "my_probes:Sparsity) cannot be loaded: ModuleNotFoundError" in ran.stderr
