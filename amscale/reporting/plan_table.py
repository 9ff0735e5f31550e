"""Print a plan as a table, and the commands that start its trials."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from amscale.cluster.environment import set_variables
from amscale.cluster.machine import launch_command
from amscale.planning.branches import describe_branches
from amscale.planning.design import DesignCheck, design_lines
from amscale.planning.plan import SweepPlan
from amscale.planning.trial_plan import TrialPlan
from amscale.settings import format_duration, format_size, format_value
from amscale.trials.records import Placement

_HEADINGS = ("shape", "N", "D", "seed", "steps", "FLOPs", "memory", "ZeRO", "processes", "time")
_MOST_FRAMED = 200
"""A longer table is printed as plain columns: laying out thousands of framed cells takes seconds."""


def print_plan(plan: SweepPlan, console: Console, price: float | None = None) -> None:
    """Print the trials, what each costs, and what all of them cost.

    Args:
        plan: of the sweep.
        console: gets it.
        price: of an hour of one device.
    """
    _print_trials(f"plan: {len(plan.trials)} trials on {plan.resources.describe()}", plan, plan.trials, console)
    if plan.later:
        title = (
            f"stage 2: {len(plan.later)} trials, whose settings follow from the results of stage 1 (here: the middle)"
        )
        _print_trials(title, plan, plan.later, console)
    for line in (
        *plan.stages,
        *plan.texts,
        f"N counts {plan.count} parameters, D unique tokens; memory is that of one process.",
        *_rule_lines(plan),
        *plan.memory_basis,
        f"FLOPs ({plan.flops_formula}).",
        *describe_branches(plan.trials),
        *plan.pack_notes,
        f"All trials: {sum(t.flops - t.flops_saved for t in plan.trials):.3g} FLOPs, {_hours(plan.trials)}, about "
        f"{format_duration(plan.seconds)} of wall time ({plan.time_basis}).",
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


def _print_trials(title: str, plan: SweepPlan, trials: Sequence[TrialPlan], console: Console) -> None:
    headings = [*_HEADINGS, *(key.rpartition(".")[2].replace("_", " ") for key in plan.further_axes)]
    rows = [[*_row(trial), *(format_value(trial.setting(key)) for key in plan.further_axes)] for trial in trials]
    if len(rows) > _MOST_FRAMED:
        console.file.write(f"{title}\n{_columns([headings, *rows])}\n")
        return
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "shape" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _later_lines(plan: SweepPlan) -> list[str]:
    """Return what a second stage costs beside the trials of the plan."""
    flops = sum(trial.flops for trial in plan.later)
    return [f"Stage 2 beside them: {flops:.3g} FLOPs, {_hours(plan.later)}."] if plan.later else []


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
        "branches": describe_branches(plan.trials),
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
    placement = trial.placement
    each = placement.processes_per_machine if placement.gpu_fraction == 1 else f"{placement.gpu_fraction:.2g}"
    processes = f"{placement.machines} x {each} {placement.device}"
    return [
        trial.shape.describe(),
        format_size(trial.N),
        format_size(trial.D),
        str(trial.cell.seed),
        f"{trial.steps:,}" if trial.branch is None else f"{trial.branch.step:,} + {trial.steps - trial.branch.step:,}",
        f"{trial.flops:.2g}",
        f"{trial.memory.total / 1e9:.2f} GB",
        str(placement.zero_stage),
        processes,
        format_duration(trial.seconds),
    ]


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
