"""Plan a sweep: the list of its trials, each with its shape, steps, cost and placement."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale import models
from amscale.cluster.resources import Resources
from amscale.cluster.supervisor import measured_grace
from amscale.config import Experiment, LaunchSettings
from amscale.config.loading import all_axes
from amscale.errors import InputError
from amscale.models import FLOPS_FORMULA
from amscale.planning.branches import describe_branches, describe_refused, plan_branches
from amscale.planning.corpora import Corpora
from amscale.planning.memory import compare_memory
from amscale.planning.packs import Pack, describe_packs, loads, plan_packs
from amscale.planning.resolving import describe_policies
from amscale.planning.sharing import share_gpus
from amscale.planning.speeds import Speeds, speeds_for
from amscale.planning.staging import stage_cells
from amscale.planning.times import makespan, places
from amscale.planning.trial_plan import TrialPlan, place_again, plan_cell, seconds_after, with_threads
from amscale.settings import counted
from amscale.trials.records import Placement, TrialResult
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from pandas import DataFrame

_RECORD_BYTES = 350
"""Of a step: its line in metrics.jsonl and what TensorBoard keeps."""
_AXES_IN_COLUMNS = {"model.size", "model.layers", "model.width", "data.size", "seed", "train.steps"}
"""Axes whose values the columns of every plan show."""


@dataclass(frozen=True)
class SweepPlan:
    """All trials of a sweep, by N, D and seed; those that agree in these in the order of the grid."""

    trials: tuple[TrialPlan, ...]
    axes: tuple[str, ...]
    """Dotted keys that the grid varies."""
    grid: tuple[str, ...]
    """Those of `axes` that make the cells; over the others each cell is tuned."""
    stops_early: bool
    """Whether hopeless values of tuned settings are stopped early."""
    resources: Resources
    count: str
    """Convention for N."""
    flops_formula: str
    seconds: float
    """Expected wall time of the sweep on these machines."""
    speeds: Speeds
    """What the expected times rest on."""
    concurrent: int | None
    """Trials that may run at a time, at most; None where the machines decide."""
    end_seconds: float
    """Seconds that trials may need to write their checkpoints when they are asked to end."""
    texts: tuple[str, ...] = ()
    """A sentence on each text: its documents, and what its tokenizer lost."""
    policies: tuple[str, ...] = ()
    """A sentence on each policy: its source, what N is in it, and what was set by hand instead."""
    stages: tuple[str, ...] = ()
    """A sentence on each stage of a sweep that tunes small cells first."""
    later: tuple[TrialPlan, ...] = ()
    """Trials of the second stage while the first has not all its results; their tuned settings are provisional."""
    memory_basis: tuple[str, ...] = ()
    """A sentence for each kind of device whose memory estimates are corrected by earlier results of the sweep."""
    packs: tuple[Pack, ...] = ()
    """Trials without a result that one process trains together."""
    pack_notes: tuple[str, ...] = ()
    """What a reader should know of them."""
    branch_notes: tuple[str, ...] = ()
    """The same of stable phases that trials share, or could share."""
    waiting: frozenset[str] = frozenset()
    """Labels of the trials that have no result."""
    foreign: int = 0
    """Results in the sweep's folder that are of other corpora."""

    @property
    def further_axes(self) -> tuple[str, ...]:
        """Axes, and settings that rules or a policy give differently, that no column of a plan shows otherwise."""
        keys = [*self.axes, *(key for key, values in self._by_rule().items() if len(values) > 1)]
        return tuple(key for key in dict.fromkeys(keys) if key not in _AXES_IN_COLUMNS)

    @property
    def common_settings(self) -> dict[str, Any]:
        """Settings that rules or a policy give, and that are the same for all trials."""
        return {key: values[0] for key, values in self._by_rule().items() if len(values) == 1 and key not in self.axes}

    def _by_rule(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for key in dict.fromkeys(key for trial in self.trials for key in trial.by_rule):
            for value in (trial.setting(key) for trial in self.trials):
                if value not in found.setdefault(key, []):
                    found[key].append(value)
        return found

    def cell_of(self, trial: TrialPlan) -> str:
        """Return what a trial has in common with those that differ in tuned settings alone; empty where none stops."""
        return json.dumps({key: trial.setting(key) for key in self.grid}, default=str) if self.stops_early else ""

    def cards(self, placement: Placement) -> str:
        """Return the GPUs that may run a trial, by count and kind; empty on the CPU, and where none has a name."""
        return " or ".join(self.resources.suited(placement).cards()) if placement.device == "cuda" else ""

    @property
    def time_basis(self) -> str:
        """What the expected times rest on, in words, and for how many trials no step of about their size."""
        if not self.speeds.measured or not (far := len(self.unmeasured)):
            return self.speeds.basis
        return f"{self.speeds.basis}, but in steps of other sizes than those of {counted(far, 'trial')}"

    @property
    def unmeasured(self) -> list[TrialPlan]:
        """The trials of which no step of about their FLOPs was measured; thousands have few kinds of steps."""

        def kind(trial: TrialPlan) -> tuple[str, float, Placement]:
            return trial.shape.family, trial.flops / trial.steps, trial.placement

        known = {each: self.speeds.know(*each) for each in {kind(trial) for trial in self.trials}}
        return [trial for trial in self.trials if not known[kind(trial)]]

    @property
    def left(self) -> list[TrialPlan]:
        """The trials that have no result."""
        return [trial for trial in self.trials if trial.label in self.waiting]

    def wall_seconds(self, trials: Sequence[TrialPlan]) -> float:
        """Return the expected wall time of some of the trials, packed as planned."""
        return makespan(loads(trials, self.packs, self.resources, self.speeds), self.resources, self.concurrent)

    @property
    def storage(self) -> int:
        """Bytes that the trials leave: weights in float32, and their records."""
        return sum(4 * trial.shape.parameters.total + _RECORD_BYTES * trial.steps for trial in self.trials)

    @property
    def checkpoint_storage(self) -> int:
        """Bytes of checkpoints while the trials that need the most run: weights and both moments in float32."""
        sizes = sorted(
            (12 * t.shape.parameters.total * (t.cell.launch.keep_checkpoints + 1) for t in self.trials), reverse=True
        )
        if not sizes:
            return 0
        return sum(sizes[: places(self.trials[-1].placement, self.resources, self.concurrent)])

    def to_frame(self) -> "DataFrame":
        """Return a table with one row a trial, in the order of `trials`.

        Columns: label, shape, family, N, D, seed, steps, flops (all steps), memory_bytes (of one process), zero_stage,
        machines, processes (of all machines), device, precision, seconds (expected), gpu_fraction, cards (that may run
        it), trunk and branch_step (the trial that it branches off, and after which step), and the value of each further
        axis by its dotted key.
        """
        import pandas

        rows = [
            {
                "label": trial.label,
                "shape": trial.shape.describe(),
                "family": trial.shape.family,
                "N": trial.N,
                "D": trial.D,
                "seed": trial.cell.seed,
                "steps": trial.steps,
                "flops": trial.flops,
                "memory_bytes": trial.memory.total,
                "zero_stage": trial.placement.zero_stage,
                "machines": trial.placement.machines,
                "processes": trial.placement.world_size,
                "device": trial.placement.device,
                "precision": trial.placement.precision,
                "seconds": trial.seconds,
                "gpu_fraction": trial.placement.gpu_fraction,
                "cards": self.cards(trial.placement),
                "trunk": trial.branch.trunk if trial.branch else None,
                "branch_step": trial.branch.step if trial.branch else None,
                **{key: trial.setting(key) for key in self.further_axes},
            }
            for trial in self.trials
        ]
        return pandas.DataFrame(rows).astype({"branch_step": "Int64"})


def tokens_folder(storage: Path) -> Path:
    """Return the folder of token stores, which the sweeps of one storage share."""
    return storage / "tokens"


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
    folder = SweepStore(storage / config.name)
    results = {r.trial: r for r in (trial.read_result() for trial in folder.all_trials()) if r is not None}
    device = "cuda" if resources.has_gpus and config.launch.device != "cpu" else "cpu"
    # What was measured here says nothing of machines that are assumed.
    speeds = Speeds() if resources.assumed else speeds_for(results.values(), device)
    corpora = Corpora(tokens_folder(storage), build)
    axes = tuple(all_axes(config))
    policies: dict[str, dict[str, tuple[str, ...]]] = {}

    def planned(cell: Experiment) -> TrialPlan:
        tokens, content = corpora.tokens(cell.data), corpora.content(cell.data)
        return plan_cell(cell, tokens, content, resources, config.fit.count, speeds, policies)

    stages = stage_cells(config, planned, results)
    trials = [planned(cell) for cell in stages.now]
    _check_distinct(trials, axes)
    compared = compare_memory((t.shape, t.cell.train, results[t.identity]) for t in trials if t.identity in results)
    if compared:
        # A trial that has a checkpoint goes on with as many ranks as wrote it.
        trials = [
            trial
            if any(folder.trial(trial.label).checkpoints.glob("step_*"))
            else place_again(trial, resources, compared, speeds)
            for trial in trials
        ]
    waiting = frozenset(trial.label for trial in trials if not folder.trial(trial.label).done())
    at_a_time = min(len(waiting), config.launch.concurrent_trials or len(waiting))
    trials = share_gpus(trials, resources, at_a_time)
    trials = [with_threads(trial, folder.trial(trial.label), resources, at_a_time, speeds) for trial in trials]
    trials.sort(key=lambda trial: (trial.N, trial.D, trial.cell.seed))
    arranged = _arrange(trials, waiting, config, folder, resources, speeds)
    return SweepPlan(
        trials=tuple(arranged.trials),
        axes=axes,
        grid=tuple(config.grid),
        stops_early=_stops_early(config),
        policies=tuple(describe_policies(policies)),
        stages=stages.sentences,
        later=tuple(planned(cell) for cell in stages.later),
        resources=resources,
        count=config.fit.count,
        flops_formula=f"{FLOPS_FORMULA}: {models.FLOPS_FORMULAS[FLOPS_FORMULA]}",
        seconds=arranged.seconds,
        packs=arranged.packs,
        pack_notes=arranged.pack_notes,
        branch_notes=arranged.branch_notes,
        speeds=speeds,
        concurrent=config.launch.concurrent_trials,
        end_seconds=max((_end_seconds(folder.trial(trial.label), config.launch) for trial in trials), default=0.0),
        texts=corpora.texts,
        memory_basis=tuple(comparison.describe() for comparison in compared.values()),
        waiting=waiting,
        foreign=_foreign(trials, results.values()),
    )


@dataclass(frozen=True)
class _Arrangement:
    """How trials that have no result share processes and steps, and the wall time of all."""

    trials: list[TrialPlan]
    packs: tuple[Pack, ...]
    seconds: float
    pack_notes: tuple[str, ...]
    branch_notes: tuple[str, ...]


def _arrange(
    trials: list[TrialPlan],
    waiting: frozenset[str],
    config: Experiment,
    folder: SweepStore,
    resources: Resources,
    speeds: Speeds,
) -> _Arrangement:
    """Let trials share stable phases, and those that wait processes, as all of them end the soonest."""
    most = config.launch.concurrent_trials

    def packed(trials: list[TrialPlan]) -> _Arrangement:
        left = [trial for trial in trials if trial.label in waiting]
        alone = _stops_early(config)  # Ray Tune sees a pack as one trial
        packs = () if alone else plan_packs(left, lambda trial: places(trial.placement, resources, most))
        seconds = makespan(loads(trials, packs, resources, speeds), resources, most)
        notes = tuple(describe_packs(packs, trials, left))
        return _Arrangement(trials, packs, seconds, notes, tuple(describe_branches(trials)))

    branched = plan_branches(trials, folder, lambda trial, step: seconds_after(trial, step, resources, speeds))
    shared = packed(branched)
    if config.launch.share_trunk != "auto" or not any(trial.branch for trial in branched):
        return shared
    apart = packed(trials)
    if shared.seconds <= apart.seconds:
        return shared
    return replace(apart, branch_notes=tuple(describe_refused(branched, shared.seconds, apart.seconds)))


def _foreign(trials: Sequence[TrialPlan], results: Iterable[TrialResult]) -> int:
    corpora = {trial.cell.data.corpus for trial in trials}
    return sum(result.data.corpus not in corpora for result in results)


def _stops_early(config: Experiment) -> bool:
    return config.tune is not None and config.tune.stop is not None


def _end_seconds(trial: TrialStore, launch: LaunchSettings) -> float:
    """Return the grace of a trial: what was set, or else what its ranks have measured so far."""
    return measured_grace(str(trial.path), launch.least_grace) if launch.grace == "auto" else launch.least_grace


def _check_distinct(trials: list[TrialPlan], keys: tuple[str, ...]) -> None:
    """Raise InputError if two cells of the grid are one trial."""
    seen: dict[str, TrialPlan] = {}
    for trial in trials:
        first = seen.setdefault(trial.identity, trial)
        if first is not trial:
            values = ", ".join(f"{key}={first.setting(key)} and {trial.setting(key)}" for key in keys)
            raise InputError(f"grid: two cells are one and the same trial ({values}); remove one of them")
