"""From a configuration to the list of its trials, each with its shape, steps, cost and place."""

import math
import statistics
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from amscale import models
from amscale.cluster.launcher import Placement
from amscale.cluster.resources import Resources, assumed_flops
from amscale.config import Experiment, expand
from amscale.data import (
    CorpusSettings,
    KnownFacts,
    Subset,
    TokenStore,
    corpus_content,
    known_facts,
    prepare,
    store_name,
)
from amscale.errors import InputError
from amscale.models import FLOPS_FORMULA, Shape
from amscale.planning.placement import Memory, choose
from amscale.trials.identity import trial_id, trial_label
from amscale.trials.sweep_store import SweepStore

# Start of a trial: Ray's actor, `accelerate launch`, imports and DeepSpeed's engine.
_START_SECONDS = 9.0
# What a step costs beside its arithmetic: Python, the optimiser's many small tensors, records.
_STEP_SECONDS = 0.006


@dataclass(frozen=True)
class Steps:
    """How a trial's tokens become optimiser steps."""

    context: int
    """Tokens of a sequence, at most."""
    sequences: int
    """Sequences of a global batch."""
    mean: float
    """Mean tokens of a sequence over the corpus."""
    steps: int


@dataclass(frozen=True)
class TrialPlan:
    """One trial before it runs."""

    cell: Experiment
    identity: str
    label: str
    shape: Shape
    n: int
    """Model size under the sweep's counting convention."""
    tokens: int
    """D: unique training tokens."""
    length: Steps
    flops: float
    """Training FLOPs of all steps."""
    placement: Placement
    memory: Memory
    seconds: float
    """Expected wall time, start included."""
    store: TokenStore | None
    """None in a plan that was made before the corpus was tokenised."""


@dataclass(frozen=True)
class SweepPlan:
    """All trials of a sweep, in the order of the grid."""

    trials: tuple[TrialPlan, ...]
    axes: tuple[str, ...]
    """Dotted keys that the grid varies."""
    resources: Resources
    count: str
    flops_formula: str
    seconds: float
    """Expected wall time of the sweep on these machines."""
    time_basis: str


def tokens_folder(storage: Path) -> Path:
    """Where token stores are kept, shared by the sweeps of one storage."""
    return storage / "tokens"


def setting(cell: Experiment, key: str) -> object:
    """The value of a dotted key in one cell."""
    value: object = cell
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def plan_sweep(config: Experiment, storage: Path, resources: Resources, *, build: bool = True) -> SweepPlan:
    """Resolve every cell of the grid.

    D, the vocabulary and the mean length of a sequence are facts of the tokens, so the corpus is tokenised first (once:
    the store is cached by content), unless only a plan is wanted and these facts are known without.

    Args:
        config: the experiment.
        storage: folder of results and token stores.
        resources: what the machines have.
        build: whether to build token stores that are not there yet even where the plan can do without.

    Raises:
        InputError: a size that no shape reaches, a corpus smaller than D, a model that fits no machine, or two cells
            that are one trial.
    """
    measured = _measured_flops(SweepStore(storage / config.name))
    corpora: dict[CorpusSettings, TokenStore | None] = {}
    facts: dict[CorpusSettings, KnownFacts] = {}
    contents: dict[CorpusSettings, dict[str, Any]] = {}
    trials = []
    for cell in expand(config):
        corpus = cell.data.model_copy(update={"size": None, "packing": "document", "context": None})
        # A D that is given needs no tokens; a later cell may want all that there are.
        if corpus not in corpora or (corpora[corpus] is None and cell.data.size is None):
            corpora[corpus] = _store(cell.data, tokens_folder(storage), build)
            contents[corpus] = _content(cell.data)
        tokens = corpora[corpus] or _facts(cell.data, facts)
        trials.append(_plan_cell(cell, tokens, contents[corpus], resources, config.fit.count, measured))
    _refuse_twins(trials, tuple(config.grid))
    return SweepPlan(
        trials=tuple(trials),
        axes=tuple(config.grid),
        resources=resources,
        count=config.fit.count,
        flops_formula=f"{FLOPS_FORMULA}: {models.FLOPS_FORMULAS[FLOPS_FORMULA]}",
        seconds=_makespan(trials, resources, config.launch.concurrent_trials),
        time_basis="speed measured in this sweep" if measured else "an assumed speed, until a trial has been measured",
    )


def _store(settings: CorpusSettings, folder: Path, build: bool) -> TokenStore | None:
    """The corpus's store; None where a plan needs none."""
    far = not build and settings.size is not None and not _prepared(settings, folder)
    return None if far and known_facts(settings) is not None else prepare(settings, folder)


def _facts(settings: CorpusSettings, cache: dict[CorpusSettings, KnownFacts]) -> KnownFacts:
    """What is known of a corpus without its tokens: milliseconds to find, and a grid has many cells of one corpus."""
    unsized = settings.model_copy(update={"size": None})
    if unsized not in cache:
        found = known_facts(unsized)
        assert found is not None
        cache[unsized] = found
    return cache[unsized]


def _content(settings: CorpusSettings) -> dict[str, Any]:
    """What tells the content of the corpus's files; nothing in the plan of a corpus that is not here."""
    try:
        return corpus_content(settings)
    except InputError:
        return {}


def _prepared(settings: CorpusSettings, folder: Path) -> bool:
    try:
        return (folder / store_name(settings)).is_dir()
    except InputError:  # the corpus itself is not here, so nothing can have been made of it here
        return False


def plan_steps(cell: Experiment, store: TokenStore, subset: Subset) -> Steps:
    """Batch and length of a run from its settings and the facts of its tokens; the same in plan and training."""
    context = cell.data.context or store.longest_document
    mean = context if cell.data.packing == "stream" else min(context, store.training_tokens / store.training_documents)
    return _steps(cell, context, mean, subset.unique_tokens)


def _steps(cell: Experiment, context: int, mean: float, unique_tokens: int) -> Steps:
    sequences = max(1, round(cell.train.batch_tokens / mean))
    if cell.train.steps is not None:
        return Steps(context, sequences, mean, cell.train.steps)
    assert cell.train.epochs is not None
    return Steps(context, sequences, mean, math.ceil(cell.train.epochs * unique_tokens / (sequences * mean)))


def plan_trial(cell: Experiment, store: TokenStore, resources: Resources, count: str) -> TrialPlan:
    """Resolve one cell against its token store; see `plan_sweep`."""
    return _plan_cell(cell, store, corpus_content(cell.data), resources, count, None)


def _plan_cell(
    cell: Experiment,
    corpus: TokenStore | KnownFacts,
    content: dict[str, Any],
    resources: Resources,
    count: str,
    measured: float | None,
) -> TrialPlan:
    if isinstance(corpus, TokenStore):
        subset = corpus.training(cell.data.size, cell.data.packing, cell.data.copies)
        tokens, length = subset.unique_tokens, plan_steps(cell, corpus, subset)
    else:
        assert cell.data.size is not None
        tokens = cell.data.size
        length = _steps(cell, corpus.context, corpus.mean_tokens_per_sequence, tokens)
    shape = models.solve(cell.model, corpus.vocabulary_size, length.context)
    choice = choose(cell, shape, length.sequences, resources)
    placement = choice.placement
    flops = models.flops_per_token(shape) * length.steps * length.sequences * length.mean
    speed = measured or assumed_flops(placement.device, placement.cpus_per_process)
    identity = trial_id(cell, _dimensions(shape), content)
    return TrialPlan(
        cell=cell,
        identity=identity,
        label=trial_label(cell, shape.parameters.under("non_embedding"), tokens, identity),
        shape=shape,
        n=shape.parameters.under(count),
        tokens=tokens,
        length=length,
        flops=flops,
        placement=placement,
        memory=choice.memory,
        seconds=_START_SECONDS + length.steps * _STEP_SECONDS + flops / (speed * placement.world_size),
        store=corpus if isinstance(corpus, TokenStore) else None,
    )


@lru_cache(maxsize=4096)
def _dimensions(shape: Shape) -> dict[str, Any]:
    """What of a shape counts for a trial's identity: not how it was asked for, and not what follows from the data."""
    return {k: v for k, v in shape.as_dict().items() if k not in ("wanted", "count", "vocabulary")}


def _measured_flops(folder: SweepStore) -> float | None:
    """Median training FLOP/s of one process over the sweep's finished trials, or None."""
    speeds = []
    for trial in folder.all_trials():
        result = trial.read_result()
        if result and result["time"]["device_seconds"]:
            speeds.append(result["flops"]["total"] / result["time"]["device_seconds"])
    return statistics.median(speeds) if speeds else None


def _makespan(trials: list[TrialPlan], resources: Resources, concurrent: int | None) -> float:
    """Wall time if the longest trials start first and each machine's slots are shared out as they free."""
    slots = 0
    for trial in trials:
        capacity = sum(resources.processes(trial.placement.device, trial.placement.cpus_per_process))
        slots = max(slots, capacity // trial.placement.world_size)
    slots = max(1, min(slots, concurrent or slots))
    ends = [0.0] * slots
    for seconds in sorted((t.seconds for t in trials), reverse=True):
        ends[ends.index(min(ends))] += seconds
    return max(ends)


def _refuse_twins(trials: list[TrialPlan], keys: tuple[str, ...]) -> None:
    seen: dict[str, TrialPlan] = {}
    for trial in trials:
        twin = seen.setdefault(trial.identity, trial)
        if twin is not trial:
            values = ", ".join(f"{key}={setting(twin.cell, key)} and {setting(trial.cell, key)}" for key in keys)
            raise InputError(f"grid: two cells are one and the same trial ({values}); remove one of them")
