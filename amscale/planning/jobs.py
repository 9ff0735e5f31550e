"""Make jobs for Ray Tune of the trials that a plan lacks."""

from collections.abc import Sequence
from dataclasses import replace

from amscale.cluster.branch_points import After
from amscale.cluster.patience import Schedule
from amscale.cluster.tune import Job
from amscale.planning.branches import branches_of
from amscale.planning.packs import pack_seconds
from amscale.planning.plan import SweepPlan
from amscale.planning.trial_plan import TrialPlan
from amscale.trials.sweep_store import SweepStore


def make_jobs(missing: Sequence[TrialPlan], sweep: SweepStore, plan: SweepPlan) -> list[Job]:
    """Write the spec of each trial, and return what Ray Tune schedules, longest first: trials, and packs of them."""
    by_label = {trial.label: trial for trial in missing}
    present = [[label for label in pack if label in by_label] for pack in plan.packs]
    packs = [[by_label.pop(label) for label in pack] for pack in present if pack]
    alone = [[trial] for trial in by_label.values()]

    def seconds(members: list[TrialPlan]) -> float:
        return pack_seconds(members, plan.resources, plan.speeds) if len(members) > 1 else members[0].seconds

    jobs = []
    for members in sorted(packs + alone, key=seconds, reverse=True):
        first, *others = made = [make_job(trial, sweep, plan) for trial in members]
        if others:
            grace = sum(job.grace for job in made)
            stalled = max(job.stalled_after for job in made)
            retries = members[0].cell.launch.retries
            first = replace(first, grace=grace, stalled_after=stalled, members=tuple(made), retries=retries)
        jobs.append(first)
    return jobs


def make_job(trial: TrialPlan, sweep: SweepStore, plan: SweepPlan) -> Job:
    """Write the spec of a trial that is planned, and return what Ray Tune schedules."""
    store = sweep.trial(trial.label)
    folder = trial.store.folder if trial.store else None
    branches = branches_of(trial.label, plan.trials)
    store.write_spec(trial.cell, trial.placement, folder, trial.identity, branches=branches)
    launch = trial.cell.launch
    schedule = Schedule.of(trial.cell, trial.steps, (branch.step for branch in branches))
    location = replace(sweep.location(trial.label), visible_seconds=launch.visible_after)
    waits = trial.branch is not None and location.store().can_branch()
    return Job(
        trial.label,
        location,
        trial.placement,
        launch.least_grace,
        launch.stalled_after,
        schedule,
        warm=launch.warm_starts,
        avoided=plan.resources.unsuited_nodes(trial.placement),
        after=After(trial.branch.trunk, trial.branch.step) if trial.branch and waits else None,
        # A trial whose steps are another's too is no value to give up.
        cell="" if branches or trial.branch else plan.cell_of(trial),
        steps=trial.steps,
    )
