"""What a rank is to do: read from a trial's spec, or resolved from a configuration that names one cell."""

import os
import re
import time
from pathlib import Path

from amscale import config
from amscale.cluster.launcher import Placement
from amscale.cluster.resources import this_machine
from amscale.config import Experiment
from amscale.data import TokenStore, open_store
from amscale.errors import InputError
from amscale.trials import token_objects
from amscale.trials.driver import SweepStorage
from amscale.trials.folder import SweepFolder, TrialFolder, write_spec
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.place import TrialPlace, storage_folder, working_folder

_WAIT_SECONDS = 600.0


def resolve(spec: str, overrides: list[str]) -> tuple[TrialFolder, Experiment, Placement, TokenStore]:
    """The trial's folder, settings, placement and tokens.

    Raises:
        InputError: a spec of another version, or a configuration that names several cells.
    """
    path = Path(spec)
    if path.name == "spec.yaml":
        if overrides:
            raise InputError(f"{overrides[0]!r}: a spec is complete; overrides go with a configuration")
        return _from_spec(TrialFolder(path.parent))
    return _from_spec(_folder_by_hand(spec, overrides))


def _from_spec(folder: TrialFolder) -> tuple[TrialFolder, Experiment, Placement, TokenStore]:
    spec = folder.read_spec()
    cell = config.parse(spec.settings)
    # Of the store's path its name counts: a spec cannot point out of its storage, and results may be moved.
    name = Path(spec.store).name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"{folder.spec}: store={spec.store!r} names no token store")
    store = folder.path.absolute().parent.parent.parent / "tokens" / name
    if is_uri(cell.storage):
        store = working_folder(cell.storage, cell.launch.scratch) / "tokens" / store.name
        if not token_objects.fetch_tokens(ObjectStore(cell.storage), store):
            raise InputError(f"{cell.storage}/tokens/{store.name}: no such token store; run the sweep again")
    return folder, cell, spec.placement, open_store(store)


def stored_objects(folder: TrialFolder, cell: Experiment) -> ObjectStore | None:
    """The trial's objects, where they are its record and the folder is this machine's alone."""
    if not is_uri(cell.storage):
        return None
    return _place(cell, folder.read_spec().label).objects


def _place(cell: Experiment, label: str) -> TrialPlace:
    return TrialPlace(cell.storage, cell.launch.scratch, cell.name, label)


def _folder_by_hand(path: str, overrides: list[str]) -> TrialFolder:
    """Make the trial's folder as a sweep would; rank 0 writes it and the other ranks wait for it.

    Where storage is a URI, the first rank of each machine makes that machine's own.
    """
    from amscale.planning.plan import plan_trial, tokens_folder

    experiment = config.load(path, overrides)
    cells = config.expand(experiment)
    if len(cells) != 1:
        axes = ", ".join(f"{key}=…" for key, values in experiment.grid.items() if len(values) > 1)
        raise InputError(f"{path}: names {len(cells)} trials; choose one by {axes}")
    storage = storage_folder(experiment)
    from amscale.data import prepare

    store = prepare(cells[0].data, tokens_folder(storage))
    trial = plan_trial(cells[0], store, this_machine(), experiment.fit.count)
    sweep = SweepFolder(storage / experiment.name)
    folder = sweep.trial(trial.label)
    started = float(os.environ.get("AMSCALE_STARTED", "0"))
    rank, ranks_here = int(os.environ["RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if is_uri(experiment.storage):
        folder = _place(trial.cell, trial.label).folder(rank // ranks_here)
    if rank == 0 or (is_uri(experiment.storage) and rank % ranks_here == 0):
        sweep.create(experiment)
        write_spec(folder, trial.cell, trial.placement, store.folder, trial.identity, trial.label)
        if rank == 0:
            SweepStorage(experiment).push({trial.label: folder}, [store.folder])
        return folder
    deadline = time.monotonic() + _WAIT_SECONDS
    while not folder.spec.is_file() or folder.spec.stat().st_mtime < started:
        if time.monotonic() > deadline:
            raise InputError(
                f"{folder.spec}: not written by rank 0 within {_WAIT_SECONDS:.0f} s; give storage a folder that all "
                "machines share, or a URI such as s3://bucket/prefix"
            )
        time.sleep(0.1)
    return folder
