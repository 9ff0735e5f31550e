"""The spec of one trial that is started without Ray.

    python -m amscale.planning.single_trial MACHINES CONFIG [key=value …]
    python -m amscale.planning.single_trial MACHINES SPEC

MACHINES are like this one and run the trial together; CONFIG with its settings names one trial. Prints the path of the
trial's `spec.yaml`, or nothing where the trial has its result already.
"""

import sys
from pathlib import Path

from amscale import config
from amscale.cluster.resources import Resources, this_machine
from amscale.errors import InputError
from amscale.trials.folder import SweepFolder, TrialFolder, write_spec
from amscale.trials.objects import is_uri
from amscale.trials.place import storage_folder


def prepare_trial(machines: int, path: str, overrides: list[str]) -> TrialFolder:
    """The folder of one trial, with its tokens prepared and a spec that places it on that many machines.

    Args:
        machines: machines like this one, all of them for this trial.
        path: a `spec.yaml`, or a configuration.
        overrides: `key=value`, with a configuration.

    Raises:
        InputError: the configuration names several trials, or a spec is for another number of machines.
    """
    if Path(path).name == "spec.yaml":
        folder = TrialFolder(Path(path).absolute().parent)
        placed = folder.read_spec().placement.machines
        if overrides or placed != machines:
            given = f"{overrides[0]!r}" if overrides else f"{machines} machines"
            raise InputError(f"{path}: {given}: this spec is complete, and for {placed} machine(s)")
        return folder
    from amscale.data import prepare
    from amscale.planning.plan import plan_trial, tokens_folder

    experiment = config.load(path, [*overrides, f"launch.machines={machines}"])
    cells = config.expand(experiment)
    if len(cells) != 1:
        axes = ", ".join(f"{key}=…" for key, values in experiment.grid.items() if len(values) > 1)
        raise InputError(f"{path}: names {len(cells)} trials; choose one by {axes}")
    if is_uri(experiment.storage):
        raise InputError(f"storage={experiment.storage!r}: a trial without Ray needs a folder that its machines share")
    storage = storage_folder(experiment)
    store = prepare(cells[0].data, tokens_folder(storage))
    trial = plan_trial(cells[0], store, Resources(this_machine().hosts * machines), experiment.fit.count)
    sweep = SweepFolder(storage / experiment.name)
    if not (sweep.path / "sweep.yaml").is_file():
        sweep.create(experiment)
    folder = sweep.trial(trial.label)
    if not folder.done():
        write_spec(folder, trial.cell, trial.placement, store.folder, trial.identity, trial.label)
    return folder


def one_trial(machines: int, path: str, *overrides: str) -> int:
    """Print the path of one trial's spec, or nothing where it has its result already.

    Args:
        machines: machines of the trial.
        path: a configuration, or a `spec.yaml`.
        overrides: `key=value`, so that the configuration names one trial.
    """
    folder = prepare_trial(int(machines), str(path), [str(o) for o in overrides])
    if folder.done():
        print(f"{folder.path}: has its result already", file=sys.stderr)
    else:
        print(folder.spec)
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(one_trial, sys.argv[1:])
