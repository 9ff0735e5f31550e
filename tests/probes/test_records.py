"""What a run writes of its probes: the metrics record, and what TensorBoard is given to show."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from amscale.probes.measurement import Measurement
from amscale.training.metrics import MetricsWriter
from amscale.trials.store import TrialStore


def written(folder, entropy):
    records = MetricsWriter(TrialStore(folder), 0, entropy)
    records.train(1, 100, 3.0, 1e-3, 0.5, 0.1)
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
    assert texts(board, "probes/pattern") == ["What one sequence is as a pattern: mean_token."]
    assert "all patterns are one" in texts(board, "probes/not_measured")[0]
    assert board.Tags()["histograms"] == ["energy/layer_00/E"]
    assert board.Scalars("probes/seconds")[0].value == 0.25
