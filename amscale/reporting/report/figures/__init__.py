"""The figures of a report, in the order in which they appear."""

from collections.abc import Callable

from amscale.reporting.report.chart import Chart
from amscale.reporting.report.figures.capacity import capacity
from amscale.reporting.report.figures.controls import controls
from amscale.reporting.report.figures.curves import loss_curves
from amscale.reporting.report.figures.frontier import frontier
from amscale.reporting.report.figures.intervals import exponents, floors
from amscale.reporting.report.figures.layers import energies, radii
from amscale.reporting.report.figures.losses import losses
from amscale.reporting.report.gather import Sweep

_FIGURES: tuple[Callable[[Sweep], Chart | None], ...] = (
    losses,
    frontier,
    exponents,
    floors,
    capacity,
    loss_curves,
    energies,
    radii,
    controls,
)


def all_figures(sweep: Sweep) -> list[Chart]:
    """Every figure that the sweep has data for."""
    return [chart for build in _FIGURES if (chart := build(sweep)) is not None]
