"""The family, the corpus and the probe of the docs, in packages outside the tree: one sweep, no edit in amscale."""

import json
import math
import re
from pathlib import Path

import pytest
from helpers.packages import code_block, entry_point, install, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

pytestmark = pytest.mark.slow

SETTINGS = ["model={family: parallel, layers: 2}", "grid={model.size: [10k], data.size: [4k, 12k]}"]
SETTINGS += ["probes.every=10", "probes.extra={sparsity: {threshold: 0.2}}"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """The folder of a sweep of two trials."""
    site, storage = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("results")
    family, corpus = "## A family in your own package", "## Adding a corpus"
    for page, heading, module in (
        ("models.md", family, "parallel_family"),
        ("data.md", corpus, "my_corpora.coins"),
        ("probes.md", "", "my_probes"),
    ):
        install(site, entry_point(page, heading), {module: code_block(page, "python", heading)})
    configuration = site / "coins.yaml"
    configuration.write_text(code_block("data.md", "yaml", corpus))
    arguments = (str(configuration), f"storage={storage}", *SETTINGS)
    planned = run(site, "-m", "amscale.plan", *arguments)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "plan: 2 trials" in planned.stdout
    assert not (storage / "tokens").exists()  # word types and lengths are known: no token is made
    ran = run(site, "-m", "amscale.sweep", *arguments)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return storage / "coins"


@pytest.fixture(scope="module")
def results(sweep) -> list[dict]:
    return [json.loads(path.read_text()) for path in sweep.glob("trials/parallel-*/result.json")]


def test_the_family_is_counted_and_learns(results):
    for result in results:
        shape, counts = result["shape"], result["parameters"]
        d, layers, hidden = shape["width"], shape["layers"], 4 * shape["width"]
        assert shape["options"] == {"dropout": 0.0}
        assert counts["embedding"] == (shape["vocabulary"] + shape["context"]) * d
        assert counts["output_head"] == shape["vocabulary"] * d
        assert counts["attention"] == layers * (4 * d * d + 4 * d)
        assert counts["feed_forward"] == layers * (2 * d * hidden + hidden + d)
        assert counts["norms_and_rest"] == (layers + 1) * 2 * d
        assert abs((counts["attention"] + counts["feed_forward"]) / 10_000 - 1) <= 0.03
        assert result["state"] == "finished"
        assert result["losses"]["validation_least"] < math.log(shape["vocabulary"])


def test_the_corpus_has_its_sizes_and_its_entropy(results):
    assert sorted(result["data"]["unique_tokens"] for result in results) == [4000, 12000]
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) * 15 / 16
    for result in results:
        assert result["settings"]["data"]["heads"] == 0.9
        assert result["data"]["entropy_per_token"] == pytest.approx(entropy, rel=1e-12)


def test_the_probes_numbers_are_in_records_tensorboard_and_report(sweep):
    page = (sweep / "report.html").read_text(encoding="utf-8")
    table = re.search(r'<section id="probes">.*?</section>', page, re.DOTALL)[0]
    assert "sparsity/last layer/share_mean" in table
    tags = [f"sparsity/layer_0{layer}/share_{name}" for layer in (0, 1) for name in ("mean", "q05", "q50", "q95")]
    for trial in sweep.glob("trials/*"):
        records = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
        probes = {record["step"]: record["values"] for record in records if record["kind"] == "probe"}
        assert list(probes) == [10, 20]
        for values in probes.values():
            assert [tag for tag in values if tag.startswith("sparsity/")] == tags
            assert "energy/global/E_mean" in values
            # A fifth of the root mean square: 16 % of a normal distribution.
            assert 0.02 < values["sparsity/layer_01/share_mean"] < 0.5
        assert f"{probes[20]['sparsity/layer_01/share_mean']:.4g}" in table
        board = EventAccumulator(str(trial / "tb"))
        board.Reload()
        shown = {event.step: event.value for event in board.Scalars("sparsity/layer_01/share_mean")}
        assert shown == pytest.approx({step: v["sparsity/layer_01/share_mean"] for step, v in probes.items()})
        assert "histograms/sparsity/layer_00/share" in board.Tags()["histograms"]
        layout = Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
        assert "sparsity" in {category.title for category in layout.category}
