"""Drive a sweep: plan it, prepare its tokens, train what has no result, estimate, and write the report."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from amscale.cluster import resources
from amscale.config import Experiment
from amscale.diagnosis.examine import glance
from amscale.errors import InputError
from amscale.planning.plan import SweepPlan, plan_sweep
from amscale.planning.speeds import keep, step_times
from amscale.planning.stopped import stopped_result
from amscale.planning.trial_plan import TrialPlan
from amscale.reporting.plan_table import print_plan
from amscale.reporting.progress import LiveProgress
from amscale.reporting.tensorboard import SweepBoard, curves_line, first_view, served
from amscale.reporting.terminal import print_line, print_results
from amscale.settings import format_duration, format_value
from amscale.trackers import TENSORBOARD, find_tracker
from amscale.trials.lease import Ownership
from amscale.trials.sweep_store import SweepStore, sweep_store
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from amscale.cluster.ray_head import HeadMonitor
    from amscale.scaling.base_fit import BaseFit


@dataclass(frozen=True)
class SweepOutcome:
    """What a run of a sweep left behind."""

    plan: SweepPlan
    trials: list[TrialStore]
    """Of the grid, by N, D and seed."""
    path: Path
    """The sweep's folder on this machine."""
    address: str
    """Where the sweep is, as a user names it: a folder or a URI."""
    failed: dict[str, str]
    """Why each trial without a result failed, by label."""
    fit: "BaseFit | None"
    """The estimates, or None where the results allow none."""
    no_fit: str
    """Why there are no estimates; empty where there are."""
    report: Path | None

    @property
    def exit_status(self) -> int:
        """0 when every trial of the grid has a result, 1 when some failed."""
        return 1 if self.failed else 0


_LONG_SECONDS = 60.0
"""A shorter sweep does not wait for a measurement of the machine's speed."""

_NEEDED_LAST = (
    "pandas",
    "matplotlib.figure",
    "plotly.offline",
    "amscale.scaling.fit",
    "amscale.reporting.estimates_table",
    "amscale.reporting.page",
)
"""What estimates and the report import."""


def _import_ahead() -> None:
    for name in _NEEDED_LAST:
        import_module(name)


class _Progress(LiveProgress):
    """Live progress that also passes on the loss of the cluster, after which the process ends.

    While the first trials run, estimates and report are imported.
    """

    def __init__(
        self,
        console: Console,
        missing: Sequence[TrialPlan],
        done: Mapping[str, float | None],
        on_lost: Callable[[str], None] | None,
        board: SweepBoard | None,
    ) -> None:
        steps, seconds = ({trial.label: getattr(trial, name) for trial in missing} for name in ("steps", "seconds"))
        super().__init__(console, steps, done, seconds)
        self._on_lost = on_lost
        self._board = board
        self._idle = True

    def ended(self, label: str) -> None:
        super().ended(label)
        if self._board is not None:
            self._board.trial_ended()

    def progress(self, label: str, report: dict[str, Any]) -> None:
        super().progress(label, report)
        if self._board is not None:
            self._board.trial_reported()

    def started(self, label: str) -> None:
        super().started(label)
        if self._idle:
            self._idle = False
            threading.Thread(target=_import_ahead, daemon=True).start()

    def lost(self, reason: str) -> None:
        super().lost(reason)
        if self._on_lost is not None:
            self._on_lost(reason)


def run_sweep(
    config: Experiment,
    console: Console,
    on_lost: Callable[[str], None] | None = None,
    approve: Callable[[float], None] | None = None,
    tensorboard: bool = False,
) -> SweepOutcome:
    """Train every trial of the grid that has no result, then estimate from all of them and write the report.

    Args:
        config: the experiment.
        console: gets the plan, the progress, and what was found.
        on_lost: called with a sentence when the Ray cluster is gone; the process ends with status 1 right after it.
        approve: called with the machine hours of the plan before anything starts; raises an InputError to stop there.
        tensorboard: serve the sweep's curves in TensorBoard on loopback until the sweep ends.

    Raises:
        InputError: bad settings, too few machines, or a folder that another driver holds; nothing is started
            and nothing is left of it but tokens that were prepared. Or
            another driver has taken the sweep: its trials were ended in order.
        Preempted: SIGTERM stopped the process; trials wrote checkpoints.
    """
    for name in config.report_to:
        if name != TENSORBOARD:
            find_tracker(name)
    sweep = sweep_store(config)
    with sweep.owned() as ownership, ExitStack() as until_the_end:
        sweep.check_is_sweep()
        board: SweepBoard | None = None
        begun = False

        def planned(plan: SweepPlan, missing: Sequence[TrialPlan]) -> SweepBoard | None:
            """Ask, the first time, for approval of what is missing; show the trials of the plan in TensorBoard.

            The folder gets the configuration only now: one that was refused is none that it serves.
            """
            nonlocal board, begun
            first, begun = not begun, True
            if first and approve is not None and missing:
                approve(_machine_hours(plan, missing))
            if first:
                sweep.create(config)
            board = _board(config, sweep, plan)
            if first and board is not None and tensorboard:
                address = until_the_end.enter_context(served(board.folder))
                print_line(console, f"TensorBoard: {first_view(address, len(plan.trials))}")
            return board

        plan, failed = _run_missing(config, sweep, console, on_lost, ownership, planned)
        if plan.later:
            print_line(console, f"stage 2 ({len(plan.later)} trials) waits for the trials that failed", style="yellow")
        trials = [sweep.trial(trial.label) for trial in plan.trials]
        print_results(trials, console)
        fit, no_fit = _estimate(config, sweep)
        report = None
        if fit is None:
            print_line(console, f"no estimates: {no_fit}")
        else:
            from amscale.reporting.estimates_table import print_fit
            from amscale.reporting.page import write_report

            print_fit(fit, console)
            if board is not None:
                board.finish(fit)
            report = write_report(sweep.path, fit)
            print_line(console, f"\nreport: {report}")
    print_line(console, f"files: {sweep.address}")
    print_line(console, curves_line(sweep.path))
    for label, reason in failed.items():
        print_line(console, f"failed: {label}: {reason}", style="red")
    return SweepOutcome(plan, trials, sweep.path, sweep.address, failed, fit, no_fit, report)


def _run_missing(
    config: Experiment,
    sweep: SweepStore,
    console: Console,
    on_lost: Callable[[str], None] | None,
    ownership: Ownership,
    planned: Callable[[SweepPlan, Sequence[TrialPlan]], SweepBoard | None],
) -> tuple[SweepPlan, dict[str, str]]:
    """Plan, print the plan, and train the trials without a result; return the plan, and reasons of failure by label.

    `planned` is called before any trial of a plan starts, with the trials that are missing.
    """
    from amscale.cluster.ray_cluster import ray_cluster

    def lost(reason: str) -> None:
        print_line(console, reason, style="red")
        if on_lost is not None:
            on_lost(reason)

    address = config.launch.address
    sweep.fetch_tokens(config)
    offered = resources.Host(cpus=0, gpus=0, memory=0)
    if address is None:
        here = resources.this_machine(config.launch.device)
        (offered,) = here.hosts
        plan = _plan_here(config, sweep, here, console)
        print_plan(plan, console)
    missing = [] if address else plan.left
    if address is None and not missing:
        console.print("every trial has its result already; nothing to run")
        planned(plan, missing)
        return plan, {}
    if address is None:
        planned(plan, missing)
    with (
        _warm_server(missing, sweep),
        ray_cluster(address, offered.cpus, offered.gpus, offered.gpu_slices, lost) as head,
    ):
        if address is not None:
            plan = plan_sweep(config, sweep.path.parent, resources.cluster())
            print_plan(plan, console)
            missing = plan.left
            planned(plan, missing)
        failed = _train(plan, missing, sweep, console, on_lost, ownership, head, planned)
        if plan.later and not failed:  # their settings follow from the results that are there now
            plan = plan_sweep(config, sweep.path.parent, plan.resources)
            print_plan(plan, console)
            failed = _train(plan, plan.left, sweep, console, on_lost, ownership, head, planned)
    return plan, failed


def _train(
    plan: SweepPlan,
    missing: list[TrialPlan],
    sweep: SweepStore,
    console: Console,
    on_lost: Callable[[str], None] | None,
    ownership: Ownership,
    head: "HeadMonitor",
    planned: Callable[[SweepPlan, Sequence[TrialPlan]], SweepBoard | None],
) -> dict[str, str]:
    """Train the trials without a result on a cluster that runs; return reasons of failure by label."""
    from amscale.cluster import tune
    from amscale.planning.jobs import make_jobs

    launch = plan.trials[0].cell.launch
    jobs = make_jobs(missing, sweep, plan)
    stores = {trial.store.folder for trial in missing if trial.store}
    ownership.check()
    for finding in glance(plan.trials[0].cell.storage):
        print_line(console, f"warning: {finding.check}: {finding.says}; {finding.mend}", style="yellow")
    sweep.push_trials({trial.label: sweep.trial(trial.label) for trial in missing}, stores)
    began = time.monotonic()
    with _Progress(console, missing, _least_losses(plan, sweep), on_lost, planned(plan, missing)) as progress:
        tune.run_jobs(
            jobs,
            progress,
            retries=launch.retries,
            concurrent=launch.concurrent_trials,
            state=head.notes / f"ray-{len(plan.trials)}",  # a second stage has more trials, and notes of its own
            head=head,
            end_requested=ownership.lost,
        )
    seconds = time.monotonic() - began
    ownership.check()
    sweep.pull()
    _compare_time(plan, missing, sweep, seconds, console)
    _record_stopped(plan, sweep, progress.stopped_early)
    failed = [trial.label for trial in missing if not sweep.trial(trial.label).done()]
    return {label: progress.reasons.get(label, "ended without a result") for label in failed}


def _machine_hours(plan: SweepPlan, missing: Sequence[TrialPlan]) -> float:
    """Return the wall time of the trials that are missing, times the machines, in hours."""
    return plan.wall_seconds(missing) / 3600 * len(plan.resources.hosts)


def _board(config: Experiment, sweep: SweepStore, plan: SweepPlan) -> SweepBoard:
    """Link the trials for TensorBoard, in the sweep's folder or in the working copy of one under a URI."""
    axes = plan.further_axes
    labels = {
        trial.label: ",".join(f"{key.rpartition('.')[2]}={format_value(trial.setting(key))}" for key in axes)
        for trial in plan.trials
    }
    fit = config.fit
    settings = {"count": fit.count, "window": fit.window, "threshold": fit.threshold, "hypotheses": fit.hypotheses}
    board = SweepBoard(sweep, labels, settings, (trial.N for trial in plan.trials))
    board.link()
    return board


def _plan_here(config: Experiment, sweep: SweepStore, here: resources.Resources, console: Console) -> SweepPlan:
    """Return the plan on this machine; its speed is measured first where a long sweep would rest on an assumed one."""
    from amscale.planning.calibrate import calibrate, unknown

    plan = plan_sweep(config, sweep.path.parent, here)
    if plan.seconds < _LONG_SECONDS or not unknown(plan):
        return plan
    console.print("measuring the speed of this machine, once …", highlight=False)
    return plan_sweep(config, sweep.path.parent, here) if calibrate(plan, config.launch.concurrent_trials) else plan


def _compare_time(
    plan: SweepPlan, missing: list[TrialPlan], sweep: SweepStore, seconds: float, console: Console
) -> None:
    """Print the time that the trials took beside what was planned, and keep what their steps took for later plans."""
    expected = plan.wall_seconds(missing)
    print_line(
        console,
        f"time of the trials: {format_duration(seconds)}; the plan said {format_duration(expected)} "
        f"({plan.time_basis})",
    )
    if missing[0].cell.launch.address is None:
        taken = []
        for trial in missing:
            if result := sweep.trial(trial.label).read_result():
                taken += [replace(step, cpus=trial.placement.cpus_per_process) for step in step_times([result])]
        keep(taken)


def _warm_server(missing: list[TrialPlan], sweep: SweepStore) -> AbstractContextManager[None]:
    """Return a block in which this machine's trials find a server for their ranks, which starts while Ray does.

    On a cluster that runs already the trials start one on their machines.
    """
    from amscale.cluster import warm_start
    from amscale.cluster.warm_server import SHARDS

    if not missing or not missing[0].cell.launch.warm_starts:
        return nullcontext()
    longest = max(missing, key=lambda trial: trial.seconds)
    used = {name for trial in missing for name in (trial.cell.model.family, trial.cell.data.corpus)}
    if any(trial.placement.zero_stage for trial in missing):
        used.add(SHARDS)
    return warm_start.started_ahead(sweep.location(longest.label), longest.placement, used)


def _least_losses(plan: SweepPlan, sweep: SweepStore) -> dict[str, float | None]:
    """Return the least validation loss of each trial that has a result, by label."""
    results = {trial.label: sweep.trial(trial.label).read_result() for trial in plan.trials}
    return {label: result.losses.validation_least for label, result in results.items() if result is not None}


def _record_stopped(plan: SweepPlan, sweep: SweepStore, stopped: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Write the results of trials that were stopped early, but for those that had ended by then."""
    for trial in plan.trials:
        if trial.label in stopped and not sweep.trial(trial.label).done():
            reason, report = stopped[trial.label]
            sweep.publish_result(trial.label, stopped_result(trial, reason, report))


def _estimate(config: Experiment, sweep: SweepStore) -> "tuple[BaseFit | None, str]":
    """Fit the results and write fit.json; return the fit, or None and the reason why there is none."""
    from amscale.planning.next_grid import with_next_step
    from amscale.scaling.fit import fit_sweep

    fit = config.fit
    try:
        found = fit_sweep(
            sweep.path, count=fit.count, window=fit.window, threshold=fit.threshold, hypotheses=fit.hypotheses
        )
    except InputError as error:
        return None, str(error)
    found = with_next_step(found, sweep.address)
    found.write(sweep.path / "fit.json")
    return found, ""
