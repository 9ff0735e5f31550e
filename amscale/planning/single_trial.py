"""Prepare one trial that is started without a sweep.

    python -m amscale.planning.single_trial MACHINES CONFIG [key=value …]
    python -m amscale.planning.single_trial MACHINES SPEC

MACHINES are like this one and run the trial together; CONFIG with its settings names one trial. Prints the path of the
trial's `spec.yaml`, or nothing where the trial has its result already.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from amscale import config
from amscale.cluster.resources import Resources, this_machine
from amscale.config import Experiment
from amscale.data import TokenStore, prepare
from amscale.errors import InputError
from amscale.planning.plan import tokens_folder
from amscale.planning.trial_plan import TrialPlan, plan_trial
from amscale.trials.objects import is_uri
from amscale.trials.sweep_store import SweepStore, sweep_store
from amscale.trials.trial_store import TrialStore


@dataclass(frozen=True)
class SingleTrial:
    """One trial that a configuration names, planned, with its tokens prepared."""

    experiment: Experiment
    sweep: SweepStore
    plan: TrialPlan
    tokens: TokenStore | None
    """None where the trial's script reads data by itself."""

    def write(self, store: TrialStore) -> None:
        """Write the trial's spec into its store; make the sweep's folder where it is missing."""
        self.sweep.create_if_missing(self.experiment)
        plan = self.plan
        folder = self.tokens.folder if self.tokens else None
        store.write_spec(plan.cell, plan.placement, folder, plan.identity, plan.label)


def plan_single_trial(path: str, overrides: list[str], machines: int = 1) -> SingleTrial:
    """Plan the trial that a configuration names, and prepare its tokens.

    Args:
        path: the configuration.
        overrides: `key=value`.
        machines: number of machines like this one.

    Raises:
        InputError: the configuration names several trials.
    """
    experiment = config.load(path, overrides)
    cells = config.expand(experiment)
    if len(cells) != 1:
        axes = ", ".join(f"{key}=…" for key, values in experiment.grid.items() if len(values) > 1)
        raise InputError(f"{path}: names {len(cells)} trials; choose one by {axes}")
    sweep = sweep_store(experiment)
    tokens = prepare(cells[0].data, tokens_folder(sweep.path.parent)) if cells[0].data.has_tokens else None
    resources = Resources(this_machine(experiment.launch.device).hosts * machines)
    return SingleTrial(experiment, sweep, plan_trial(cells[0], tokens, resources, experiment.fit.count), tokens)


def prepare_trial(machines: int, path: str, overrides: list[str]) -> TrialStore:
    """Return the store of one trial, with its tokens prepared and a spec that places it on that many machines.

    Args:
        machines: machines like this one, all of them for this trial.
        path: a `spec.yaml`, or a configuration.
        overrides: `key=value`, with a configuration.

    Raises:
        InputError: the configuration names several trials, a spec is for another number of machines, or storage is a
            URI.
    """
    if Path(path).name == "spec.yaml":
        store = TrialStore(Path(path).absolute().parent)
        spec = store.read_spec()
        placed = spec.placement.machines
        if overrides or placed != machines:
            given = f"{overrides[0]!r}" if overrides else f"{machines} machines"
            raise InputError(f"{path}: {given}: this spec is complete, and for {placed} machine(s)")
        _check_shared(spec.settings.get("storage", ""))
        return store
    overrides = [*overrides, f"launch.machines={machines}"]
    _check_shared(config.load(path, overrides).storage)
    trial = plan_single_trial(path, overrides, machines)
    store = trial.sweep.trial(trial.plan.label)
    if not store.done():
        trial.write(store)
    return store


def _check_shared(storage: str) -> None:
    if is_uri(storage):
        raise InputError(f"storage={storage!r}: a trial without Ray needs a folder that its machines share")


def single_trial(machines: int, path: str, *overrides: str) -> int:
    """Print the path of one trial's spec, or nothing where it has its result already.

    Args:
        machines: machines of the trial.
        path: a configuration, or a `spec.yaml`.
        overrides: `key=value`, so that the configuration names one trial.
    """
    store = prepare_trial(int(machines), str(path), [str(o) for o in overrides])
    if store.done():
        print(f"{store.path}: has its result already", file=sys.stderr)
    else:
        print(store.spec)
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(single_trial, sys.argv[1:])
