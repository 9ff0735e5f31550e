"""The figures of any fit, of a sweep or of a table: by name for notebooks, and all of them as files."""

from pathlib import Path
from typing import TYPE_CHECKING

from amscale.errors import InputError
from amscale.reporting.chart import Chart
from amscale.reporting.figures import fit_charts
from amscale.reporting.fit_data import data_of_fit
from amscale.reporting.palette import palette_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from amscale.scaling.fit import Fit


def figure_names(fit: "Fit") -> list[str]:
    """Return the names of the figures that this fit has data for, such as `frontier`."""
    return list(_charts(fit))


def figure(fit: "Fit", name: str) -> "Figure":
    """Draw one figure of a fit with matplotlib; no file is written.

    Raises:
        InputError: the fit has no figure of that name; the message lists the names.
    """
    from amscale.reporting.static import draw_chart

    charts = _charts(fit)
    if name not in charts:
        raise InputError(f"figure {name!r}: this fit has {', '.join(charts) or 'no figures'}; give one of these names")
    return draw_chart(charts[name], palette_of(list(charts.values())))


def write_figures(fit: "Fit", folder: str | Path) -> list[Path]:
    """Write every figure of a fit as PNG and SVG to `<folder>/figures/`; return the paths."""
    from amscale.reporting.static import write_charts

    charts = list(_charts(fit).values())
    return write_charts(charts, palette_of(charts), Path(folder) / "figures")


def _charts(fit: "Fit") -> dict[str, Chart]:
    return {chart.name: chart for chart in fit_charts(data_of_fit(fit))}
