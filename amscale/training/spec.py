"""What a rank is to do: read from a trial's spec, or resolved from a configuration that names one cell."""

import os
import time
from pathlib import Path
from typing import Any

from amscale import config
from amscale.cluster.launcher import Placement
from amscale.cluster.resources import this_machine
from amscale.config import Experiment
from amscale.data import TokenStore, open_store
from amscale.errors import InputError
from amscale.ledger import SweepFolder, TrialFolder, write_spec

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
    settings: dict[str, Any] = spec["settings"]
    return folder, config.parse(settings), Placement(**spec["placement"]), open_store(spec["store"])


def _folder_by_hand(path: str, overrides: list[str]) -> TrialFolder:
    """Make the trial's folder as a sweep would; rank 0 writes it and the other ranks wait for it."""
    from amscale.planning.plan import plan_trial, tokens_folder

    experiment = config.load(path, overrides)
    cells = config.expand(experiment)
    if len(cells) != 1:
        axes = ", ".join(f"{key}=…" for key, values in experiment.grid.items() if len(values) > 1)
        raise InputError(f"{path}: names {len(cells)} trials; choose one by {axes}")
    storage = config.storage_folder(experiment)
    from amscale.data import prepare

    store = prepare(cells[0].data, tokens_folder(storage))
    trial = plan_trial(cells[0], store, this_machine(), experiment.fit.count)
    folder = SweepFolder(storage / experiment.name).trial(trial.label)
    started = float(os.environ.get("AMSCALE_STARTED", "0"))
    if int(os.environ["RANK"]) == 0:
        SweepFolder(storage / experiment.name).create(experiment)
        write_spec(folder, trial.cell, trial.placement.to_dict(), store.folder, trial.identity)
        return folder
    deadline = time.monotonic() + _WAIT_SECONDS
    while not folder.spec.is_file() or folder.spec.stat().st_mtime < started:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{folder.spec} was not written by rank 0 within {_WAIT_SECONDS:.0f} s")
        time.sleep(0.1)
    return folder
