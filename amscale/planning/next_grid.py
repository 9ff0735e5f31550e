"""Write the next cells of a sweep as a configuration that `amscale.plan` and `amscale.sweep` take unchanged."""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from amscale.config import Experiment, expand, parse
from amscale.data import Corpus, open_store, store_name
from amscale.errors import InputError, one_line
from amscale.planning.next_sizes import AMOUNT, SIZE, amounts_of, by_size, reachable, rounded, scaled, sizes_of
from amscale.planning.plan import tokens_folder
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.dstar import cell_criteria, check_window, locate_all
from amscale.scaling.fit import at_best, tuned
from amscale.scaling.kinds import unlike_rows
from amscale.scaling.next_cells import WIDEST, NextCells, check_number, next_cells
from amscale.scaling.points import PointTable, drop_highest, sample
from amscale.scaling.reading import read_sweep
from amscale.scaling.several_corpora import by_corpus
from amscale.scaling.table import Columns, read_table
from amscale.scaling.verdict import NextStep
from amscale.settings import format_duration, format_size
from amscale.trials.archive import MARK
from amscale.trials.sweep_store import SweepStore

Fitted = TypeVar("Fitted", bound=BaseFit)
_MARGIN = 1.05
"""A corpus is raised to this many times the tokens that are wanted: documents differ in length."""


@dataclass(frozen=True)
class _Corpus:
    """What a corpus has to train on."""

    tokens: float | None
    """Training tokens; None where that is not known before it is tokenised."""
    documents: int = 0
    """Documents in all, by the setting `enlarged_by`."""
    held_out: float = 0
    """Documents held out: their number, or a share below 1."""
    enlarged_by: str | None = None
    """The setting of the corpus that makes it larger; None where no setting can."""


def next_grid_of_sweep(
    folder: str | Path, number: int, count: str = "non_embedding", window: float = 0.2, threshold: float = 0.04
) -> str:
    """Return the sweep's configuration with a grid of the next cells: run, it adds them to the sweep.

    Sizes are those that the model family reaches. A D beyond the corpus is proposed only where the corpus can be made
    larger, and the configuration then asks for the larger one.

    Raises:
        InputError: as `read_sweep` and `next_cells`; or the sweep's sizes are not set by model.size and data.size.
    """
    check_window(window)
    return _of_sweep(folder, at_best(read_sweep(folder, count)), number, count, window, threshold).text


PROPOSED = 4
"""Cells of the next step that a verdict names."""


def with_next_step(fit: Fitted, address: str | None = None) -> Fitted:
    """Return a fit whose verdict ends with the cells that `--next 4` names, or with the reason why it names none.

    Args:
        fit: of a sweep, of a part of one (which has no next cells), or of a table.
        address: the sweep or the table as a user names it; by default the source of the fit.
    """
    return fit if fit.settings.get("where") else replace(fit, next_step=_next_step(fit, address or fit.table.source))


def _next_step(fit: BaseFit, address: str) -> NextStep:
    if "k_all_kinds" in fit:
        return NextStep(reason="rows of several kinds have no common law; a fit of one kind (--where) names them")
    path = Path(fit.table.source)
    first = f"python -m amscale.fit {shlex.quote(address)} --next {PROPOSED}"
    try:
        if not path.is_dir():
            chosen, runs, speed = next_cells(fit.table, PROPOSED), 1, None
            commands: tuple[str, ...] = (first + _flags_of_table(fit.settings),)
        else:
            settings = {name: fit.settings[name] for name in ("count", "window", "threshold")}
            found = _of_sweep(path, fit.table, PROPOSED, **settings)
            chosen, runs, speed = found.cells, found.runs, _speed(fit.table)
            commands = (f"{first} > next.yaml", "python -m amscale.sweep next.yaml", *found.further)
    except InputError as error:
        return NextStep(reason=one_line(str(error).removeprefix(f"next={PROPOSED}: ")))
    if chosen.by_law and not chosen.width_then < WIDEST:
        return NextStep(
            reason=f"no {PROPOSED} cells narrow the k of Chinchilla's law, which these runs do not show; more N, or "
            "another seed, narrow the other estimates"
        )
    flops = runs * sum(chosen.flops)
    width = f"from a width of {_width(chosen.width_now)} to about {_width(chosen.width_then)}"
    promise = f"the 95 % interval of k would narrow {width} ({chosen.how})"
    if chosen.by_law and fit["k_chinchilla"].value is None:
        promise += ", if that law holds, which these runs do not show"
    return NextStep(commands, chosen.cells * runs, flops, flops / speed if speed else None, promise)


def _flags_of_table(settings: Mapping[str, Any]) -> str:
    """Return the flags, each after a blank, without which a command would read a table otherwise than the fit did."""
    usual = Columns().to_dict() | {"loss_unit": "nats", "bytes_per_token": None, "drop_highest": 0, "sample": None}
    given = {name: settings[name] for name, value in usual.items() if settings.get(name, value) != value}
    if settings.get("tune") is not None:
        given["tune"] = ",".join(settings["tune"]) or "none"
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items())


@dataclass(frozen=True)
class _Proposal:
    """Next cells, the runs of each, the configuration that adds them, and commands for those outside its grid."""

    cells: NextCells
    runs: int
    text: str
    further: tuple[str, ...]


def _of_sweep(
    folder: str | Path, table: PointTable, number: int, count: str, window: float, threshold: float
) -> _Proposal:
    check_number(number)
    if len(corpora := by_corpus(table)) > 1:
        raise InputError(
            f"{folder} holds trials of {len(corpora)} corpora ({'; '.join(corpora)}), and next cells are those of one; "
            "run a sweep of that one alone"
        )
    tree, by_dimensions = by_size(_configuration(Path(folder)), table)
    sizes, amounts = sizes_of(table, by_dimensions), amounts_of(table)
    experiment = parse(tree)
    corpus = _corpus_of(experiment, tokens_folder(Path(folder).absolute().parent))
    sizes = reachable(tree, table, count, sizes, by_dimensions)
    criteria, _ = cell_criteria(table.cells(), window)
    values = {cell: [item.value for item in items] for cell, items in criteria.items()}
    most = math.inf if corpus.enlarged_by or corpus.tokens is None else corpus.tokens
    chosen = next_cells(table, number, locate_all(values, threshold), list(sizes), most)
    runs = _runs(tree)
    lines = _header(chosen, runs, _speed(table))
    blocks = [([sizes[N] for N in row], [scaled(D, amounts) for D in column]) for row, column in chosen.blocks()]
    further = _commands(blocks[1:])
    if further:
        lines.append(
            "These cells are several grids. Saved as next.yaml, the configuration below is the first; the others are"
        )
        lines += [f"  {command}" for command in further]
    if by_dimensions:
        lines.append(f"Sizes are given by model.size in place of {', '.join(by_dimensions)}: the family finds shapes.")
    lines += _enlarge(tree, corpus, max(max(column) for _, column in blocks))
    first, second = blocks[0]
    tree["grid"] = dict(tree.get("grid") or {}) | {SIZE: first, AMOUNT: second}
    text = "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return _Proposal(chosen, runs, text, tuple(further))


def next_grid_of_table(
    path: str | Path,
    number: int,
    highest: int = 0,
    columns: Columns | None = None,
    loss_unit: str = "nats",
    bytes_per_token: float | None = None,
    tune: Sequence[str] | None = None,
    rows: int | None = None,
) -> str:
    """Return the next cells for a table of points, as settings to put on a configuration.

    Args:
        path: the table.
        number: cells to propose.
        highest: rows of highest loss to leave out.
        columns, loss_unit, bytes_per_token, tune: as for `read_table`.
        rows: number of rows to draw at random; None for all.

    Raises:
        InputError: as `read_table` and `next_cells`.
    """
    table = sample(drop_highest(read_table(path, columns, loss_unit, bytes_per_token, tune=tune), highest), rows)
    tuning = tuned(table, 0)
    table = table if tuning is None else tuning.table
    if reason := unlike_rows(table):
        raise InputError(reason)
    chosen = next_cells(table, number)
    ((sizes, amounts),) = chosen.blocks()
    grid = {SIZE: [rounded(N) for N in sizes], AMOUNT: [rounded(D) for D in amounts]}
    overrides = " ".join(f"'grid.{key}={values}'".replace(" ", "") for key, values in grid.items())
    lines = [
        *_header(chosen, 1, None),
        "A table has no configuration. On one whose model.count is the table's way to count N, they are",
        f"  python -m amscale.sweep CONFIG {overrides}",
        "or, written into it, as below. Where the family has no such size, or the corpus no such D, the plan says what",
        "it has.",
    ]
    return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump({"grid": grid}, sort_keys=False)


def _header(chosen: NextCells, runs: int, speed: float | None) -> list[str]:
    """Say what the cells promise and cost; `speed` is in FLOP/s of one device."""

    def cost(flops: float) -> str:
        return f"{flops:.3g} FLOPs" + (
            f", about {format_duration(flops / speed)} of training on one device" if speed else ""
        )

    lines = [
        f"Cells that would narrow the 95 % interval of k the most ({chosen.how}):",
        f"its width is {_width(chosen.width_now)} now, about {_width(chosen.width_then)} with them.",
    ]
    for (N, D), flops in zip(chosen.cells, chosen.flops, strict=True):
        lines.append(f"  N {format_size(N)}, D {format_size(D)}: {cost(flops)}")
    repeated = f" with the {runs} runs of each cell that the other axes ask for" if runs > 1 else ""
    if repeated or len(chosen.cells) > 1:
        lines.append(f"In all{repeated}: {cost(runs * sum(chosen.flops))}.")
    return lines


def _width(width: float) -> str:
    return f"{width:.3g}" if np.isfinite(width) else "unbounded"


def _commands(blocks: Sequence[tuple[list[Any], list[int]]]) -> list[str]:
    """Return the commands for cells outside the first grid: the same configuration, its grid narrowed to each block."""
    commands = []
    for sizes, amounts in blocks:
        words = [f"{key}={v[0] if len(v) == 1 else v}" for key, v in ((SIZE, sizes), (AMOUNT, amounts))]
        commands.append("python -m amscale.sweep next.yaml " + " ".join(f"'{w}'" if "[" in w else w for w in words))
    return commands


def _runs(tree: dict[str, Any]) -> int:
    """Return the runs of one cell: the product of the lengths of the other axes."""
    axes = (values for key, values in (tree.get("grid") or {}).items() if key not in (SIZE, AMOUNT))
    return math.prod(len(values) if isinstance(values, list) else 1 for values in axes)


def _speed(table: PointTable) -> float | None:
    """Return the median training FLOP/s of one device over the sweep's runs; None where they were not timed."""
    speeds = [speed for point in table.points if point.result is not None and (speed := point.result.device_flops)]
    return statistics.median(speeds) if speeds else None


def _configuration(folder: Path) -> dict[str, Any]:
    """Return the sweep's configuration, with name and storage of the folder where it is now."""
    marker = folder / "sweep.yaml"
    if not marker.is_file():
        raise InputError(f"{folder}: has no sweep.yaml, so there is no configuration to put the next cells into")
    tree = SweepStore(folder).read_marker()
    tree.pop("format", None)
    if (folder / MARK).is_file():
        return tree
    here, storage = folder.absolute(), str(tree.get("storage", "results"))
    if "://" not in storage and (Path(storage).expanduser() / str(tree.get("name"))).resolve() != here.resolve():
        tree |= {"name": here.name, "storage": str(here.parent)}
    return tree


def _corpus_of(experiment: Experiment, tokens: Path) -> _Corpus:
    """Return what the sweep's corpus has to train on; of several corpora, the smallest, without a way to enlarge it."""
    found = {
        cell.data.model_copy(update={"size": None, "packing": "document", "context": None})
        for cell in expand(experiment)
    }
    known = [_corpus(settings, tokens) for settings in found]
    if len(known) == 1:
        return known[0]
    sizes = [corpus.tokens for corpus in known if corpus.tokens is not None]
    return _Corpus(min(sizes) if sizes else None)


def _corpus(settings: Corpus, tokens: Path) -> _Corpus:
    source, setting = settings.source_statistics(), settings.enlarging_setting.removeprefix("data.")
    documents = getattr(settings, setting, None) if source is not None else None
    held_out = float(settings.validation)
    place = tokens / store_name(settings)
    if (place / "store.json").is_file():
        store = open_store(place)
        amount: float | None = store.training_tokens
    elif source is not None and source.tokens_per_document is not None and isinstance(documents, int):
        left = documents * (1 - held_out) if held_out < 1 else documents - held_out
        amount = source.tokens_per_document * left
    else:
        amount = None
    return _Corpus(amount, documents or 0, held_out, setting if isinstance(documents, int) else None)


def _enlarge(tree: dict[str, Any], corpus: _Corpus, wanted: float) -> list[str]:
    """Enlarge the corpus in `tree` where `wanted` tokens are more than it has; return the lines that say so."""
    if corpus.tokens is None:
        return [
            "How many tokens the corpus has is not known here; the plan names the setting to raise if D is beyond it."
        ]
    if corpus.enlarged_by is None:
        return [f"No D beyond the {format_size(corpus.tokens)} training tokens of the corpus is considered."]
    if wanted <= corpus.tokens:
        return []
    fixed = corpus.held_out if corpus.held_out >= 1 else 0
    documents = fixed + _MARGIN * wanted / corpus.tokens * (corpus.documents - fixed)
    step = 10 ** max(0, math.floor(math.log10(documents)) - 2)
    raised = math.ceil(documents / step) * step
    tree.setdefault("data", {})[corpus.enlarged_by] = raised
    return [
        f"D up to {format_size(wanted)} is beyond the {format_size(corpus.tokens)} training tokens of the corpus: "
        f"data.{corpus.enlarged_by} is raised from {corpus.documents} to {raised}.",
        "The larger corpus has the same source, but holds out other documents: the validation losses of old and new",
        "cells are those of two samples of it.",
    ]
