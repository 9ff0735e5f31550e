"""The sweeps of docs/results.md: their configurations, their fits and figures, and the commands that run them."""

import itertools
import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amscale.api import Sweep
from amscale.trials.records import TrialResult

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "data"


@dataclass(frozen=True)
class Finding:
    """One sweep of the page.

    Attributes:
        title: what the page calls it.
        configuration: the name of its file in configs/findings.
        settings: overrides that make another sweep of that file.
        fits: arguments of `Sweep.fit` by the name of each fit.
        also: arguments of more fits, of which only the exponents and the capacity are kept: under other counts of N, of
            other parts, at other settings.
        figures: (name of the figure, name of the fit) to draw.
        probes: which records of the probes the archive keeps.
        forecasts: cells of `fit --forecast` and the name of its file, each made before the row of the grid that has
            them is run; these rows come last.
    """

    title: str
    configuration: str
    settings: tuple[str, ...] = ()
    fits: dict[str, dict[str, Any]] = field(default_factory=lambda: {"all": {}})
    also: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: tuple[tuple[str, str], ...] = ()
    probes: str = "none"
    forecasts: tuple[tuple[str, str], ...] = ()


_COUNTS = ("with_head", "total")
_DECAYS = {f"weight decay {decay}": {"where": f"train.weight_decay={decay}"} for decay in ("0.0", "0.1")}
_TREATED = {
    f"z-loss {z}, label smoothing {smoothing}": {"where": f"train.z_loss={z},train.label_smoothing={smoothing}"}
    for z in ("0.0", "0.0001")
    for smoothing in ("0.0", "0.1")
}
_PART, _BATCHES = "data.size>=120000", (64, 128, 256)
"""The part of the rectangle of English whose losses differ, and its batches."""
_CHOICES = {
    **{f"batch {batch}, rate tuned": {"where": f"train.batch_tokens={batch}"} for batch in (256, 512, 1024)},
    **{f"rate {rate}, batch tuned": {"where": f"train.learning_rate={rate}"} for rate in (0.005, 0.01, 0.02, 0.04)},
    "rate 0.01, batch 512": {"where": "train.learning_rate=0.01,train.batch_tokens=512"},
}
"""How else learning rate and batch of capacity_choices are chosen."""
_LARGEST = ("seed=0", "model.width=44", "data.size=32000")
"""The largest N of capacity, at the D of its C."""
_TUNED = {
    "every cell tuned": {},
    **{
        f"batch {batch}, learning rate tuned": {
            "where": f"train.batch_tokens={batch}",
            "tune": ("train.learning_rate",),
        }
        for batch in (*_BATCHES, 512)
    },
}
"""How learning rate and batch of the tuned sweeps of D* are chosen."""


def _by_count(fits: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return these fits under the counts of N that are not the main one."""
    return {f"{label}, {count}": {**given, "count": count} for label, given in fits.items() for count in _COUNTS}


_LAYERS = (("energy", "all"),)
_OPENELM = ("model.family=openelm", "model.head_dimension=8", "model.feed_forward_divisor=8")
_FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "energies": ("vanilla, norm after", ()),
    "energies_gpt2": ("GPT-2", ("name=energies_gpt2", "model.family=gpt2")),
    "energies_openelm": ("OpenELM", ("name=energies_openelm", *_OPENELM)),
    "energies_llama": ("Llama", ("name=energies_llama", "model={family: hub, architecture: llama}")),
}
"""The sweeps of energies; each is run untrained too: the one step of a cosine that ends at 0 has a rate of 0."""
_PARTS = {f"every cell tuned, D from {D // 1000}k": {"where": f"data.size>={D}"} for D in (60_000, 120_000, 240_000)}
FINDINGS = {
    "capacity_rates": Finding("random tokens, four rates", "capacity_rates"),
    "capacity_choices": Finding(
        "random tokens, four rates, three batches",
        "capacity_rates",
        (
            "name=capacity_choices",
            "tune={train.learning_rate: [x0.5, x1, x2, x4], train.batch_tokens: [256, 512, 1024]}",
        ),
        fits={"rate and batch tuned": {}},
        also=_CHOICES,
    ),
    "rates_questions": Finding("Question-Formation, four rates", "rates_questions"),
    "capacity": Finding("random tokens", "capacity", figures=(("capacity", "all"),)),
    "capacity_short": Finding(
        "random tokens, a quarter of the steps", "capacity", ("name=capacity_short", "train.steps=4000")
    ),
    "capacity_long": Finding(
        "random tokens, four times the steps",
        "capacity",
        ("name=capacity_long", "seed=0", "train.steps=max(64000, 2 * N)"),
    ),
    "capacity_longer": Finding(
        "random tokens, 256,000 steps", "capacity", ("name=capacity_longer", "seed=0", "train.steps=256000")
    ),
    "capacity_largest": Finding(
        "random tokens, the largest N at four rates and two batches",
        "capacity",
        (
            "name=capacity_largest",
            *_LARGEST,
            "train.steps=16000",
            "tune={train.learning_rate: [x0.5, x1, x2, x4], train.batch_tokens: [512, 2048]}",
        ),
        fits={},
        also={
            "batch 512, rate by the rule": {"where": "train.batch_tokens=512,train.learning_rate=0.0134837"},
            **{f"batch {batch}, rate tuned": {"where": f"train.batch_tokens={batch}"} for batch in (512, 2048)},
        },
    ),
    "capacity_largest_long": Finding(
        "random tokens, the largest N, 64,000 steps of 2,048 tokens",
        "capacity",
        ("name=capacity_largest_long", *_LARGEST, "train.batch_tokens=2048", "train.steps=64000"),
    ),
    "overfitting_questions": Finding(
        "Question-Formation",
        "overfitting_questions",
        fits=_DECAYS,
        figures=(("frontier", "weight decay 0.0"),),
    ),
    "overfitting_english": Finding(
        "English",
        "overfitting_english",
        fits=_DECAYS,
        also=_by_count(_DECAYS),
        figures=(("frontier", "weight decay 0.0"),),
    ),
    "overfitting_questions_tuned": Finding(
        "Question-Formation, tuned",
        "overfitting_questions",
        (
            "name=overfitting_questions_tuned",
            "model.width=[8,16,24,32]",
            "data.size=[24k,40k,66k,110k,180k]",
            "train.weight_decay=0.0",
            "seed=0",
            "train.steps=1126400 / B",
            "train.validate_every=56320 / B",
            "tune={train.learning_rate: [x0.12, x0.3, x0.7, x1.7, x4.1], train.batch_tokens: [64, 128, 256, 512]}",
        ),
        fits={"every cell tuned": {}},
        also=_by_count({"every cell tuned": {}}),
        figures=(("frontier", "every cell tuned"),),
    ),
    "overfitting_english_tuned": Finding(
        "English, tuned",
        "overfitting_english",
        (
            "name=overfitting_english_tuned",
            "train.weight_decay=0.0",
            "seed=0",
            "train.steps=921600 / B",
            "train.validate_every=30720 / B",
            "tune={train.learning_rate: [x0.5, x1, x2, x4], train.batch_tokens: [64, 128, 256, 512]}",
        ),
        fits=_TUNED,
        also=_by_count({"every cell tuned": {}}),
        figures=(("frontier", "every cell tuned"),),
    ),
    "floor_random": Finding(
        "random tokens", "floor_random", fits=_TREATED, figures=(("entropy", "z-loss 0.0, label smoothing 0.0"),)
    ),
    "floor_grammar": Finding("grammars", "floor_grammar", figures=(("entropy", "all"),)),
    "floor_grammar_long": Finding(
        "grammar with its copied half, half of the words, three times the steps",
        "floor_grammar",
        ("name=floor_grammar_long", "data.word_classes=half", "data.copied_half=true", "train.steps=4500"),
    ),
    "rectangle_english": Finding(
        "English, one pass, tuned",
        "rectangle_english",
        fits={
            "every cell tuned": {},
            "every cell tuned, D from 120k": {"where": _PART},
            **{
                f"batch {batch}, learning rate tuned, D from 120k": {
                    "where": f"{_PART},train.batch_tokens={batch}",
                    "tune": ("train.learning_rate",),
                }
                for batch in _BATCHES
            },
        },
        also=_PARTS | _by_count(_PARTS),
        figures=(("loss", "every cell tuned"),),
        forecasts=(("N=47.3k,D=960k", "larger"), ("N=99.5k,D=1.92M", "largest")),
    ),
    "rectangle_one_rate": Finding(
        "English, one pass, one rate",
        "rectangle_english",
        (
            "name=rectangle_one_rate",
            "model.width=[8,12,16,24,32,44]",
            "data.size=[120k,240k,480k,960k]",
            "train.learning_rate=0.008",
            "tune={train.batch_tokens: [64, 128, 256, 512]}",
        ),
        fits={
            "learning rate 0.008, batch tuned, D from 120k": {},
            **{
                f"learning rate 0.008, batch {batch}, D from 120k": {"where": f"train.batch_tokens={batch}"}
                for batch in (*_BATCHES, 512)
            },
        },
    ),
    "radius_training": Finding("GPT-2 shapes", "radius_training", fits={}),
    **{
        name: Finding(title, "energies", settings, probes="all", figures=_LAYERS if name == "energies" else ())
        for name, (title, settings) in _FAMILIES.items()
    },
    **{
        f"{name}_untrained": Finding(
            f"{title}, untrained",
            "energies",
            (f"name={name}_untrained", *settings[1:], "train.steps=1", "train.warmup=0", "probes.every=1"),
            fits={},
            probes="all",
        )
        for name, (title, settings) in _FAMILIES.items()
    },
}


def archive(name: str) -> Path:
    """Return the archive of a sweep, which need not be there."""
    return DATA / f"{name}.parquet"


def results_of(name: str) -> list[TrialResult]:
    """Return the results in the archive of a sweep."""
    return Sweep.started(archive(name)).trial_results()


def commands(name: str) -> list[list[str]]:
    """Return the commands that run a sweep: one, or one for each row of a grid that is no product.

    Which rows there are is read from the archive, where there is one.
    """
    finding = FINDINGS[name]
    file = f"configs/findings/{finding.configuration}.yaml"
    first = [sys.executable, "-m", "amscale.sweep", file, *finding.settings]
    rows = [first + [f"{key}={_listed(values)}" for key, values in row.items()] for row in rows_of(name)]
    known = len(rows) - len(finding.forecasts)
    if known < 1:  # before it is known which cells come last, there are none to forecast
        return rows
    found = rows[:known]
    for (cells, saved), row in zip(finding.forecasts, rows[known:], strict=True):
        fit = [sys.executable, "-m", "amscale.fit", f"results/{name}", "--forecast", cells, "--save", f"{saved}.json"]
        found += [fit, row]
    return found


def _listed(values: list[Any]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def rows_of(name: str) -> list[dict[str, list[Any]]]:
    """Return the values of the grid's axes for each command that runs a sweep; one without any where all are run."""
    if not archive(name).is_file():
        return [{}]
    axes = [key for key in Sweep.started(archive(name)).experiment.grid if key != "seed"]
    cells = sorted({tuple(result.setting(key) for key in axes) for result in results_of(name)}, key=str)
    cells.sort(key=lambda cell: [value if isinstance(value, int | float) else 0 for value in cell])
    values = [list(dict.fromkeys(cell[index] for cell in cells)) for index in range(len(axes))]
    if len(cells) == len(list(itertools.product(*values))):
        return [{}]
    rows: dict[Any, list[Any]] = {}
    for cell in cells:
        rows.setdefault(cell[0], []).append(cell[1:])
    same: dict[str, list[Any]] = {}
    for value, rest in rows.items():
        same.setdefault(json.dumps(rest), []).append(value)
    found = []
    for text, firsts in same.items():
        rest = json.loads(text)
        others = {key: list(dict.fromkeys(cell[i] for cell in rest)) for i, key in enumerate(axes[1:])}
        found.append({axes[0]: firsts, **others})
    return found


def shown_commands(name: str) -> list[str]:
    """Return the commands as a user types them."""
    return [shlex.join(["python", *command[1:]]) for command in commands(name)]
