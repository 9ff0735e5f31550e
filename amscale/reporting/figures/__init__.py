"""The figures of a report, in the order in which they appear."""

from collections.abc import Callable

from amscale.reporting.analysis import Analysis
from amscale.reporting.chart import Chart
from amscale.reporting.figures.capacity import capacity
from amscale.reporting.figures.collapse import collapse
from amscale.reporting.figures.frontier import frontier
from amscale.reporting.figures.intervals import against_entropy, exponents, floors
from amscale.reporting.figures.iso import iso_flop, iso_loss
from amscale.reporting.figures.layers import controls, energies, radii
from amscale.reporting.figures.losses import loss_curves, losses
from amscale.reporting.gather import Sweep

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
