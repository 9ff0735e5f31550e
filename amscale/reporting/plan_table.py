"""Print a plan as a table, and the commands that start its trials."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from amscale.cluster.environment import set_variables
from amscale.cluster.machine import launch_command
from amscale.planning.design import DesignCheck, design_lines
from amscale.planning.plan import SweepPlan
from amscale.planning.trial_plan import TrialPlan
from amscale.settings import counted, format_duration, format_size, format_value
from amscale.trials.records import Placement

_HEADINGS = ("shape", "N", "D", "seed", "steps", "FLOPs", "memory", "ZeRO", "processes", "time")
_MOST_ROWS = 40
"""Of more trials the table has a row for each shape, unless every trial is asked for."""
_MOST_FRAMED = 200
"""A longer table is printed as plain columns: laying out thousands of framed cells takes seconds."""


def print_plan(plan: SweepPlan, console: Console, price: float | None = None, every_trial: bool = False) -> None:
    """Print the trials, what each costs, and what all of them cost.

    Args:
        plan: of the sweep.
        console: gets it.
        price: of an hour of one device.
        every_trial: print a row for each trial also where there are more than 40, instead of one for each shape.
    """
    title = f"plan: {counted(len(plan.trials), 'trial')} on {plan.resources.describe()}"
    _print_trials(title, plan, plan.trials, console, every_trial)
    if plan.later:
        later = counted(len(plan.later), "trial")
        title = f"stage 2: {later}, whose settings follow from the results of stage 1 (here: the middle)"
        _print_trials(title, plan, plan.later, console, every_trial)
    for line in (
        *plan.stages,
        *plan.texts,
        f"N counts {plan.count} parameters, D unique tokens; memory is that of one process.",
        *_rule_lines(plan),
        *plan.memory_basis,
        f"FLOPs ({plan.flops_formula}).",
        *plan.branch_notes,
        *plan.pack_notes,
        f"All trials: {sum(t.flops - t.flops_saved for t in plan.trials):.3g} FLOPs, {_hours(plan.trials)}, about "
        f"{format_duration(plan.seconds)} of wall time ({plan.time_basis}).",
        *_left_lines(plan),
        *([] if price is None else [f"At {price:g} an hour of one device: {price * _device_hours(plan.trials):,.2f}."]),
        f"Storage: {plan.storage / 1e9:.2g} GB of results, and up to {plan.checkpoint_storage / 1e9:.2g} GB of "
        "checkpoints while trials run.",
        *(
            [f"Stage 2 beside: {sum(t.flops for t in plan.later):.3g} FLOPs, {_hours(plan.later)}."]
            if plan.later
            else []
        ),
        f"Asked to end, trials may take {plan.end_seconds:.0f} s to write checkpoints: a scheduler must ask a minute "
        "earlier than that.",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in (*_device_lines(plan), *design_lines(DesignCheck((*plan.trials, *plan.later)))):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print_trials(
    title: str, plan: SweepPlan, trials: Sequence[TrialPlan], console: Console, every_trial: bool
) -> None:
    axes = [key.rpartition(".")[2].replace("_", " ") for key in plan.further_axes]
    if every_trial or len(trials) <= _MOST_ROWS:
        headings = [*_HEADINGS, *axes]
        rows = [[*_row(trial), *(format_value(trial.setting(key)) for key in plan.further_axes)] for trial in trials]
    else:
        title += ", a row for each shape (python -m amscale.plan --every_trial has them all)"
        headings = ["shape", "trials", *_HEADINGS[1:], *axes]
        shapes: dict[tuple[str, ...], list[TrialPlan]] = {}
        for trial in trials:
            shapes.setdefault((trial.shape.describe(), _processes(trial)), []).append(trial)
        rows = [_folded_row(alike, plan.further_axes) for alike in shapes.values()]
    if len(rows) <= _MOST_FRAMED:
        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "shape" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        if console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width:
            console.print(table)
            return
    console.file.write(f"{title}\n{_columns([headings, *rows])}\n")  # frames would cut cells off


def _left_lines(plan: SweepPlan) -> list[str]:
    """Return what is left where some trials have results, and what else the folder holds."""
    left, lines = plan.left, []
    if len(left) < len(plan.trials):
        rest = f": {_hours(left)}, about {format_duration(plan.wall_seconds(left))}" if left else ""
        done = len(plan.trials) - len(left)
        lines.append(f"{done} of {counted(len(plan.trials), 'trial')} have results; {len(left)} left{rest}.")
    if plan.foreign:
        lines.append(
            f"The folder holds {counted(plan.foreign, 'result')} of another corpus too, and a fit of all takes each by "
            "itself: give the sweep another name, or fit with --where."
        )
    return lines


def _rule_lines(plan: SweepPlan) -> list[str]:
    """Return what policies set, and the settings by rules that are the same for all trials and have no column."""
    common = ", ".join(f"{key} {format_value(value)}" for key, value in plan.common_settings.items())
    return [*plan.policies, *([f"The same for all trials: {common}."] if common else [])]


def _device_lines(plan: SweepPlan) -> list[str]:
    """Return what a user should know of the devices that trials get."""
    lines = []
    placements = [trial.placement for trial in plan.trials]
    on_gpu = [placement for placement in placements if placement.device == "cuda"]
    if on_gpu and not plan.resources.has_bf16 and any(placement.precision == "fp32" for placement in on_gpu):
        lines.append("Precision fp32: a GPU here has no bf16 (it is older than Ampere).")
    anywhere = plan.resources.cards()
    chosen = Counter(_only_on(plan, placement) for placement in placements)
    lines += [
        f"{count} trial{'s run' if count > 1 else ' runs'} on {where} only: the other machines have not the memory or "
        "the precision."
        for where, count in chosen.items()
        if where
    ]
    if on_gpu and len(anywhere) > 1 and chosen[""]:
        which = "All" if len(chosen) == 1 else f"The other {chosen['']}"
        lines.append(f"{which} trials may run on any of the GPUs.")
    shared = sum(placement.gpu_fraction < 1 for placement in on_gpu)
    if shared:
        lines.append(
            f"{shared} of the trials share GPUs, each within the part given before its device; launch.gpu_fraction=1 "
            "gives each its own."
        )
    return lines


def _only_on(plan: SweepPlan, placement: Placement) -> str:
    """Return which machines may run a trial; empty where all that have its device may."""
    if placement.device == "cuda":
        cards = plan.cards(placement)
        return "" if cards == " or ".join(plan.resources.cards()) else cards
    least = placement.device_memory / 1e9
    return f"machines of at least {least:.1f} GB a core" if least else ""


def print_commands(plan: SweepPlan, config: str, overrides: list[str], console: Console) -> None:
    """Print the command that starts each trial by hand on one machine."""
    for trial in plan.trials:
        console.print(f"\n# {trial.label}", highlight=False, soft_wrap=True)
        console.print(_command(plan, trial, config, overrides), highlight=False, markup=False, soft_wrap=True)


def _command(plan: SweepPlan, trial: TrialPlan, config: str, overrides: list[str]) -> str:
    arguments = [config, *overrides, *(f"{key}={trial.setting(key)}" for key in plan.axes)]
    command = launch_command(trial.placement, arguments, rank=0, address="127.0.0.1", port=0)
    environment = [f"{name}={value}" for name, value in set_variables(trial.placement).items()]
    return shlex.join(["env", *environment, *command])


def plan_document(
    plan: SweepPlan, commands: tuple[str, list[str]] | None = None, price: float | None = None
) -> dict[str, Any]:
    """Return a plan as plain data: its trials and what all of them cost.

    Args:
        plan: of the sweep.
        price: of an hour of one device.
        commands: configuration and overrides of which each trial gets its command.
    """
    trials = plan.to_frame().to_dict("records")
    for row, trial in zip(trials, plan.trials, strict=True):
        row["branch_step"] = trial.branch.step if trial.branch else None
    if commands:
        for row, trial in zip(trials, plan.trials, strict=True):
            row["command"] = _command(plan, trial, *commands)
    check = DesignCheck(plan.trials)
    return {
        "resources": plan.resources.describe(),
        "count": plan.count,
        "flops_formula": plan.flops_formula,
        "flops": sum(trial.flops for trial in plan.trials),
        "flops_saved": sum(trial.flops_saved for trial in plan.trials),
        "branches": list(plan.branch_notes),
        "seconds": plan.seconds,
        "time_basis": plan.time_basis,
        "device_hours": _device_hours(plan.trials),
        "cost": None if price is None else price * _device_hours(plan.trials),
        "storage_bytes": plan.storage,
        "checkpoint_bytes": plan.checkpoint_storage,
        "end_seconds": plan.end_seconds,
        "texts": list(plan.texts),
        "policies": list(plan.policies),
        "stages": list(plan.stages),
        "trials_of_stage_2": len(plan.later),
        "memory_basis": list(plan.memory_basis),
        "cannot_tell": list(check.warnings),
        "proposal": None if check.proposal is None else asdict(check.proposal),
        "trials": trials,
    }


def _row(trial: TrialPlan) -> list[str]:
    return [
        trial.shape.describe(),
        format_size(trial.N),
        format_size(trial.D),
        str(trial.cell.seed),
        f"{trial.steps:,}" if trial.branch is None else f"{trial.branch.step:,} + {trial.steps - trial.branch.step:,}",
        f"{trial.flops:.2g}",
        f"{trial.memory.total / 1e9:.2f} GB",
        str(trial.placement.zero_stage),
        _processes(trial),
        format_duration(trial.seconds),
    ]


def _folded_row(trials: Sequence[TrialPlan], axes: Sequence[str]) -> list[str]:
    """Return one row for trials of a shape: sums of trials and FLOPs, else the least and the greatest value."""
    return [
        trials[0].shape.describe(),
        str(len(trials)),
        _span([trial.N for trial in trials], format_size),
        _span([trial.D for trial in trials], format_size),
        _span([trial.cell.seed for trial in trials], str),
        _span([trial.steps for trial in trials], lambda steps: f"{steps:,.0f}"),
        f"{sum(trial.flops - trial.flops_saved for trial in trials):.2g}",
        f"{max(trial.memory.total for trial in trials) / 1e9:.2f} GB",
        _span([trial.placement.zero_stage for trial in trials], str),
        _processes(trials[0]),
        _span([trial.seconds for trial in trials], format_duration),
        *(_values([trial.setting(key) for trial in trials]) for key in axes),
    ]


def _span(values: Sequence[float], write: Callable[[Any], str]) -> str:
    least, most = write(min(values)), write(max(values))
    return least if least == most else f"{least}–{most}"


def _values(values: Sequence[Any]) -> str:
    """Write a setting's distinct values: numbers as their span, others by their count where there are many."""
    written = list(dict.fromkeys(map(format_value, values)))
    if len(written) <= 3:
        return ", ".join(written)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return _span(values, lambda value: f"{value:.3g}")
    return f"{len(written)} values"


def _processes(trial: TrialPlan) -> str:
    placement = trial.placement
    each = placement.processes_per_machine if placement.gpu_fraction == 1 else f"{placement.gpu_fraction:.2g}"
    return f"{placement.machines} x {each} {placement.device}"


def _columns(rows: list[list[str]]) -> str:
    """Return rows as aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{'>' if index else '<'}{width}}}" for index, width in enumerate(widths))
    return "\n".join(form.format(*row) for row in rows)


def _hours(trials: Sequence[TrialPlan]) -> str:
    unit = "GPU-hours" if any(t.placement.device == "cuda" for t in trials) else "process-hours"
    return f"{_device_hours(trials):.3g} {unit}"


def _device_hours(trials: Sequence[TrialPlan]) -> float:
    return sum(t.seconds * t.placement.world_size * t.placement.gpu_fraction for t in trials) / 3600
