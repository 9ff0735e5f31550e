"""What the driver of a sweep does for its storage: nothing on a folder; with a URI, fetch and upload."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from amscale.config import Experiment, expand
from amscale.data import store_name
from amscale.errors import InputError
from amscale.trials import lease, mirror, token_objects
from amscale.trials.folder import SweepFolder, TrialFolder
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.place import TrialPlace, storage_folder
from amscale.trials.storage_errors import storage_errors


@dataclass(frozen=True)
class SweepStorage:
    """A sweep's storage, as its driver uses it."""

    config: Experiment

    @property
    def folder(self) -> SweepFolder:
        """The sweep's folder on this machine: with a URI, of its small files.

        Raises:
            InputError: it cannot be made or written.
        """
        return SweepFolder(storage_folder(self.config) / self.config.name)

    @property
    def address(self) -> str:
        """Where the sweep is, as a user names it."""
        return self._sweep.uri if self._all else str(self.folder.path)

    def place(self, label: str) -> TrialPlace:
        """Where one trial is kept and worked on."""
        storage = self.config.storage if self._all else str(storage_folder(self.config))
        return TrialPlace(storage, self.config.launch.scratch, self.config.name, label)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the sweep for this driver; with a URI, what the block writes beside the trials is uploaded after it.

        Raises:
            InputError: another driver holds it; the message names it.
            StorageError: storage is full, read-only or out of reach.
        """
        folder = self.folder
        with storage_errors(folder.path):
            if not self._all:
                with folder.owned():
                    yield
                return
            if self._sweep.entry("sweep.yaml") is None and set(self._sweep.entries()) - {lease.KEY}:
                raise InputError(f"{self.address}: exists and is not a sweep; choose another name or storage")
            with lease.held(self._sweep):
                folder.path.mkdir(parents=True, exist_ok=True)
                self.pull()
                with mirror.uploaded(self._sweep, folder.path):
                    yield

    def pull(self) -> None:
        """Fetch results, metrics and reasons of failure."""
        if self._all:
            mirror.pull(self._sweep, self.folder.path)

    def fetch_tokens(self) -> None:
        """Fetch token stores that others have made, so that they need not be made again."""
        names = set()
        for cell in expand(self.config) if self._all else ():
            with suppress(InputError):  # a corpus that cannot be read; the plan says so if it needs it
                names.add(store_name(cell.data))
        for name in names:
            assert self._all is not None
            token_objects.fetch_tokens(self._all, storage_folder(self.config) / "tokens" / name)

    def push(self, trials: Mapping[str, TrialFolder], stores: Iterable[Path]) -> None:
        """Upload what trials need that are about to run: tokens, and the specs in their folders."""
        if self._all is None:
            return
        for store in stores:
            token_objects.push_tokens(self._all, store)
        specs = {f"trials/{label}/spec.yaml": folder.spec for label, folder in trials.items()}
        self._sweep.put_all({"sweep.yaml": self.folder.path / "sweep.yaml", **specs})

    @property
    def _all(self) -> ObjectStore | None:
        return ObjectStore(self.config.storage) if is_uri(self.config.storage) else None

    @property
    def _sweep(self) -> ObjectStore:
        return ObjectStore(self.config.storage).at(self.config.name)
