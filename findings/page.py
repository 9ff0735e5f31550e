"""Write docs/results.md, and the findings of README.md, from docs/data/estimates.json.

Every number, and every sentence that depends on one, is made from the estimates (tables.py). What is fixed stands in
results.md.j2: what was asked, what the paper says, and what a sweep of this size cannot say whatever comes out.
"""

import re
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import capacities
import energies
import tables
from radius import radius_section
from tables import DOCS, Known, estimate, number, tests_of

from amscale.scaling.answer_on_floor import NEAR
from amscale.scaling.estimate import interval_text

PAGE, README = DOCS / "results.md", DOCS.parent / "README.md"
TUNED_PART = "every cell tuned, D from 120k"
BEGIN, END = "<!-- findings: made by make results -->\n", "<!-- end of findings -->\n"


def write_page(known: Known) -> None:
    """Write the page, and the findings into README.md."""
    PAGE.write_text(render_page(known), encoding="utf-8")
    README.write_text(with_findings(README.read_text(encoding="utf-8"), known), encoding="utf-8")


def with_findings(readme: str, known: Known) -> str:
    """Return the text of README.md with the findings between their marks; as it is without the marks."""
    if BEGIN not in readme:
        return readme
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + render_findings(known) + END + rest.partition(END)[2]


def render_findings(known: Known) -> str:
    """Return the findings that matter most, for README.md."""
    questions = [estimate(known, f"overfitting_{text}", "k_dstar") for text in ("questions", "english")]
    lines = [f"* Random tokens: {capacities.capacity_sentence(known)}"]
    if slope := capacities.slope_of_most_bits(known, "capacity_longer"):
        lines[0] += f" With 256,000 steps at every N, one seed, the slope of the most bits seen is {slope}."
    for text, item in zip(("Question-Formation", "English"), questions, strict=True):
        if item is not None:
            moved = item["details"].get("for_tuned_runs")
            told = "" if moved is None else f"; of tuned runs it may be {interval_text(moved)}"
            told += f"; it {tests_of(item)}" if item["value"] is not None else ""
            lines.append(f"* {text}, over-fitting threshold D*, weight decay 0: k is {number(item)}{told}.")
    tuned = estimate(known, "rectangle_english", "k_kaplan", TUNED_PART)
    if tuned is not None and tuned["value"] is not None:
        lines.append(
            "* English, one pass, rate and batch tuned in every cell of D from 120k: by Kaplan's law k is "
            f"{number(tuned)}; it {tests_of(tuned)}."
        )
    below = [row for row in _floors(known) if row["entropy"] is not None and row["entropy"] < 1]
    if below:
        settled = sum(abs(row["value"] / row["entropy"] - 1) < NEAR for row in below)
        lines.append(
            f"* The floor, without label smoothing: of {len(below)} texts and treatments whose entropy is below 1 nat "
            f"per token, validation loss came within {100 * NEAR:.0f} % of the entropy in {settled}."
        )
    wrapped = (textwrap.fill(line, 128, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
    return "\n".join(wrapped) + "\n"


def _floors(known: Known) -> list[dict[str, Any]]:
    """Return the least validation loss and the entropy of each text whose loss was not smoothed."""
    found = []
    for name in ("floor_random", "floor_grammar"):
        fits = known.get(name, {}).get("fits", {})
        for fit in (fit for label, fit in fits.items() if "smoothing 0.1" not in label):
            for item in fit.get("estimates", ()):
                if item["id"].startswith("floor_validation") and item["value"] is not None:
                    found.append({"value": item["value"], "entropy": item["details"]["references"].get("entropy")})
    return found


def render_page(known: Known) -> str:
    """Return the text of docs/results.md: the template, with what its calls make of the estimates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    calls: dict[str, Any] = {
        "runs": tables.runs_table,
        "tuned": tables.tuned_table,
        "tuned_rules": tables.tuned_rules,
        "k_table": tables.k_table,
        "treatments": tables.treatments_table,
        "slopes": capacities.slopes_table,
        "longer": capacities.longer_sentence,
        "says": tables.says,
        "picture": tables.picture,
        "capacity_sentence": capacities.capacity_sentence,
        "capacities": capacities.capacity_table,
        "counts": capacities.count_table,
        "rest": capacities.rest_sentence,
        "trend": tables.dstar_trend,
        "dstars": tables.dstar_table,
        "floors": tables.floor_table,
        "energies": energies.energies_table,
        "energies_and_loss": energies.energies_against_loss,
        "laws": tables.laws_table,
        "forecasts": tables.forecasts,
        "any_of": any_of,
    }
    made = {name: partial(call, known) for name, call in calls.items()}
    text = environment.get_template("results.md.j2").render(**made, radii=radius_section, smoothed=tables.smoothed)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def any_of(known: Known, names: Sequence[str]) -> bool:
    """Return whether any of these sweeps has been run."""
    return any(name in known for name in names)
