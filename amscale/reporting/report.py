"""The report of a sweep: one self-contained HTML page, and every figure as PNG and SVG beside it.

    write_report("results/quick")        # -> results/quick/report.html, results/quick/figures/*.png and *.svg
    write_figures(fit, "out")            # -> out/figures/*.png and *.svg of any fit, a table's too

Arrows go one way:

    analysis       a fit and its points
    gather         the sweep's folder, read once
    thin           long curves made short enough to draw
    chart, axes, palette     figures as plain data, free of any drawing library
    figures/       from what was gathered to figures
    sentences, tables        from what was gathered to text
    interactive, static      figures for Plotly, and for matplotlib
    page           the HTML
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amscale.reporting.chart import Chart
    from amscale.scaling.fit import Fit


def write_report(folder: str | Path, fit: "Fit | None" = None) -> Path:
    """Write `<folder>/report.html` and `<folder>/figures/`.

    Args:
        folder: `<storage>/<name>` of a sweep with at least one finished trial.
        fit: its estimates where they are at hand; otherwise those of its fit.json, made anew if the trials changed.

    Returns:
        The page.

    Raises:
        InputError: not a sweep folder, or no finished trial in it.
    """
    from amscale.files import write_atomically
    from amscale.reporting.chart import palette_of
    from amscale.reporting.figures import all_figures
    from amscale.reporting.gather import gather
    from amscale.reporting.page import render

    sweep = gather(folder, fit)
    charts = all_figures(sweep)
    palette = palette_of(charts)
    _write(charts, palette, sweep.folder)
    page = sweep.folder / "report.html"
    write_atomically(page, render(sweep, charts, palette))
    return page


def write_figures(fit: "Fit", folder: str | Path) -> list[Path]:
    """Write the figures of a fit as PNG and SVG to `<folder>/figures/`; returns them."""
    from amscale.reporting.analysis import analysis_of
    from amscale.reporting.chart import palette_of
    from amscale.reporting.figures import fit_figures

    charts = fit_figures(analysis_of(fit))
    return _write(charts, palette_of(charts), Path(folder))


def _write(charts: "Sequence[Chart]", palette: dict[str, tuple[str, str]], folder: Path) -> list[Path]:
    from amscale.reporting.static import write_files

    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    return [path for chart in charts for path in write_files(chart, palette, pictures)]
