"""What a run writes of its probes: records of metrics.jsonl, and scalars, texts and charts of TensorBoard."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from amscale.errors import InputError
from amscale.probes import Measurement, ScalarChart
from amscale.probes.registry import ProbeSettings, build_probes
from amscale.training.metrics_writer import MetricsWriter
from amscale.trials.trial_store import TrialStore


def writer(folder, entropy=None, charts=()):
    return MetricsWriter(TrialStore(folder), 0, entropy, charts)


def written(folder, entropy, charts=()):
    records = writer(folder, entropy, charts)
    records.train(1, 100, 3.0, 1e-3, 0.5, 0.1, True)
    records.validation(1, 2.5)
    measurement = Measurement(pattern="mean_token", seconds=0.25)
    measurement.add("energy/layer_00/E_mean", 4.0)
    measurement.histograms["energy/layer_00/E"] = np.arange(5.0)
    measurement.reasons["radius/layer_00"] = "all patterns are one"
    records.probe(1, measurement)
    records.validation(2, 2.4)
    records.close()
    board = EventAccumulator(str(folder / "tb"))
    board.Reload()
    return board


def texts(board, tag):
    return [event.tensor_proto.string_val[0].decode() for event in board.Tensors(f"{tag}/text_summary")]


@pytest.mark.parametrize("entropy", [0.997, None])
def test_one_chart_holds_the_losses_the_floor_and_the_known_entropy(tmp_path, entropy):
    import re

    board = written(tmp_path, entropy)
    tags = board.Tags()["scalars"]
    # Lines that span the run, so that the chart shows them beside the curves.
    assert [(e.step, e.value) for e in board.Scalars("loss/floor_1")] == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert ("loss/entropy" in tags) == (entropy is not None)
    if entropy:
        assert [e.value for e in board.Scalars("loss/entropy")] == pytest.approx([entropy] * 3)
    content = board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = Layout.FromString(content)
    patterns = layout.category[0].chart[0].multiline.tag
    shown = {tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)}
    assert shown == {"loss/train", "loss/validation", "loss/floor_1"} | ({"loss/entropy"} if entropy else set())


def test_the_pattern_and_what_is_missing_are_written_with_the_figures(tmp_path):
    board = written(tmp_path, None)
    probes = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    probe = next(record for record in probes if record["kind"] == "probe")
    assert probe["pattern"] == "mean_token"
    assert probe["reasons"] == {"radius/layer_00": "all patterns are one"}
    assert texts(board, "probes/pattern") == ["Pattern of a sequence: mean_token."]
    assert "all patterns are one" in texts(board, "probes/not_measured")[0]
    assert board.Tags()["histograms"] == ["energy/layer_00/E"]
    assert board.Scalars("probes/seconds")[0].value == 0.25


def test_the_charts_of_the_probes_follow_that_of_the_losses(tmp_path):
    charts = [chart for probe in build_probes(ProbeSettings()) for chart in probe.charts]
    board = written(tmp_path, None, [*charts, ScalarChart("attention", "mine", ("^mine$",))])
    layout = Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert {category.title: {chart.title for chart in category.chart} for category in layout.category} == {
        "loss": {"nats per token"},
        "associative memory": {
            "radius beside r*",
            "layer steps that lower the energy",
            "log Z, unsquared distance",
        },
        "attention": {"keys that hold 90 % of the mass", "mine"},
        "memorisation": {"loss without dropout", "continuations reproduced"},
    }


@pytest.mark.parametrize(
    ("tag", "value"), [("no group", 1.0), ("bare", 1.0), ("mine/layer_00", 1.0), ("mine/x", 1e101)]
)
def test_a_measurement_that_no_reader_accepts_is_not_written(tmp_path, tag, value):
    records = writer(tmp_path)
    with pytest.raises(InputError, match=f"a probe measured '{tag}' = .*; a tag is group/name"):
        records.probe(1, Measurement(scalars={"fine/x": 1.0, tag: value}))
    records.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_reasons_that_no_reader_accepts_are_not_written(tmp_path):
    records = writer(tmp_path)
    with pytest.raises(InputError, match="a reason is a sentence by tag"):
        records.probe(1, Measurement(scalars={"fine/x": 1.0}, reasons={"fine/y": None}))
    records.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
