"""The figures of a fit by name and as files."""

import math

import pytest
from helpers.made_fit import DSTAR, EXPONENT, FLOOR, fit_of

from amscale.errors import InputError
from amscale.reporting.figures import figure, figure_names, write_figures
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.points import Point, PointTable


@pytest.fixture
def fit(sweep) -> BaseFit:
    return fit_of(sweep, EXPONENT, FLOOR)


def test_a_figure_by_name_draws_the_estimates_and_writes_nothing(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figure_names(fit) == ["loss", "frontier", "exponent", "floor"]
    drawn = figure(fit, "frontier")
    plane, criterion = drawn.axes
    assert drawn.get_suptitle() == "Frontier D*(N)"
    points = [line.get_xydata().tolist() for line in plane.lines if line.get_marker() == "o"]
    assert points == [[[row.value, row.N]] for row in DSTAR if row.value is not None]
    assert [line.get_ydata().tolist() for line in criterion.lines if len(line.get_xdata()) == 4] == [
        list(row.criteria) for row in DSTAR
    ]
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_figure_is_one_line_that_lists_the_names(fit):
    with pytest.raises(InputError) as error:
        figure(fit, "fronteir")
    assert (
        str(error.value) == "figure 'fronteir': this fit has loss, frontier, exponent, floor; give one of these names"
    )


def test_figures_of_a_table_are_files(tmp_path):
    cells = [(N, D) for N in (1e6, 1e7, 1e8) for D in (1e8, 1e9, 1e10)]
    points = [Point("p", N, D, 1.7 + N**-0.3 + 400 * D**-0.35) for N, D in cells]
    fit = BaseFit(table=PointTable("made", "N", points), estimates=[], laws=[], settings={})
    (tmp_path / "out").mkdir()
    written = write_figures(fit, tmp_path / "out")
    assert figure_names(fit) == ["loss"]
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "out/figures/loss.png",
        "out/figures/loss.svg",
    ]
    line = next(line for line in figure(fit, "loss").axes[0].lines if len(line.get_xdata()) == 3)
    assert line.get_ydata()[0] == pytest.approx(1.7 + 1e6**-0.3 + 400 * math.exp(-0.35 * math.log(1e8)))
