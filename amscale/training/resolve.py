"""Find the trial of a rank: by its spec, or by a configuration that names one cell."""

import os
import re
import time
from pathlib import Path

from amscale import config
from amscale.config import Experiment
from amscale.data import TokenStore, open_store
from amscale.errors import InputError
from amscale.trials.attempt import attempt_of_environment
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement
from amscale.trials.trial_store import TrialStore

_WAIT_SECONDS = 600.0


def resolve(spec: str, overrides: list[str]) -> tuple[TrialStore, Experiment, Placement, TokenStore | None]:
    """Return the trial's store on this machine, settings, placement and tokens (None where its script reads data).

    Raises:
        InputError: a spec of another version, or a configuration that names several cells.
    """
    path = Path(spec)
    if path.name == "spec.yaml":
        if overrides:
            raise InputError(f"{overrides[0]!r}: a spec is complete; overrides go with a configuration")
        return _from_spec(path.parent)
    return _from_spec(_prepare_by_hand(spec, overrides))


def _from_spec(folder: Path) -> tuple[TrialStore, Experiment, Placement, TokenStore | None]:
    spec = TrialStore(folder).read_spec()
    cell = config.parse(spec.settings)
    machine, first_here = _machine()
    location = TrialLocation(cell.storage, cell.launch.scratch, cell.name, spec.label, cell.launch.visible_after)
    store = location.store(machine, spec.placement.machines, attempt=attempt_of_environment(), path=folder)
    tokens = _open_tokens(store, spec.store) if cell.data.has_tokens else None
    if first_here and not store.attempt:
        store.resume_records()
    return store, cell, spec.placement, tokens


def _open_tokens(store: TrialStore, path: str) -> TokenStore:
    # Of the path of the token store its name counts: a spec cannot point out of its storage, and results may be moved.
    name = Path(path).name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"{store.spec}: store={path!r} names no token store")
    return open_store(store.token_store(name))


def _machine() -> tuple[int, bool]:
    """Return the index of this rank's machine, and whether the rank is the first of that machine."""
    rank, ranks_here = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return rank // ranks_here, rank % ranks_here == 0


def _prepare_by_hand(path: str, overrides: list[str]) -> Path:
    """Make the trial's folder on this machine as a sweep would; return it.

    One rank writes it and the others wait: rank 0, and the first of every machine that has its own folder.
    """
    from amscale.planning.single_trial import plan_single_trial

    trial = plan_single_trial(path, overrides)
    machine, first_here = _machine()
    store = trial.sweep.location(trial.plan.label).store(machine)
    if first_here and store.writes_checkpoints:
        trial.write(store)
        if machine == 0:
            trial.sweep.push_trials({trial.plan.label: store}, [trial.tokens.folder] if trial.tokens else [])
        return store.path
    deadline = time.monotonic() + _WAIT_SECONDS
    while not store.spec.is_file():
        if time.monotonic() > deadline:
            raise InputError(
                f"{store.spec}: not written by rank 0 within {_WAIT_SECONDS:.0f} s; give storage a folder that all "
                "machines share, or a URI such as s3://bucket/prefix"
            )
        time.sleep(0.1)
    return store.path
