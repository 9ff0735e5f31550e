"""What a run writes of its probes: records of metrics.jsonl, and scalars, texts and charts of TensorBoard."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from amscale.errors import InputError
from amscale.probes import Measurement, ScalarChart
from amscale.probes.registry import ProbeSettings, build_probes
from amscale.training.metrics_writer import MetricsWriter, layers_shown
from amscale.trials.trial_store import TrialStore


def writer(folder, charts=()):
    return MetricsWriter(TrialStore(folder), 0, charts)


def written(folder, charts=()):
    records = writer(folder, charts)
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


def layout_of(board):
    return Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])


def test_losses_sort_before_everything_else_and_have_a_chart_each(tmp_path):
    board = written(tmp_path)
    tags = sorted(tag for kind in ("scalars", "histograms") for tag in board.Tags()[kind])
    assert tags[:2] == ["Loss/train", "Loss/validation"]
    loss = layout_of(board).category[0]
    assert [list(chart.multiline.tag) for chart in loss.chart] == [["^Loss/train$"], ["^Loss/validation$"]]


def test_few_layers_have_histograms_and_charts_of_their_own(tmp_path):
    records = MetricsWriter(TrialStore(tmp_path), 0, [ScalarChart("a", "r", ("^r/layer_[0-9]+/x$",))], layers=12)
    measurement = Measurement()
    for layer in range(12):
        measurement.histograms[f"r/layer_{layer:02d}/x"] = np.arange(5.0)
    measurement.histograms["r/global/x"] = np.arange(5.0)
    records.probe(1, measurement)
    records.close()
    board = EventAccumulator(str(tmp_path / "tb"))
    board.Reload()
    shown = [f"histograms/r/layer_{layer:02d}/x" for layer in (0, 6, 11)]
    assert sorted(board.Tags()["histograms"]) == ["histograms/r/global/x", *shown]
    charts = {chart.title: list(chart.multiline.tag) for chart in layout_of(board).category[1].chart}
    assert charts["r, layer 06"] == ["^r/layer_06/x$"]
    assert len(charts) == 3
    assert [layers_shown(12, most) for most in (0, 1, 2, 99)] == [[], [11], [0, 11], list(range(12))]


def test_the_pattern_and_what_is_missing_are_written_with_the_figures(tmp_path):
    board = written(tmp_path)
    probes = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    probe = next(record for record in probes if record["kind"] == "probe")
    assert probe["pattern"] == "mean_token"
    assert probe["reasons"] == {"radius/layer_00": "all patterns are one"}
    assert texts(board, "probes/pattern") == ["Pattern of a sequence: mean_token."]
    assert "all patterns are one" in texts(board, "probes/not_measured")[0]
    assert board.Tags()["histograms"] == ["histograms/energy/layer_00/E"]
    assert board.Scalars("probes/seconds")[0].value == 0.25


def test_the_charts_of_the_probes_follow_that_of_the_losses(tmp_path):
    charts = [chart for probe in build_probes(ProbeSettings()) for chart in probe.charts]
    board = written(tmp_path, [*charts, ScalarChart("attention", "mine", ("^mine$",))])
    layout = layout_of(board)
    assert {category.title: {chart.title for chart in category.chart} for category in layout.category} == {
        "loss": {"train, nats per token", "validation, nats per token"},
        "associative memory": {
            "radius beside r*, layer 00",
            "layer steps that lower the energy",
            "log Z, unsquared distance, layer 00",
        },
        "attention": {"keys that hold 90 % of the mass, layer 00", "mine"},
        "memorisation": {
            f"{part} {what}"
            for part in ("train", "validation")
            for what in ("loss without dropout", "continuations reproduced")
        },
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
