"""Formulas in HTML.

The page: one HTML file that asks the network for nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import amscale
from amscale.reporting import sentences, tables
from amscale.reporting.chart import Chart
from amscale.reporting.gather import Sweep
from amscale.reporting.interactive import formula, to_plotly
from amscale.reporting.static import columns_of

if TYPE_CHECKING:
    pass


def render(sweep: Sweep, charts: Sequence[Chart], palette: dict[str, tuple[str, str]]) -> str:
    """The HTML text. Every text from the sweep is escaped; scripts, style and data stand in the file itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("amscale.reporting"),
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
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(_template("style.css")),
        script=Markup(_template("charts.js")),
        plotly=Markup(get_plotlyjs()),
    )


def _shown(chart: Chart) -> dict[str, Any]:
    return {"chart": chart, "columns": columns_of(len(chart.panels))}


def _template(name: str) -> str:
    return resources.files("amscale.reporting").joinpath("templates", name).read_text(encoding="utf-8")
