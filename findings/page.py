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

import answers
import capacities
import energies
import tables
import thresholds
from radius import radius_section
from tables import DOCS, Known

PAGE, README = DOCS / "results.md", DOCS.parent / "README.md"
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
    parts = [
        f"* Random tokens: {capacities.capacity_sentence(known)}\n",
        f"* Over-fitting threshold, weight decay 0: {thresholds.dstar_summary(known)}\n",
        f"* English, one pass, every cell tuned: {answers.part_answer(known)}\n",
        answers.floor_summary(known),
    ]
    if slope := capacities.slope_of_most_bits(known, "capacity_longer"):
        parts[0] = (
            parts[0].rstrip() + f" With 256,000 steps at every N, at one D and one seed each, the slope is {slope}.\n"
        )
    lines = [line for part in parts for line in part.splitlines()]
    wrapped = (textwrap.fill(line, 128, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
    return "\n".join(wrapped) + "\n"


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
        "says": tables.says,
        "picture": tables.picture,
        "floors": tables.floor_table,
        "laws": tables.laws_table,
        "forecasts": tables.forecasts,
        "slopes": capacities.slopes_table,
        "longer": capacities.longer_sentence,
        "capacity_sentence": capacities.capacity_sentence,
        "capacities": capacities.capacity_table,
        "counts": capacities.count_table,
        "failing": thresholds.failing_sentences,
        "dstars": thresholds.dstar_table,
        "windows": thresholds.window_table,
        "by_count": thresholds.count_of_N_table,
        "dstar_answer": thresholds.dstar_answer,
        "energies": energies.energies_table,
        "energies_and_loss": energies.energies_against_loss,
        "any_of": any_of,
        "choices_answer": answers.choices_answer,
        "spread_of_losses": answers.spread_of_losses,
        "capacity_answer": answers.capacity_answer,
        "floor_answer": answers.floor_answer,
        "energies_answer": answers.energies_answer,
        "optimum_answer": answers.optimum_answer,
    }
    made = {name: partial(call, known) for name, call in calls.items()}
    text = environment.get_template("results.md.j2").render(**made, radii=radius_section)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def any_of(known: Known, names: Sequence[str]) -> bool:
    """Return whether any of these sweeps has been run."""
    return any(name in known for name in names)
