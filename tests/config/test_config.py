"""The schema: what is read, what is an error, and how the message reads."""

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amscale import config
from amscale.config.loading import _validate
from amscale.errors import InputError
from amscale.files import packaged
from amscale.settings import format_duration, format_size, parse_size

QUICK = "grammar.yaml"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("400k", 400_000),
        ("1.5M", 1_500_000),
        ("2e6", 2_000_000),
        ("9B", 9 * 10**9),
        ("12", 12),
        ("10.0 M", 10_000_000),
        ("1,000,000", 1_000_000),
        ("1_000", 1000),
        ("6.7 billion", 6_700_000_000),
        (300, 300),
        (2e3, 2000),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "k", "1.5", "-3", "4 0", "1,00", "1.000.000", "5%", "1e-3", "nan", "inf", True, None, [1]]
)
def test_what_is_not_a_size(text):
    with pytest.raises(ValueError, match=r"size|whole"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.6, "90 s"), (600, "10 min"), (9000, "2.5 h"), (360_000, "4.2 d")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(1, 10**13))
def test_a_formatted_size_reads_back_to_three_digits(number):
    assert parse_size(format_size(number).replace("e+", "e")) == pytest.approx(number, rel=6e-3)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.sise=3", "unknown key model.sise=3"),
        ("train.learning_rate=-1", "train.learning_rate=-1"),
        ("grid.train.learning_rate=[1e-3,-1]", "train.learning_rate=-1"),
        ("model.family=bert", "model.family='bert'; allowed are 'vanilla', 'gpt2'"),
        ("data.corpus=nothing", "data.corpus='nothing'; allowed are 'question_formation', 'random_tokens'"),
        ("grid.data.corpus=[question_formation,nothing]", "data.corpus='nothing'; allowed are 'question_formation'"),
        ("grid.train.steps=[100,0]", "train.steps=0"),
        ("train.epochs=3", "give exactly one of train.steps and train.epochs"),
        ("seed=-1", "seed=-1"),
        ("data.size=many", "data.size='many': 'many' is not a size"),
        ("launch.zero_stage=4", "launch.zero_stage=4"),
        ("launch.processes_per_machine=0", "launch.processes_per_machine=0"),
        ("launch.gpu_fraction=0", "launch.gpu_fraction=0 must be 'auto' or greater than or equal to 0.01"),
        ("name=../elsewhere", "name='../elsewhere'"),
        ("name=", "name is empty; give it text, or leave it out"),
        ("grid.name=[a,b]", "grid.name: not an axis"),
        ("grid.seed=[]", "grid.seed=[]: an axis needs at least one value"),
        ("train", "'train' is not an override"),
        ("train.steps=[", "not valid YAML"),
        ("seed.more=1", "seed is a section here, with more; remove these keys"),
        ("name=a/b", "name='a/b': a name has letters, digits"),
        ("name=null", "name is empty"),
        ("train.steps=1:30", "train.steps='1:30': '1:30' is not a size"),
        ("train.steps=[1,2]", "make it an axis: grid.train.steps=[1, 2]"),
        ("train.learning_rate=.nan", "train.learning_rate=nan"),
        ("seed=on", "seed='on'"),
        ("fit.hypotheses=1.5", "fit.hypotheses=1.5: not a list; write fit.hypotheses=[1.5]"),
        ("train.steps=0b1", "'0b1' is not a size"),
    ],
)
def test_bad_settings_are_named_in_one_line(override, words):
    with pytest.raises(InputError) as caught:
        config.load(QUICK, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("name=20261128", "20261128"),
        ("name=on", "on"),
        ("name=true", "true"),
        ("name=1.10", "1.10"),
        ("name=1e5", "1e5"),
        ("name=010", "010"),
        ("name=1_000", "1_000"),
        ("name=0x10", "0x10"),
        ("name=2026-11-28", "2026-11-28"),
        ("storage=20261128", "20261128"),
        ("storage=~", "~"),
        ("data.tokenizer=123", "123"),
        ("train.steps=010", 10),
        ("train.steps=1e2", 100),
        ("train.steps=1_000", 1000),
        ("train.steps='100'", 100),
        ("train.learning_rate=1e-3", 0.001),
        ("train.learning_rate=.5", 0.5),
        ("train.patience=null", None),
        ("train.patience=~", None),
        ("train.patience=", None),
        ("launch.address=[fd77::1]:6379", "[fd77::1]:6379"),
    ],
)
def test_scalars_are_read_as_they_are_meant(override, value):
    found = config.load(QUICK, [override])
    for part in override.partition("=")[0].split("."):
        found = getattr(found, part)
    assert (found, type(found)) == (value, type(value))


def test_a_file_is_read_as_overrides_are(tmp_path):
    text = (packaged("configs") / QUICK).read_text(encoding="utf-8").replace("name: grammar", "name: 20261128")
    (tmp_path / "my.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"seed: 010\nstorage: 2026-11-28\n")
    experiment = config.load(str(tmp_path / "my.yaml"))
    assert (experiment.name, experiment.storage) == ("20261128", "2026-11-28")
    again = config.parse(yaml.safe_load(yaml.safe_dump(experiment.model_dump(mode="json"))))
    assert again.name == "20261128"
    assert config.load({**yaml.safe_load(text), "name": 7}, {"storage": 1.5, "name": 8}).name == "8"


def test_an_axis_of_texts_that_look_like_numbers():
    cells = config.expand(config.load(QUICK, ["grid.data.tokenizer=[007, 1.10]"]))
    assert {cell.data.tokenizer for cell in cells} == {"007", "1.10"}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("model.sise", "model.size"),
        ("modle", "model"),
        ("size", "model.size or data.size"),
        ("lr", "train.learning_rate"),
        ("train.lr", "train.learning_rate"),
        ("train.batch_size", "train.batch_tokens"),
        ("model.learning_rate", "train.learning_rate"),
        ("learning_rates", "train.learning_rate"),
        ("data.documets", "data.documents"),
        ("grid.model.sise", "model.size"),
    ],
)
def test_a_mistyped_key_gets_a_suggestion(key, meant):
    with pytest.raises(InputError, match=rf"^unknown key .*; did you mean {meant}\?$"):
        config.load(QUICK, [f"{key}=1"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML: line 1, column 5"),
        ("- 1", "a configuration is a mapping"),
        ("name: x", "is missing"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("name: a\nseed: 1\nname: b\n", "the key 'name' is given twice, in lines 1 and 3"),
        ("train: {steps: 1, steps: 2}", "the key 'steps' is given twice"),
        ("train:\n\tsteps: 1\n", "line 2, column 1: a tab; indent with blanks"),
        ("just words", "a configuration is a mapping"),
    ],
)
def test_bad_files(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        config.load(str(path))


def test_a_setting_of_the_corpus_before_is_said_to_be_in_the_file():
    with pytest.raises(InputError, match=r"data\.documents='25k'.*it is in grammar\.yaml: data=\{corpus: …, …\}"):
        config.load("grammar.yaml", ["data.corpus=text", "data.files=input.txt"])
    with pytest.raises(InputError, match=r"unknown key data\.documents=1(?!.*it is in)"):
        config.load("grammar.yaml", ["data.corpus=text", "data.documents=1", "data.files=input.txt"])


def test_a_configuration_from_a_pipe_is_read_twice():
    reader, writer = os.pipe()
    os.write(writer, (packaged("configs") / "grammar.yaml").read_bytes())
    os.close(writer)
    assert config.load(f"/dev/fd/{reader}") == config.load(f"/dev/fd/{reader}") == config.load("grammar.yaml")
    os.close(reader)


def test_a_file_that_is_not_text_or_not_there(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: x\n# café\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.yaml: cannot be read: not UTF-8 text \(byte 0xe9 in line 2\)"):
        config.load(str(tmp_path / "latin.yaml"))
    (tmp_path / "utf16.yaml").write_text("name: x", encoding="utf-16")
    with pytest.raises(InputError, match="it begins as UTF-16 does"):
        config.load(str(tmp_path / "utf16.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        config.load(str(tmp_path / "binary.yaml"))
    with pytest.raises(InputError, match="no such configuration"):
        config.load(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("turned", [False, True])
def test_a_section_that_is_given_whole_does_not_undo_what_is_given_in_it(turned):
    tuned = {"tune": {"train.learning_rate": ["x1", "x2"]}}
    source = yaml.safe_load((packaged("configs") / QUICK).read_text(encoding="utf-8")) | tuned
    overrides = ["tune={train.batch_tokens: [512, 1k]}", "train.learning_rate=0.008"]
    overrides += ["model={family: gpt2}", "model.layers=3"]
    found = config.load(source, overrides[::-1] if turned else overrides)
    assert found.tune.axes == {"train.batch_tokens": (512, "1k")}
    assert (found.train.learning_rate, found.model.family, found.model.layers) == (0.008, "gpt2", 3)


def test_an_override_of_an_axis_narrows_it():
    experiment = config.load(QUICK, ["model.size=25k", "data.size=[8k,20k]"])
    cells = config.expand(experiment)
    assert [(cell.model.size, cell.data.size) for cell in cells] == [(25_000, 8_000), (25_000, 20_000)]


def test_a_spec_written_out_reads_back_as_the_same_settings():
    for cell in config.expand(config.load(QUICK)):
        assert config.parse(yaml.safe_load(yaml.safe_dump(cell.model_dump(mode="json")))) == cell


def test_ten_thousand_cells_validate_each_section_once():
    rates = ",".join(str(1e-3 * (1 + i / 100)) for i in range(25))
    experiment = config.load(QUICK, [f"grid.train.learning_rate=[{rates}]", f"seed={list(range(34))}"])
    _validate.cache_clear()
    assert len(config.expand(experiment)) == 12 * 25 * 34
    sections = {"model.size": 3, "data.size": 4, "train.learning_rate": 25, "seed": 34}
    assert {key: len(values) for key, values in experiment.grid.items()} == sections
    assert _validate.cache_info().misses == sum(sections.values())


def test_the_reference_page_is_what_the_schema_says():
    from pathlib import Path

    from amscale.config.reference import reference

    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    assert page.read_text() == reference(), "run: python -m amscale.config.reference > docs/configuration.md"
    assert "learning_rate" in reference()
    assert "| `` |" not in reference()


def test_the_reference_says_what_each_key_takes():
    from amscale.config.reference import reference

    rows = {line.split("|")[1].strip(" `"): line for line in reference().splitlines() if line.startswith("| `")}
    assert "| `cosine`, `linear`, `constant`, `wsd` |" in rows["schedule"]
    assert "| `auto`, number ≥ 0.01 and ≤ 1 |" in rows["gpu_fraction"]
    assert "| list of 2: number > 0 |" in rows["qkv_multipliers"]
    assert {"modules.layers", "axes", "small"} <= rows.keys(), "keys of sections within sections"
    shared = [line for line in reference().splitlines() if line.startswith(("| `split_seed`", "| `shuffle_tokens`"))]
    assert len(shared) == 2, "what all corpora share is there once"
