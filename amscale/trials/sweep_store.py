"""One sweep in a folder or as objects under a URI, for its driver and for readers."""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from amscale.config import Experiment, FitSettings, expand
from amscale.data import store_name
from amscale.errors import InputError, no_sweep
from amscale.files import parse_yaml, read_text, removed_if_empty, write_atomically
from amscale.locks import FileLock, LockHeld, LocksUnsupported
from amscale.settings import describe_error
from amscale.trials import lease, mirror
from amscale.trials.archive import is_archive, unpacked
from amscale.trials.identity import label_order
from amscale.trials.location import TrialLocation, storage_folder, working_folder
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.record import FORMAT
from amscale.trials.records import TrialResult
from amscale.trials.storage_errors import storage_errors
from amscale.trials.trial_store import TrialStore


class SweepStore:
    """A sweep in a folder, `<storage>/<name>`, that its driver and all machines share.

    Args:
        path: the sweep's folder, which need not exist.
    """

    is_copy = False
    """Whether the folder is a copy of objects, which machines upload as trials write checkpoints and end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> str:
        """Where the sweep is, as a user names it."""
        return str(self.path)

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial(self, label: str) -> TrialStore:
        """Return one trial by its label, as readers see it."""
        return TrialStore(self.trials / label)

    def all_trials(self) -> list[TrialStore]:
        """Return every trial that has a spec, by N, D and seed as its label has them."""
        if not self.trials.is_dir():
            return []
        paths = sorted(self.trials.iterdir(), key=lambda path: label_order(path.name))
        return [TrialStore(path) for path in paths if (path / "spec.yaml").is_file()]

    def location(self, label: str) -> TrialLocation:
        """Return where one trial is kept, for its machines."""
        return TrialLocation(str(self.path.parent), None, self.path.name, label)

    def read_marker(self) -> dict[str, Any]:
        """Return what `sweep.yaml` holds: the format, and the configuration that the folder serves.

        Raises:
            InputError: it cannot be read.
        """
        marker = self.path / "sweep.yaml"
        try:
            tree = parse_yaml(read_text(marker))
            if not isinstance(tree, dict):
                raise ValueError("not a mapping")
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"{marker}: not what a sweep writes ({error}); choose another name or storage") from None
        return tree

    def fit_settings(self) -> FitSettings:
        """Return what the sweep's configuration wants estimated; the defaults in a folder without one.

        Raises:
            InputError: it cannot be read, or holds something else.
        """
        marker = self.path / "sweep.yaml"
        if not marker.is_file():
            return FitSettings()
        tree = {"fit": self.read_marker().get("fit") or {}}
        try:
            return TypeAdapter(dict[str, FitSettings]).validate_python(tree)["fit"]
        except ValidationError as error:
            raise InputError(f"{marker}: {describe_error(error, tree)}; run the sweep again to write it anew") from None

    def create(self, config: Experiment) -> None:
        """Make the folder, and record the configuration that it now serves.

        Raises:
            InputError: the folder is of another version, or holds something else, or cannot be written.
        """
        self.check_is_sweep()
        self.trials.mkdir(parents=True, exist_ok=True)
        tree = {"format": FORMAT, **config.model_dump(mode="json", exclude_unset=True)}
        write_atomically(self.path / "sweep.yaml", yaml.safe_dump(tree, sort_keys=False))

    def create_if_missing(self, config: Experiment) -> None:
        """Make the folder for a single trial; leave the configuration that a sweep has recorded there.

        Raises:
            InputError: as `create`.
        """
        if (self.path / "sweep.yaml").is_file():
            self.check_is_sweep()
        else:
            self.create(config)

    def check_is_sweep(self) -> None:
        """Check that the folder is a sweep's, empty or not there.

        Raises:
            InputError: it is of another version, or holds something else.
        """
        if (self.path / "sweep.yaml").is_file():
            if self.read_marker().get("format") != FORMAT:
                raise InputError(
                    f"{self.path}: a sweep folder of another version (this one writes format {FORMAT}); "
                    "choose another name or storage"
                )
        elif self.path.is_dir() and any(not p.name.lstrip(".").startswith("driver") for p in self.path.iterdir()):
            raise InputError(f"{self.path}: exists and is not a sweep folder; choose another name or storage")

    @contextmanager
    def owned(self) -> Iterator[lease.Ownership]:
        """Hold the sweep for one driver.

        By a file lock, which nobody can take; on a disk without locks by a lease in the same file, which is renewed
        while the block runs. A folder that was made for the lock, and in which the block wrote nothing, is removed.

        Raises:
            InputError: another driver holds it; the message names it.
            StorageError: storage is full or read-only.
        """
        with storage_errors(self.path), removed_if_empty(self.path):
            try:
                lock = self._lock()
            except LockHeld as held:
                raise InputError(
                    f"{self.path}: another driver runs this sweep ({held or 'unknown'}); wait for it"
                ) from None
            except LocksUnsupported:
                with lease.held(ObjectStore(self.path.absolute().as_uri()), self.address) as ownership:
                    yield ownership
                return
            with lock:
                lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                try:
                    yield lease.Ownership(self.address)
                finally:
                    with suppress(FileNotFoundError):
                        if os.listdir(self.path) == [lease.KEY]:
                            lock.path.unlink()

    def _lock(self) -> FileLock:
        """Make the folder and lock its file; anew where a driver that left nothing removed both in between."""
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.path / lease.KEY)
            except FileExistsError:
                raise InputError(f"{self.path}: is a file; choose another name or storage") from None
            except FileNotFoundError:
                continue
            if lock.is_current():
                return lock
            lock.release()

    def publish_result(self, label: str, result: TrialResult) -> None:
        """Write the result of a trial that no process works on any more: from this moment it is done."""
        self.trial(label).publish(result)
        self.trial(label).remove_checkpoints()

    def pull(self) -> None:
        """Have results, metrics and reasons of failure in the folder."""

    def pull_new(self) -> None:
        """Have records and results in the folder that are new, while trials run."""

    def fetch_tokens(self, config: Experiment) -> None:
        """Have token stores here that others have made, so that they need not be made again."""

    def push_trials(self, trials: Mapping[str, TrialStore], tokens: Iterable[Path]) -> None:
        """Give the machines what trials need that are about to run.

        Args:
            trials: stores with the specs, by the labels of the trials.
            tokens: folders of token stores.
        """


class ObjectSweepStore(SweepStore):
    """A sweep as objects under a URI, and the folder of its small files on this machine.

    Args:
        storage: URI of the sweeps.
        scratch: `launch.scratch`.
        name: of the sweep.
    """

    is_copy = True

    def __init__(self, storage: str, scratch: str | None, name: str) -> None:
        super().__init__(working_folder(storage, scratch) / name)
        self._storage = ObjectStore(storage)
        self._objects = self._storage.at(name)
        self._scratch = scratch

    @property
    def address(self) -> str:
        """The sweep's URI."""
        return self._objects.uri

    def location(self, label: str) -> TrialLocation:
        """Return where one trial is kept, for its machines."""
        return TrialLocation(self._storage.uri, self._scratch, self.path.name, label)

    @contextmanager
    def owned(self) -> Iterator[lease.Ownership]:
        """Hold the sweep for one driver; after the block upload what it wrote beside the trials.

        Raises:
            InputError: another driver holds it; the message names it.
            StorageError: storage is full, read-only or out of reach.
        """
        with storage_errors(self.path):
            if self._objects.entry("sweep.yaml") is None and set(self._objects.entries()) - {lease.KEY}:
                raise InputError(f"{self.address}: exists and is not a sweep; choose another name or storage")
            with lease.held(self._objects) as ownership:
                self.path.mkdir(parents=True, exist_ok=True)
                self.pull()
                with mirror.uploaded(self._objects, self.path):
                    yield ownership
                    ownership.check()

    def publish_result(self, label: str, result: TrialResult) -> None:
        """Write the result of a trial that no process works on any more, and upload it."""
        super().publish_result(label, result)
        self._objects.put_all({f"trials/{label}/result.json": self.trial(label).result})

    def pull(self) -> None:
        """Fetch results, metrics and reasons of failure."""
        mirror.pull(self._objects, self.path)

    def pull_new(self) -> None:
        """Fetch records and results that are new, while trials run; nothing here is removed."""
        mirror.fetch_new(self._objects, self.path)

    def fetch_tokens(self, config: Experiment) -> None:
        """Fetch token stores that others have made."""
        names = set()
        for cell in expand(config):
            with suppress(InputError):  # a corpus that cannot be read; the plan says so if it needs it
                names.add(store_name(cell.data))
        for name in names:
            mirror.fetch_tokens(self._storage, self.path.parent / "tokens" / name)

    def push_trials(self, trials: Mapping[str, TrialStore], tokens: Iterable[Path]) -> None:
        """Upload token stores and the specs of trials."""
        for store in tokens:
            mirror.push_tokens(self._storage, store)
        specs = {f"trials/{label}/spec.yaml": store.spec for label, store in trials.items()}
        self._objects.put_all({"sweep.yaml": self.path / "sweep.yaml", **specs})


def sweep_store(config: Experiment) -> SweepStore:
    """Return the store of a configuration's sweep.

    Raises:
        InputError: its storage folder cannot be made or written.
    """
    folder = storage_folder(config)
    if is_uri(config.storage):
        return ObjectSweepStore(config.storage, config.launch.scratch, config.name)
    return SweepStore(folder / config.name)


@contextmanager
def open_trial(trial: str) -> Iterator[TrialStore]:
    """Open a trial that is named by its folder, or by `<URI of its sweep>/trials/<label>`, for a reader.

    Of a URI its weights are fetched too.

    Raises:
        InputError: no such trial.
        StorageError: storage is full, read-only or out of reach.
    """
    sweep, _, label = trial.rstrip("/").rpartition("/trials/")
    if not is_uri(trial):
        store = TrialStore(Path(trial))
        if not store.spec.is_file():
            raise InputError(f"{trial}: not a trial; give its folder, <storage>/<name>/trials/<label>")
        yield store
        return
    if not sweep or "/" in label:
        raise InputError(f"{trial}: not a trial; give <URI of its sweep>/trials/<label>")
    with open_sweep(sweep) as path:
        store = SweepStore(path).trial(label)
        if not store.spec.is_file():
            raise InputError(f"{trial}: no such trial of the sweep")
        objects = ObjectStore(sweep).at("trials", label)
        if objects.entry(store.weights.name) is not None:
            objects.get(store.weights.name, store.weights)
        yield store


def own_folder(address: str, path: Path) -> Path:
    """Return the folder for what readers write beside a sweep: its own; of an archive, one of its name beside it.

    Args:
        address: the sweep as a user names it.
        path: its folder, as `open_sweep` gives it.
    """
    return Path(address).with_suffix("") if is_archive(address) else path


@contextmanager
def open_sweep(sweep: str) -> Iterator[Path]:
    """Open a sweep that is named by a folder, a URI or an archive, for a reader; give its folder on this machine.

    Of a URI the small files are fetched first, and what the block writes beside the trials is uploaded after it. An
    archive is a folder while the block runs, and what is written there is lost.

    Raises:
        InputError: the URI names no sweep.
        StorageError: storage is full, read-only or out of reach.
    """
    if not is_uri(sweep):
        with storage_errors(Path(sweep)):
            if is_archive(sweep):
                with unpacked(Path(sweep)) as folder:
                    yield folder
            else:
                yield Path(sweep)
        return
    objects = ObjectStore(sweep)
    if objects.entry("sweep.yaml") is None:
        raise no_sweep(sweep)
    folder = working_folder(sweep)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        mirror.pull(objects, folder)
        with mirror.uploaded(objects, folder):
            yield folder
