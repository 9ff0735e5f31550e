"""The page: one HTML file that asks the network for nothing."""

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import resources
from typing import Any

import amscale
from amscale.reporting.report import sentences, tables
from amscale.reporting.report.chart import Chart
from amscale.reporting.report.formula import formula
from amscale.reporting.report.gather import Sweep
from amscale.reporting.report.interactive import to_plotly
from amscale.reporting.report.static import columns_of


def render(sweep: Sweep, charts: Sequence[Chart], palette: dict[str, tuple[str, str]]) -> str:
    """The HTML text. Every text from the sweep is escaped; scripts, style and data stand in the file itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("amscale.reporting.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["formula"] = formula
    page = environment.get_template("page.html.j2")
    return page.render(
        sweep=sweep,
        headline=sentences.headline(sweep),
        numbers=sentences.figures(sweep),
        passages=sentences.passages(sweep),
        charts=[_shown(chart) for chart in charts],
        data={"palette": palette, "charts": [to_plotly(chart) for chart in charts]},
        palette=palette,
        estimates=tables.estimate_rows(sweep),
        laws=tables.law_table(sweep),
        trials=tables.trial_table(sweep),
        probes=tables.probe_table(sweep),
        left_out=tables.left_out_table(sweep),
        versions=tables.versions(sweep),
        outside_grid=tables.outside_grid(sweep),
        commands=tables.commands(sweep.folder),
        trial_commands=[(trial.label, trial.command) for trial in sweep.trials if trial.command],
        amscale_version=amscale.__version__,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(_template("style.css")),
        script=Markup(_template("charts.js")),
        plotly=Markup(get_plotlyjs()),
    )


def _shown(chart: Chart) -> dict[str, Any]:
    return {"chart": chart, "columns": columns_of(len(chart.panels))}


def _template(name: str) -> str:
    return resources.files("amscale.reporting.report").joinpath("templates", name).read_text(encoding="utf-8")
