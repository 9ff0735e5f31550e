"""What `amscale.sweep` does, step by step."""

import shlex
import tempfile
from pathlib import Path

from rich.console import Console

from amscale.cluster import resources
from amscale.cluster.resources import planned_resources
from amscale.config import Experiment
from amscale.errors import InputError
from amscale.planning.plan import SweepPlan, TrialPlan, plan_sweep
from amscale.reporting.plan_table import print_plan
from amscale.reporting.progress import LiveProgress
from amscale.reporting.terminal import make_console, print_results
from amscale.trials.sweep_store import SweepStore, sweep_store


def run_sweep(config: Experiment, dry_run: bool, console: Console | None = None) -> int:
    """Plan, train what is missing, fit, and say where the files are.

    Returns:
        0 when every trial of the grid has a result, 1 when some failed.

    Raises:
        InputError: bad settings, too few machines, or a folder that another driver holds; nothing is started.
    """
    console = console or make_console()
    folder = sweep_store(config)
    if dry_run:
        with planned_resources(config.launch) as machines:
            print_plan(plan_sweep(config, folder.path.parent, machines, build=False), console)
        return 0
    with folder.owned():
        folder.create(config)
        plan, failed = _run_missing(config, folder, console)
        trials = [folder.trial(trial.label) for trial in plan.trials]
        print_results(trials, console)
        _fit(config, folder, console)
    console.print(f"files: {folder.address}", highlight=False, soft_wrap=True)
    console.print(f"curves: tensorboard --logdir {shlex.quote(str(folder.trials))}", highlight=False, soft_wrap=True)
    for label, reason in failed.items():
        console.print(f"failed: {label}: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
    return 1 if failed else 0


def _run_missing(config: Experiment, folder: SweepStore, console: Console) -> tuple[SweepPlan, dict[str, str]]:
    """Plan, print, and train the trials that have no result; returns the plan, and reasons of failure by label."""
    from amscale.cluster import tune

    address = config.launch.address
    folder.fetch_tokens(config)
    if address is None:
        plan = plan_sweep(config, folder.path.parent, resources.this_machine())
        print_plan(plan, console)
    missing = [] if address else _missing(plan, folder)
    if address is None and not missing:
        console.print("every trial has its result already; nothing to run")
        return plan, {}
    cpus = sum(host.cpus for host in resources.this_machine().hosts)
    with tune.ray_cluster(address, cpus):
        if address is not None:
            plan = plan_sweep(config, folder.path.parent, resources.cluster())
            print_plan(plan, console)
            missing = _missing(plan, folder)
        jobs = [_job(trial, folder) for trial in sorted(missing, key=lambda t: -t.seconds)]
        steps = {trial.label: trial.steps for trial in missing}
        stores = {trial.store.folder for trial in missing if trial.store}
        folder.push_trials({trial.label: folder.trial(trial.label) for trial in missing}, stores)
        with (
            tempfile.TemporaryDirectory(prefix="amscale-ray-") as notes,
            LiveProgress(console, steps, done=len(plan.trials) - len(missing)) as progress,
        ):
            tune.run_jobs(
                jobs,
                progress,
                retries=config.launch.retries,
                concurrent=config.launch.concurrent_trials,
                state=Path(notes) / "ray",
            )
    folder.pull()
    failed = [trial.label for trial in missing if not folder.trial(trial.label).done()]
    return plan, {label: progress.reasons.get(label, "ended without a result") for label in failed}


def _missing(plan: SweepPlan, folder: SweepStore) -> list[TrialPlan]:
    return [trial for trial in plan.trials if not folder.trial(trial.label).done()]


def _job(trial: TrialPlan, folder: SweepStore) -> "tune.Job":  # type: ignore[name-defined]  # noqa: F821
    from amscale.cluster.tune import Job

    store = folder.trial(trial.label)
    assert trial.store is not None
    store.write_spec(trial.cell, trial.placement, trial.store.folder, trial.identity)
    launch = trial.cell.launch
    return Job(trial.label, folder.location(trial.label), trial.placement, launch.grace, launch.stalled_after)


def _fit(config: Experiment, folder: SweepStore, console: Console) -> None:
    from amscale.scaling.fit import fit_sweep

    fit = config.fit
    try:
        result = fit_sweep(
            folder.path, count=fit.count, window=fit.window, threshold=fit.threshold, hypotheses=fit.hypotheses
        )
    except InputError as refusal:
        console.print(f"no estimates: {refusal}", highlight=False, markup=False, soft_wrap=True)
        return
    result.write(folder.path / "fit.json")
    from amscale.reporting.estimates_table import print_fit
    from amscale.reporting.report import write_report

    print_fit(result, console)

    console.print(f"\nreport: {write_report(folder.path, result)}", highlight=False, soft_wrap=True)
