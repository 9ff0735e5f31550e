"""The figures of a report, one module a subject: functions that build a chart, or return None without data for it."""

from collections.abc import Callable

from amscale.reporting.chart import Chart
from amscale.reporting.figures.capacity import capacity
from amscale.reporting.figures.collapse import collapse
from amscale.reporting.figures.controls import controls
from amscale.reporting.figures.curves import curves
from amscale.reporting.figures.entropy import loss_against_entropy
from amscale.reporting.figures.frontier import frontier
from amscale.reporting.figures.intervals import exponents, floors
from amscale.reporting.figures.iso_flop import iso_flop
from amscale.reporting.figures.iso_loss import iso_loss
from amscale.reporting.figures.layers import energies, radii
from amscale.reporting.figures.loss import loss
from amscale.reporting.fit_data import FitData
from amscale.reporting.report_data import ReportData

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
)
_OF_TRIALS: tuple[Callable[[ReportData], Chart | None], ...] = (curves, energies, radii, controls)


def fit_charts(data: FitData) -> list[Chart]:
    """Build every chart of a fit that there is data for, in the order of the report."""
    return [chart for build in _OF_A_FIT if (chart := build(data)) is not None]


def report_charts(report: ReportData) -> list[Chart]:
    """Build every chart of a sweep that there is data for: those of its fit, then those of its trials."""
    return fit_charts(report) + [chart for build in _OF_TRIALS if (chart := build(report)) is not None]
