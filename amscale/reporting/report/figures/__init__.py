"""The figures of a report, in the order in which they appear."""

from collections.abc import Callable

from amscale.reporting.report.analysis import Analysis
from amscale.reporting.report.chart import Chart
from amscale.reporting.report.figures.capacity import capacity
from amscale.reporting.report.figures.collapse import collapse
from amscale.reporting.report.figures.controls import controls
from amscale.reporting.report.figures.corpora import against_entropy
from amscale.reporting.report.figures.curves import loss_curves
from amscale.reporting.report.figures.frontier import frontier
from amscale.reporting.report.figures.intervals import exponents, floors
from amscale.reporting.report.figures.iso_flop import iso_flop
from amscale.reporting.report.figures.iso_loss import iso_loss
from amscale.reporting.report.figures.layers import energies, radii
from amscale.reporting.report.figures.losses import losses
from amscale.reporting.report.gather import Sweep

_OF_A_FIT: tuple[Callable[[Analysis], Chart | None], ...] = (
    against_entropy,
    losses,
    frontier,
    iso_flop,
    iso_loss,
    collapse,
    exponents,
    floors,
    capacity,
)
_OF_TRIALS: tuple[Callable[[Sweep], Chart | None], ...] = (loss_curves, energies, radii, controls)


def fit_figures(analysis: Analysis) -> list[Chart]:
    """Every figure that a fit alone has data for."""
    return [chart for build in _OF_A_FIT if (chart := build(analysis)) is not None]


def all_figures(sweep: Sweep) -> list[Chart]:
    """Every figure that the sweep has data for: those of its fit, then those of its trials."""
    trials = [chart for build in _OF_TRIALS if (chart := build(sweep)) is not None]
    return fit_figures(sweep) + trials
