"""Two stages of tuning: small cells run all values, larger ones what the rule gives and one step to each side.

The stage follows from the results that are there, so a sweep that was stopped goes on where it was.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amscale.config import Experiment, expand
from amscale.config.loading import check_section
from amscale.config.schema import TrainSettings, TuneSettings, numeric_settings
from amscale.errors import InputError
from amscale.scaling.points import Point, PointTable
from amscale.scaling.tuning import tune_cells
from amscale.scaling.tuning_rule import FittedRule, fit_rule
from amscale.scaling.tuning_surface import short
from amscale.settings import format_size
from amscale.trials.records import TrialResult

if TYPE_CHECKING:
    from amscale.planning.trial_plan import TrialPlan

PlanCell = Callable[[Experiment], "TrialPlan"]


@dataclass(frozen=True)
class Stages:
    """The cells to run now, those that a later stage runs, and what a reader of the plan should know.

    Attributes:
        now: cells to run.
        later: cells of the second stage while the first has not all its results; their tuned values are provisional.
        sentences: one on each stage; none where all cells run all values.
    """

    now: list[Experiment]
    later: list[Experiment]
    sentences: tuple[str, ...] = ()


def stage_cells(config: Experiment, plan_cell: PlanCell, results: Mapping[str | None, TrialResult]) -> Stages:
    """Return the cells of a sweep by stage.

    Args:
        config: the experiment.
        plan_cell: resolves one cell.
        results: of the sweep's trials, by identity.

    Raises:
        InputError: no cell is as small as `tune.small`, or the results of the small ones give no rule.
    """
    tune = config.tune
    if tune is None or tune.small is None:
        return Stages(expand(config), [])
    bases = [(cell, plan_cell(cell)) for cell in expand(config.model_copy(update={"tune": None}))]
    small = [cell for cell, plan in bases if tune.small >= plan.N]
    large = [(cell, plan) for cell, plan in bases if tune.small < plan.N]
    if not small:
        least = format_size(min(plan.N for _, plan in bases))
        raise InputError(f"tune.small={tune.small}: no cell of the grid is that small; the least N is {least}")
    first = [cell for base in small for cell in expand(base.model_copy(update={"tune": tune}))]
    if not large:
        return Stages(first, [])
    plans = [plan_cell(cell) for cell in first]
    limit = f"N up to {format_size(tune.small)}"
    if any(plan.identity not in results for plan in plans):
        later = [cell for base, plan in large for cell in around(base, plan, _listed(base, tune, plan_cell), None)]
        waits = f"Stage 2 follows from their results: {len(later)} trials of larger cells, at the rule and one step to "
        return Stages(
            first, later, (f"Stage 1 of 2: cells with {limit} run all {_times(tune)} values.", f"{waits}each side.")
        )
    rules = fit_rules(plans, results, tuple(tune.axes))
    second = [
        cell
        for base, plan in large
        for cell in around(
            base,
            plan,
            _listed(base, tune, plan_cell),
            {axis: rule.value(plan.N, plan.D) for axis, rule in rules.items()},
        )
    ]
    found = "; ".join(f"{rule.describe()}: {rule.expression()}" for rule in rules.values())
    sentences = (
        f"Stage 1 of 2 has its results: cells with {limit} have run all {_times(tune)} values.",
        f"Stage 2 of 2: larger cells run the value nearest to the rule and one step to each side; {found}.",
    )
    return Stages(first + second, [], sentences)


def fit_rules(
    plans: "Sequence[TrialPlan]", results: Mapping[str | None, TrialResult], axes: tuple[str, ...]
) -> dict[str, FittedRule]:
    """Return the rule of each axis through the optima of cells.

    Raises:
        InputError: an axis has none, with the reason.
    """
    table = PointTable("stage 1", "", [])
    for plan in plans:
        result = results[plan.identity]
        settings = {axis: float(plan.setting(axis)) for axis in axes}
        loss = result.losses.validation_least
        finished = result.state == "finished" and loss is not None and math.isfinite(loss)
        point = Point(plan.label, plan.N, plan.D, float(loss) if finished and loss else math.inf, settings=settings)
        (table.points if finished else table.hopeless).append(point)
    tuning = tune_cells(table, axes)
    rules = {}
    for axis in axes:
        found = fit_rule(tuning, axis)
        if isinstance(found, str):
            raise InputError(
                f"tune.{axis}: the small cells give no rule for {short(axis)}: {found}; add values at the edges, or "
                "raise tune.small"
            )
        rules[axis] = found
    return rules


def _times(tune: TuneSettings) -> str:
    return " x ".join(str(len(values)) for values in tune.axes.values())


def _listed(base: Experiment, tune: TuneSettings, plan_cell: PlanCell) -> dict[str, list[float]]:
    """Return the values of each axis as numbers for one cell, ascending."""
    found = {}
    for axis, values in tune.axes.items():
        one = TuneSettings(axes={axis: values})
        cells = expand(base.model_copy(update={"tune": one}))
        found[axis] = sorted({float(plan_cell(cell).setting(axis)) for cell in cells})
        if len(found[axis]) < 2:
            raise InputError(f"tune.{axis}: a rule with a step to each side needs at least two values")
    return found


def around(
    base: Experiment, plan: "TrialPlan", listed: dict[str, list[float]], wanted: dict[str, float] | None
) -> list[Experiment]:
    """Return a cell at the listed values nearest to the wanted ones and at their neighbours; the middle without.

    A batch of less than a sequence, which there cannot be, becomes one of one sequence.
    """
    chosen = {}
    for axis, values in listed.items():
        target = values[len(values) // 2] if wanted is None else wanted[axis]
        whole = numeric_settings(TrainSettings)[axis.partition(".")[2]]
        near = neighbours(values, target)
        if axis == "train.batch_tokens":
            near = [max(value, math.ceil(plan.step_plan.mean_tokens)) for value in near]
        chosen[axis] = sorted({round(value) for value in near} if whole else {float(f"{v:.6g}") for v in near})
    written = json.dumps(base.train.model_dump(mode="json", exclude_unset=True))
    return [
        base.model_copy(update={"train": check_section("train", written, dict(zip(chosen, values, strict=True)))})
        for values in itertools.product(*chosen.values())
    ]


def neighbours(values: Sequence[float], target: float) -> list[float]:
    """Return the value nearest to the target and the ones before and after it.

    Args:
        values: ascending; beyond its ends the list goes on by its first or last step.
        target: any positive number.
    """
    logs = list(np.log(values))
    below, above = logs[1] - logs[0], logs[-1] - logs[-2]
    while logs[0] > math.log(target) or int(np.argmin(np.abs(np.array(logs) - math.log(target)))) == 0:
        logs.insert(0, logs[0] - below)
    while int(np.argmin(np.abs(np.array(logs) - math.log(target)))) == len(logs) - 1:
        logs.append(logs[-1] + above)
    nearest = int(np.argmin(np.abs(np.array(logs) - math.log(target))))
    return [math.exp(log) for log in logs[nearest - 1 : nearest + 2]]
