"""The section on the radius says what its tables hold, and something else of other tables."""

import importlib
import sys
from pathlib import Path

import pytest

FINDINGS = Path(__file__).parents[2] / "findings"
COLUMNS = (
    "place,vectors,dimension,size,duplicates,radius_mean,radius_median,radius_median_low,radius_median_high,r_star,"
    "separated_r_star,length_mean,intrinsic_dimension"
)


@pytest.fixture(scope="module")
def radius():
    sys.path.insert(0, str(FINDINGS))
    yield importlib.import_module("radius")
    sys.path.remove(str(FINDINGS))


def write(folder, name, radii):
    """Write a table: {(place, vectors): median r̂ at 100 and at 1000 vectors}, r* = 2, dimension 3."""
    lines = [COLUMNS]
    for (place, vectors), medians in radii.items():
        for size, median in zip((100, 1000), medians, strict=True):
            lines.append(f"{place},{vectors},68,{size},0,{median},{median},{median},{median},2,0.5,8,3")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def test_sentences_follow_the_numbers(radius, tmp_path):
    controls = {("layer_01", name): (1, 1) for name in radius.CONTROLS}
    write(tmp_path, "a", {("layer_01", "trained"): (8, 4), ("final_norm", "trained"): (3, 1), **controls})
    text = radius.radius_section(tmp_path)
    assert "above r* at 1 of 2 places: a layer 1. r̂/r* goes from 0.5 to 2;" in text
    assert "10 times as many vectors, it is divided by 2.5 in the median, 2 at the least and 3 at the most" in text
    assert "falls from above r* to below it at 1 of 2" in text
    assert "The final norm multiplies it by 0.25, and moves it across r* in 1 of 1 models" in text
    assert "0 have a control above r* that has learnt nothing" in text
    assert "with none of these three controls above it: 1 of 2 places (a layer 1)" in text
    write(tmp_path, "a", {("layer_01", "trained"): (8, 4), **controls, ("layer_01", "shuffled"): (9, 9)})
    text = radius.radius_section(tmp_path)
    assert "Of the 1 above r*, 1 have a control above r* that has learnt nothing" in text
    assert "with none of these three controls above it: 0 of 1 places (none)" in text
    assert "final norm multiplies" not in text
    write(tmp_path, "a", {("layer_01", "trained"): (2, 1), **controls})
    assert "above r* at 0 of 1 places: none." in radius.radius_section(tmp_path)


def test_the_tables_that_are_shown_have_a_configuration(radius):
    tables = list(radius.DATA.glob("*.csv"))
    assert tables
    assert sum(file.stat().st_size for file in tables) < 100_000
    for one in radius.read_places():
        assert float(one.samples[-1]["size"]) > float(one.samples[0]["size"])
