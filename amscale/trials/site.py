"""One machine's part in a trial's storage, as the process that owns the trial there uses it."""

import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from amscale.files import write_atomically
from amscale.trials.folder import TrialFolder
from amscale.trials.place import TrialPlace
from amscale.trials.storage_errors import StorageError, check_writable, error_in_log, storage_errors
from amscale.trials.stored import StoredTrial

_VISIBLE_SECONDS = 20.0
"""A shared file system may show what another machine wrote only after a while."""


class Site:
    """Opens the machine's folder of a trial, and says afterwards what went wrong in it.

    Args:
        place: where the trial is kept.
        machine: the machine's index in the trial.

    Raises:
        StorageError: storage is full, read-only, not shared, or out of reach; every method may.
    """

    def __init__(self, place: TrialPlace, machine: int) -> None:
        self.folder: TrialFolder = place.folder(machine)
        self._machine = machine
        self._start = ""
        self._stored: StoredTrial | None = None
        if (objects := place.objects) is not None:
            self._stored = StoredTrial(objects, self.folder, machine, machine + 1, check=lambda: None)

    def open(self) -> None:
        """Machine 0: have the trial's folder here, with its spec and records."""
        path = self.folder.path
        with storage_errors(path):
            if self._stored:
                path.mkdir(parents=True, exist_ok=True)
                self._stored.fetch_records()
        if not self._stored:
            self._see(self.folder.spec.is_file, "the driver")
        if (told := check_writable(path)) is not None:
            raise told

    def begin(self, start: str) -> None:
        """Machine 0: a start of this name begins; its spec stands in the folder."""
        self._start = start
        if self._stored:
            self._stored.objects.put(self.folder.spec, self.folder.spec.name)
            self._stored.objects.write(self.folder.start_file.name, start.encode())

    def join(self, start: str) -> Path:
        """Another machine: take part in that start; returns the spec for its ranks."""
        self._start = start
        path = self.folder.path
        if not self._stored:
            self._see(lambda: self.folder.newest_start() == start, "machine 0")
        with storage_errors(path):
            if self._stored:
                path.mkdir(parents=True, exist_ok=True)
                self._stored.fetch_records()
                self._stored.objects.get(self.folder.spec.name, self.folder.spec)
                self.folder.out_of_memory_marker.unlink(missing_ok=True)
                write_atomically(self.folder.start_file, start)
        if (told := check_writable(path)) is not None:
            raise told
        return self.folder.spec

    def _see(self, seen: Callable[[], bool], writer: str) -> None:
        """Wait until this machine sees what another has written to the trial's folder."""
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while not seen():
            if time.monotonic() > deadline:
                raise StorageError(
                    f"storage not shared: {socket.gethostname()}{_addresses()} does not see what {writer} wrote to "
                    f"{self.folder.path}; give storage a folder that all machines share, or a URI such as "
                    "s3://bucket/prefix"
                )
            time.sleep(0.2)

    def account(self) -> dict[str, Any]:
        """What went wrong here: `storage`, `out_of_memory` and `reason`, None or empty where nothing is known."""
        marker = self.folder.out_of_memory_marker
        said = self.folder.reason(self._machine, lines=1000) if self.folder.path.is_dir() else ""
        told = error_in_log(said) or check_writable(self.folder.path)
        return {
            "storage": str(told) if told else None,
            "out_of_memory": marker.read_text(encoding="utf-8") if marker.is_file() else None,
            "reason": self.folder.reason(self._machine) if said else "",
        }

    def push(self) -> None:
        """Upload the machine's log, and on machine 0 the trial's failures, unless a newer start has begun.

        Where that cannot be done the driver still hears the reason of the failure.
        """
        with suppress(StorageError, OSError):
            if self._stored and self._stored.objects.read(self.folder.start_file.name) == self._start.encode():
                self._stored.push_records()

    def clear(self) -> None:
        """Remove the scratch folder of a trial that is done: its objects are the record."""
        if self._stored is None:
            return
        with suppress(StorageError):  # then it stays
            if self._stored.objects.entry(self.folder.result.name) is not None:
                shutil.rmtree(self.folder.path, ignore_errors=True)


def _addresses() -> str:
    """This machine's address in the Ray cluster: hosts may share a name."""
    import ray

    return f" ({ray.util.get_node_ip_address()})" if ray.is_initialized() else ""
