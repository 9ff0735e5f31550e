"""The figures of a report, one module a subject: functions that build a chart, or return None without data for it.

figure(fit, "frontier")      one figure of a fit, for matplotlib; `figure_names(fit)` lists the names
write_figures(fit, "out")    all figures of a fit, as files
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from amscale.errors import InputError
from amscale.reporting.chart import Chart, palette_of
from amscale.reporting.figures.capacity import capacity, collapse
from amscale.reporting.figures.frontier import frontier
from amscale.reporting.figures.health import collapsed_curves
from amscale.reporting.figures.intervals import exponents, floors, loss_against_entropy
from amscale.reporting.figures.iso import iso_flop, iso_loss
from amscale.reporting.figures.layers import controls, energies, radii
from amscale.reporting.figures.loss import curves, loss
from amscale.reporting.fit_data import FitData, data_of_fit
from amscale.reporting.report_data import ReportData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from amscale.scaling.base_fit import BaseFit

_OF_A_FIT: tuple[Callable[[FitData], Chart | None], ...] = (
    loss_against_entropy,
    loss,
    frontier,
    iso_flop,
    iso_loss,
    collapse,
    exponents,
    floors,
    capacity,
    collapsed_curves,
)
_OF_TRIALS: tuple[Callable[[ReportData], Chart | None], ...] = (curves, energies, radii, controls)


def fit_charts(data: FitData) -> list[Chart]:
    """Build every chart of a fit that there is data for, in the order of the report."""
    return [chart for build in _OF_A_FIT if (chart := build(data)) is not None]


def report_charts(report: ReportData) -> list[Chart]:
    """Build every chart of a sweep that there is data for: those of its fit, then those of its trials."""
    return fit_charts(report) + [chart for build in _OF_TRIALS if (chart := build(report)) is not None]


def figure_names(fit: "BaseFit") -> list[str]:
    """Return the names of the figures that this fit has data for, such as `frontier`."""
    return list(_charts_by_name(fit))


def figure(fit: "BaseFit", name: str) -> "Figure":
    """Draw one figure of a fit with matplotlib; no file is written.

    Raises:
        InputError: the fit has no figure of that name; the message lists the names.
    """
    from amscale.reporting.static import draw_chart

    charts = _charts_by_name(fit)
    if name not in charts:
        raise InputError(f"figure {name!r}: this fit has {', '.join(charts) or 'no figures'}; give one of these names")
    return draw_chart(charts[name], palette_of(list(charts.values())))


def write_figures(fit: "BaseFit", folder: str | Path) -> list[Path]:
    """Write every figure of a fit as PNG and SVG to `<folder>/figures/`; return the paths."""
    from amscale.reporting.static import write_charts

    charts = list(_charts_by_name(fit).values())
    return write_charts(charts, palette_of(charts), Path(folder) / "figures")


def _charts_by_name(fit: "BaseFit") -> dict[str, Chart]:
    return {chart.name: chart for chart in fit_charts(data_of_fit(fit))}
