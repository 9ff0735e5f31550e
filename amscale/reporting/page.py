"""The report of a sweep: one self-contained HTML page, and every figure as PNG and SVG beside it."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import amscale
from amscale.files import write_atomically
from amscale.reporting import capacity_table, conclusion, page_tables
from amscale.reporting.chart import Chart, Palette, palette_of
from amscale.reporting.figures import report_charts
from amscale.reporting.interactive import html_formula, to_plotly
from amscale.reporting.report_data import ReportData, read_report_data
from amscale.scaling.forecast import score_lines
from amscale.scaling.verdict import NextStep, promise
from amscale.trials.archive import is_archive
from amscale.trials.storage_errors import output_folder
from amscale.trials.sweep_store import own_folder

if TYPE_CHECKING:
    from amscale.scaling.base_fit import BaseFit


def write_report(
    folder: str | Path, fit: "BaseFit | None" = None, output: str | Path | None = None, address: str | None = None
) -> Path:
    """Write `report.html` and `figures/` into a sweep's folder or another one; return the page's path.

    Args:
        folder: `<storage>/<name>` of a sweep with at least one finished trial.
        fit: its estimates; by default those of its fit.json, fitted again if the trials have changed.
        output: the folder to write to, which is made if it is missing; if None the sweep's own, of an archive one of
            its name beside it.
        address: the sweep as a user names it, by default its folder.

    Raises:
        InputError: not a sweep folder, no finished trial in it, or no right to write, which is said before the work.
    """
    from amscale.reporting.static import write_charts

    archive = address if address is not None and is_archive(address) else None
    if archive is not None and output is None:
        output = own_folder(archive, Path(folder))
    target = Path(folder if output is None else output).expanduser().absolute()
    with ExitStack() as until_written:
        if output is not None or target.is_dir():
            setting, files = f"output={str(output)!r}", ("report.html", "fit.json")
            advice = "give another folder for report.html and figures/, --output FOLDER"
            until_written.enter_context(output_folder(target, setting, files, ("figures",), advice))
        report = read_report_data(folder, fit, target, archive)
        charts = report_charts(report)
        palette = palette_of(charts)
        write_charts(charts, palette, target / "figures")
        page = target / "report.html"
        write_atomically(page, render_page(report, charts, palette))
    return page


def render_page(report: ReportData, charts: Sequence[Chart], palette: Palette) -> str:
    """Return the page's HTML; texts from the sweep are escaped, and scripts, style and data are part of the page."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("amscale.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["formula"] = html_formula
    environment.filters["promise"] = lambda step: promise(NextStep(**step))
    return environment.get_template("page.html.j2").render(
        report=report,
        headline=conclusion.headline(report),
        verdict=report.fit["verdict"],
        key_numbers=conclusion.key_numbers(report),
        sections=conclusion.sections(report),
        charts=charts,
        data={"palette": palette, "charts": [to_plotly(chart) for chart in charts]},
        palette=palette,
        estimates=page_tables.estimate_rows(report),
        capacity=page_tables.capacity_tables(report),
        capacity_note=capacity_table.NOTE,
        tuning=(report.fit.get("tuning") or {}).get("lines", ()),
        laws=page_tables.law_table(report),
        forecasts=[score_lines(score) for score in report.fit.get("forecasts", ())],
        trials=page_tables.trial_table(report),
        probes=page_tables.probe_table(report),
        left_out=page_tables.left_out_table(report),
        versions=page_tables.versions(report),
        outside_grid=page_tables.outside_grid(report),
        commands=page_tables.commands(report),
        trial_commands=[(trial.label, trial.command) for trial in report.trials if trial.command],
        amscale_version=amscale.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(_template("style.css")),
        script=Markup(_template("charts.js")),
        plotly=Markup(get_plotlyjs()),
    )


def _template(name: str) -> str:
    return resources.files("amscale.reporting").joinpath("templates", name).read_text(encoding="utf-8")
