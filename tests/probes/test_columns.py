"""The report's columns of probes, and the settings that name probes."""

import subprocess
import sys

import pytest

from amscale import config
from amscale.errors import InputError
from amscale.probes import ProbeColumn
from amscale.probes.registry import ProbeSettings, build_probes, columns_of

VALUES = {f"mine/layer_{t:02d}/x": float(t * t) for t in range(12)} | {"mine/share": 0.25}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (ProbeColumn("", "mine/{layer}/x"), "121"),
        (ProbeColumn("", "mine/{layer}/x", layers="mean"), "42.17"),
        (ProbeColumn("", "mine/{layer}/x", layers="least"), "0"),
        (ProbeColumn("", "mine/{layer}/x", layers="greatest"), "121"),
        (ProbeColumn("", "mine/{layer}/y", layers="mean"), ""),
        (ProbeColumn("", "mine/share", share=True), "25 %"),
    ],
)
def test_a_column_reduces_over_layers(column, text):
    assert column.text(VALUES) == text


def test_a_last_layer_without_the_number_leaves_its_cell_empty():
    """An earlier layer's number would be taken for the last one's."""
    assert ProbeColumn("", "mine/{layer}/x").text({**VALUES, "mine/layer_100/y": 1.0}) == ""


def test_declared_columns_come_first_and_other_tags_follow():
    records = [
        {"energy/global/steps_lowering_E": 0.5, "energy/layer_00/E_mean": 1.0, "radius/layer_00/r_star": 4.0},
        {"mine/layer_00/x_mean": 1.0, "mine/layer_01/x_mean": 2.0, "mine/layer_01/x_q05": 1.5, "mine/of/all": 7.0},
    ]
    columns = columns_of(records)
    assert [column.heading for column in columns] == [
        "steps lowering E",
        "r*",
        "mine/last layer/x_mean",
        "mine/of/all",
    ]
    assert [[column.text(values) for column in columns] for values in records] == [
        ["50 %", "4", "", ""],
        ["", "", "2", "7"],
    ]
    assert columns_of([]) == []


def test_built_in_probes_take_their_settings_from_the_section():
    probes = {probe.name: probe for probe in build_probes(ProbeSettings(prefix=3, continuation=5))}
    assert list(probes) == ["energy", "radius", "memorisation", "attention"]
    assert (probes["memorisation"].settings.prefix, probes["memorisation"].settings.continuation) == (3, 5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("probes.extra={energy: {}}", "energy is built in and always measured; leave it out"),
        ("probes.extra={nothing: }", "there is no probe 'nothing'; no installed package adds one"),
        ("probes.extra=[energy]", "must be a valid dictionary"),
    ],
)
def test_names_that_no_package_adds_are_one_line(override, message):
    with pytest.raises(InputError) as error:
        config.load("grammar.yaml", [override])
    assert str(error.value).startswith("probes.extra=")
    assert message in str(error.value)


def test_a_report_and_a_configuration_know_the_probes_without_torch():
    code = (
        "import sys, amscale.config; from amscale.probes.registry import columns_of; "
        "print(len(columns_of([{'radius/layer_00/r_star': 1.0}])), 'torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1 False\n"
    )
