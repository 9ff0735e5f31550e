"""What `amscale.sweep` does, step by step."""

import shlex
from pathlib import Path

from rich.console import Console

from amscale.cluster import resources
from amscale.config import Experiment, storage_folder
from amscale.errors import InputError
from amscale.ledger import SweepFolder, write_spec
from amscale.planning.plan import SweepPlan, TrialPlan, plan_sweep
from amscale.planning.resources import planned_resources
from amscale.planning.table import print_plan
from amscale.reporting.console import make_console
from amscale.reporting.progress import Progress
from amscale.reporting.results import print_results


def run_sweep(config: Experiment, dry_run: bool, console: Console | None = None) -> int:
    """Plan, train what is missing, fit, and say where the files are.

    Returns:
        0 when every trial of the grid has a result, 1 when some failed.

    Raises:
        InputError: bad settings, too few machines, or a folder that another driver holds; nothing is started.
    """
    console = console or make_console()
    storage = storage_folder(config)
    folder = SweepFolder(storage / config.name)
    if dry_run:
        with planned_resources(config.launch) as machines:
            print_plan(plan_sweep(config, storage, machines, build=False), console)
        return 0
    with folder.owned():
        folder.create(config)
        plan, failed = _run_missing(config, storage, folder, console)
        trials = [folder.trial(trial.label) for trial in plan.trials]
        print_results(trials, console)
        _fit(config, folder, console)
    console.print(f"files: {folder.path}", highlight=False, soft_wrap=True)
    console.print(f"curves: tensorboard --logdir {shlex.quote(str(folder.trials))}", highlight=False, soft_wrap=True)
    for label, reason in failed.items():
        console.print(f"failed: {label}: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
    return 1 if failed else 0


def _run_missing(
    config: Experiment, storage: Path, folder: SweepFolder, console: Console
) -> tuple[SweepPlan, dict[str, str]]:
    """Plan, print, and train the trials that have no result; returns the plan, and reasons of failure by label."""
    from amscale.cluster import grid

    address = config.launch.address
    if address is None:
        plan = plan_sweep(config, storage, resources.this_machine())
        print_plan(plan, console)
    missing = [] if address else _missing(plan, folder)
    if address is None and not missing:
        console.print("every trial has its result already; nothing to run")
        return plan, {}
    cpus = sum(host.cpus for host in resources.this_machine().hosts)
    with grid.ray_cluster(address, cpus):
        if address is not None:
            plan = plan_sweep(config, storage, resources.cluster())
            print_plan(plan, console)
            missing = _missing(plan, folder)
        jobs = [_job(trial, folder) for trial in sorted(missing, key=lambda t: -t.seconds)]
        steps = {trial.label: trial.length.steps for trial in missing}
        with Progress(console, steps, done=len(plan.trials) - len(missing)) as progress:
            grid.run_jobs(
                jobs,
                progress,
                retries=config.launch.retries,
                concurrent=config.launch.concurrent_trials,
                state=folder.path / "ray",
            )
    reasons = {}
    for trial in missing:
        trial_folder = folder.trial(trial.label)
        if not trial_folder.done():
            failures = trial_folder.failures()
            reasons[trial.label] = failures[-1]["reason"] if failures else "ended without a result"
    return plan, reasons


def _missing(plan: SweepPlan, folder: SweepFolder) -> list[TrialPlan]:
    return [trial for trial in plan.trials if not folder.trial(trial.label).done()]


def _job(trial: TrialPlan, folder: SweepFolder) -> "grid.Job":  # type: ignore[name-defined]  # noqa: F821
    from amscale.cluster.grid import Job

    place = folder.trial(trial.label)
    assert trial.store is not None
    write_spec(place, trial.cell, trial.placement.to_dict(), trial.store.folder, trial.identity)
    launch = trial.cell.launch
    return Job(trial.label, place.path, trial.placement, launch.grace, launch.stalled_after)


def _fit(config: Experiment, folder: SweepFolder, console: Console) -> None:
    from amscale.scaling.sweep_fit import fit_sweep

    fit = config.fit
    try:
        result = fit_sweep(
            folder.path, count=fit.count, window=fit.window, threshold=fit.threshold, hypotheses=fit.hypotheses
        )
    except InputError as refusal:
        console.print(f"no estimates: {refusal}", highlight=False, markup=False, soft_wrap=True)
        return
    result.write(folder.path / "fit.json")
    result.print(console)
    from amscale.reporting.report import write_report

    console.print(f"\nreport: {write_report(folder.path, result)}", highlight=False, soft_wrap=True)
