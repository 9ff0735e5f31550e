"""The schema: what is read, what is an error, and how the message reads."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amscale import config
from amscale.config.loading import _validate
from amscale.errors import InputError
from amscale.settings import format_duration, format_size, parse_size

QUICK = "quick.yaml"


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
        ("name=../elsewhere", "name='../elsewhere'"),
        ("grid.name=[a,b]", "grid.name: not an axis"),
        ("grid.seed=[]", "grid.seed=[]: an axis needs at least one value"),
        ("train", "'train' is not an override"),
        ("train.steps=[", "not valid YAML"),
        ("seed.more=1", "seed is a section here, with more; remove these keys"),
    ],
)
def test_bad_settings_are_named_in_one_line(override, words):
    with pytest.raises(InputError) as caught:
        config.load(QUICK, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "not valid YAML"), ("- 1", "a configuration is a mapping"), ("name: x", "is missing")]
)
def test_bad_files(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        config.load(str(path))


def test_a_file_that_is_not_text_or_not_there(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        config.load(str(tmp_path / "binary.yaml"))
    with pytest.raises(InputError, match="no such configuration"):
        config.load(str(tmp_path / "absent.yaml"))


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
