"""Typed records: written as before, read from older versions, and one line for what is missing."""

import json
import math

import pytest
import yaml

from amscale.cluster.resources import this_machine
from amscale.config import load
from amscale.errors import InputError
from amscale.planning.plan import plan_sweep
from amscale.trials.metrics import ProbeRecord, TrainRecord, ValidationRecord, parse_record
from amscale.trials.record import FORMAT
from amscale.trials.records import OutOfMemory, Placement, TrialResult, TrialSpec, read_out_of_memory
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

RESULT = {
    "format": 1,
    "trial": "8c884471dc8b",
    "label": "vanilla-N99.5k-D20k-seed0-8c884471dc8b",
    "state": "diverged",
    "reason": "loss is nan at step 30",
    "seed": 0,
    "steps": 30,
    "shape": {
        "family": "vanilla",
        "layers": 2,
        "width": 64,
        "heads": 4,
        "feed_forward": 256,
        "vocabulary": 70,
        "context": 45,
        "options": {"dropout": 0.0, "norm": "pre"},
        "wanted": 100000,
        "count": "non_embedding",
    },
    "parameters": {
        "embedding": 7360,
        "output_head": 4550,
        "attention": 33280,
        "feed_forward": 66176,
        "norms_and_rest": 640,
        "total": 112006,
    },
    "flops": {"formula": "matmul", "per_token": 653000.0, "total": 1.3e11},
    "data": {
        "corpus": "question_formation",
        "unique_tokens": 20003,
        "documents": 870,
        "tokens_seen": 200140.0,
        "epochs": 10.005,
        "entropy_per_token": None,
        "memorised_per_token": None,
    },
    "losses": {
        "validation_last": math.nan,
        "validation_least": 2,
        "validation_least_step": 20,
        "train_last": math.inf,
        "train_least": 1.9,
        "train_least_step": 21,
        "train_window": 10,
        "train_evaluated": None,
    },
    "time": {"wall_seconds": 12.5, "device_seconds": 10.25, "probe_seconds": 0.0, "probe_share": None},
    "memory": {"peak_host_bytes": 800_000_000},
    "engine": {
        "distributed_type": "DEEPSPEED",
        "engine": "DeepSpeedEngine",
        "world_size": 1,
        "zero_stage": 0,
        "precision": "fp32",
        "micro_batch": 34,
        "accumulation": 1,
        "device": "cpu",
        "optimizer_elements": [112006],
        "out_of_memory_at": [],
    },
    "versions": {"amscale": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
    "settings": {"name": "quick", "model": {"family": "vanilla", "size": 100000}, "seed": 0},
}
REQUIRED = (
    "state",
    "steps",
    "shape",
    "parameters",
    "parameters.total",
    "parameters.attention",
    "flops",
    "flops.total",
    "data",
    "data.unique_tokens",
    "losses",
)


def without(tree, key):
    """Return a copy of a tree that lacks one dotted key."""
    copy = json.loads(json.dumps(tree))
    *sections, last = key.split(".")
    node = copy
    for section in sections:
        node = node[section]
    del node[last]
    return copy


def write(folder, result):
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.result.write_text(json.dumps(result))


def test_a_result_is_written_as_it_was_read(tmp_path):
    text = json.dumps(RESULT, indent=1)
    assert TrialResult.from_json(text, tmp_path / "result.json").to_json() == text


@pytest.mark.parametrize(
    "key", ["time", "memory", "engine", "versions", "settings", "shape.vocabulary", "losses.train_evaluated", "seed"]
)
def test_a_result_of_an_older_version_is_read_and_written_without_the_field(tmp_path, key):
    text = json.dumps(without(RESULT, key), indent=1)
    result = TrialResult.from_json(text, tmp_path / "result.json")
    assert result.to_json() == text
    assert result.engine.world_size == 1
    assert (result.device_flops is None) == (key == "time")


@pytest.mark.parametrize("key", REQUIRED)
def test_a_result_that_lacks_a_field_gives_one_line(tmp_path, key):
    folder = TrialStore(tmp_path)
    write(folder, without(RESULT, key))
    with pytest.raises(InputError) as error:
        folder.read_result()
    said = str(error.value)
    assert said.startswith(f"{folder.result}: {key} is missing")
    assert "remove the file to run the trial again" in said


@pytest.mark.parametrize(
    ("section", "name", "value", "said"),
    [
        ("losses", "validation_least", "2.0", "losses.validation_least='2.0' is not a number"),
        ("losses", "train_last", True, "losses.train_last='True' is not a number"),
        ("losses", "train_last", 1e101, "losses.train_last='1e+101' is not a number"),
        ("data", "unique_tokens", math.inf, "data.unique_tokens='inf' is not a finite number of at least 0"),
        ("parameters", "attention", -1, "parameters.attention='-1' is not a finite number of at least 0"),
        ("engine", "world_size", 0, "engine.world_size='0' is not a whole number of at least 1"),
        ("shape", "family", 3, "shape.family='3' is not text"),
    ],
)
def test_a_result_with_a_wrong_value_names_it(tmp_path, section, name, value, said):
    folder = TrialStore(tmp_path)
    write(folder, RESULT | {section: RESULT[section] | {name: value}})
    with pytest.raises(InputError) as error:
        folder.read_result()
    assert said in str(error.value)


def test_a_result_of_another_format_is_named(tmp_path):
    with pytest.raises(InputError, match=f"this one reads format {FORMAT}"):
        TrialResult.from_json(json.dumps(RESULT | {"format": FORMAT + 1}), tmp_path)


def test_a_plan_beside_an_incomplete_result(tmp_path):
    """A result without times says nothing of the speed; one without FLOPs gives one line, and no KeyError."""
    experiment = load("grammar.yaml", ["model.size=25k", "data.size=2k", "data.documents=500", "data.validation=100"])
    experiment = experiment.model_copy(update={"grid": {}})
    folder = SweepStore(tmp_path / experiment.name).trial("earlier")
    folder.path.mkdir(parents=True)
    folder.spec.write_text("format: 1")
    for result, basis in ((RESULT, "speed measured"), (without(RESULT, "time"), "an assumed speed")):
        write(folder, result)
        assert plan_sweep(experiment, tmp_path, this_machine()).time_basis.startswith(basis)
    write(folder, without(RESULT, "flops"))
    with pytest.raises(InputError, match=r"result\.json: flops is missing; remove the file"):
        plan_sweep(experiment, tmp_path, this_machine())


SPEC = {
    "format": 1,
    "trial": "8c884471dc8b",
    "label": "vanilla-N99.5k",
    "placement": {
        "machines": 1,
        "processes_per_machine": 2,
        "cpus_per_process": 1,
        "device": "cpu",
        "zero_stage": 1,
        "precision": "fp32",
        "micro_batch": 34,
        "accumulation": 1,
    },
    "store": "/results/tokens/question_formation-1",
    "settings": {"name": "quick", "seed": 0},
}


def test_a_spec_is_written_as_it_was_read(tmp_path):
    """One of an earlier version too, whose placement says nothing of parts of a GPU or of their memory."""
    spec = TrialSpec.from_yaml(yaml.safe_dump(SPEC, sort_keys=False), tmp_path / "spec.yaml")
    assert spec.placement == Placement(1, 2, 1, "cpu", 1, "fp32", 34, 1)
    text = spec.to_yaml()
    assert yaml.safe_load(text) == SPEC | {
        "placement": SPEC["placement"] | {"gpu_fraction": 1.0, "device_memory": 0},
    }
    assert TrialSpec.from_yaml(text, tmp_path / "spec.yaml").to_yaml() == text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"placement": SPEC["placement"] | {"machines": 0}}, "placement.machines"),
        ({"placement": SPEC["placement"] | {"zero_stage": 4}}, "placement.zero_stage"),
        ({"placement": SPEC["placement"] | {"micro_batch": "4"}}, "placement.micro_batch='4' is not a whole number"),
        ({"placement": SPEC["placement"] | {"device": "tpu"}}, "placement.device='tpu' is not 'cpu' or 'cuda'"),
        ({"placement": SPEC["placement"] | {"gpu_fraction": 0.0}}, "placement.gpu_fraction='0.0'"),
        ({"placement": {}}, "placement.machines is missing"),
        ({"placement": [1]}, "placement='[1]' is not a mapping"),
        ({"store": None}, "store is missing"),
        ({"label": "../other"}, "label='../other' is not the name of a trial"),
    ],
)
def test_a_wrong_spec_gives_one_line(tmp_path, change, said):
    with pytest.raises(InputError) as error:
        TrialSpec.from_yaml(yaml.safe_dump(SPEC | change), tmp_path / "spec.yaml")
    assert said in str(error.value)
    assert "remove the folder to run the trial again" in str(error.value)


def test_placements_that_ran_out_of_memory_are_flat_lines(tmp_path):
    placement = Placement(1, 2, 1, "cpu", 1, "fp32", 34, 1)
    entry = OutOfMemory(time=1.5, reason="no memory", placement=placement)
    assert list(entry.to_tree()) == ["time", "reason", *placement.to_dict()]
    damaged = entry.to_tree() | {"micro_batch": "many"}
    (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in (entry.to_tree(), damaged)) + "{torn")
    assert read_out_of_memory(tmp_path / "lines") == [entry]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ({"kind": "train", "step": 1, "loss": 2}, TrainRecord(step=1, loss=2)),
        ({"kind": "validation", "step": 1, "loss": math.inf}, ValidationRecord(step=1, loss=math.inf)),
        (
            {"kind": "probe", "step": 5, "values": {"a/layer_00/b": 1.5}},
            ProbeRecord(step=5, values={"a/layer_00/b": 1.5}),
        ),
        ({"kind": "probe", "step": 5, "values": {"a/layer_0/b/c": 1.5}}, None),
        ({"kind": "probe", "step": 5, "values": {"a": "x"}}, None),
        ({"kind": "probe", "step": 5}, None),
        ({"kind": "train", "step": 1}, None),
        ({"kind": "train", "step": True, "loss": 2.0}, None),
        ({"kind": "train", "step": -1, "loss": 2.0}, None),
        ({"kind": "train", "step": 1.0, "loss": 2.0}, None),
        ({"kind": "train", "step": 2**64, "loss": 2.0}, None),
        ({"kind": "train", "step": 1, "loss": "2.0"}, None),
        ({"kind": "train", "step": 1, "loss": 2.0, "time": True}, None),
        ({"kind": "train", "step": 1, "loss": 10**400}, None),
        ({"kind": "other", "step": 1, "loss": 2.0}, None),
        ([], None),
    ],
)
def test_a_line_of_metrics_is_a_record_or_none(line, record):
    text = json.dumps(line)
    assert parse_record(text) == parse_record(text.encode()) == record
    assert parse_record(text[:-1]) is None


def test_a_loss_that_is_not_a_number_is_kept():
    record = parse_record('{"kind": "train", "step": 1, "loss": NaN}')
    assert isinstance(record, TrainRecord)
    assert math.isnan(record.loss)
    assert parse_record(b'{"kind": "train", "step": 1, "loss": 1.0, "x": "\xff"}') is None
    assert parse_record("[" * 100_000) is None
