"""One driver a sweep where there are no file locks: an object that names the driver and is renewed while it runs.

Ages are by the store's clock alone: an object's against that of one written just now. pyarrow.fs has no conditional
write, so two drivers that start within the same two seconds may, where a request takes longer, both believe
that they hold the sweep; the one that finds the other's name at its next renewal ends.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from amscale.errors import InputError
from amscale.trials.objects import ObjectStore
from amscale.trials.storage_errors import OutOfReach

KEY = ".driver"
_RENEW_SECONDS = 15.0
"""Seconds between renewals."""
_EXPIRE_SECONDS = 60.0
"""Seconds after which a driver that renewed nothing is taken for dead."""
_SETTLE_SECONDS = 2.0
"""Seconds after which a driver that wrote its name looks whose it is."""


@dataclass
class Ownership:
    """A driver's hold on a sweep, which another driver may take while this one is cut off from the store.

    The driver asks between its steps: nothing interrupts it, no signal either, which a job in the background ignores.
    """

    address: str
    """Where the sweep is, for messages."""
    _lost: threading.Event = field(default_factory=threading.Event)

    def lost(self) -> bool:
        """Return whether another driver has taken the sweep."""
        return self._lost.is_set()

    def lose(self) -> None:
        """Note that another driver has taken the sweep."""
        self._lost.set()

    def check(self) -> None:
        """Check that the sweep is still this driver's.

        Raises:
            InputError: another driver has taken it.
        """
        if self.lost():
            raise InputError(f"{self.address}: another driver has taken this sweep; this one ends")


@contextmanager
def held(objects: ObjectStore, address: str | None = None) -> Iterator[Ownership]:
    """Hold a sweep for one driver while the block runs; the block asks the ownership whether it still does.

    Args:
        objects: of the sweep.
        address: where the sweep is, for messages; the URI of the objects if None.

    Raises:
        InputError: another driver holds it, or took it before the end of the block.
    """
    address = address or objects.uri
    own = json.dumps({**_process(), "token": uuid.uuid4().hex}).encode()
    other = _living(objects)
    if other is None:
        objects.write(KEY, own)
        time.sleep(_SETTLE_SECONDS)
        other = None if objects.read(KEY) == own else "started at the same time"
    if other is not None:
        raise InputError(f"{address}: another driver runs this sweep ({other}); wait for it")
    ownership, ended = Ownership(address), threading.Event()
    renewing = threading.Thread(target=_renew, args=(objects, own, ownership, ended), daemon=True)
    renewing.start()
    try:
        yield ownership
    finally:
        ended.set()
        renewing.join()
        if not ownership.lost() and objects.read(KEY) == own:
            objects.remove([KEY])
    ownership.check()


def _renew(objects: ObjectStore, own: bytes, ownership: Ownership, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_SECONDS):
        try:
            if objects.read(KEY) == own:
                objects.write(KEY, own)
                continue
        except (OutOfReach, OSError):
            continue  # just now; if for long, another driver may take over, and that is seen next
        ownership.lose()
        return


def _living(objects: ObjectStore) -> str | None:
    """Return a description of the driver that holds the sweep, or None."""
    content, entry = objects.read(KEY), objects.entry(KEY)
    if not content or entry is None:  # empty: an attempt to lock it as a file
        return None
    holder = _parsed(content)
    described = f"process {holder.get('process')} on {holder.get('host')}"
    if all(holder.get(key) == _process()[key] for key in ("host", "kernel")):
        return described if _lives(holder) else None
    now = f"{KEY}-{uuid.uuid4().hex}"
    objects.write(now, b"")
    written = objects.entry(now)
    objects.remove([now])
    age = (written.changed - entry.changed) / 1e9 if written else 0.0
    if age > _EXPIRE_SECONDS:
        return None
    return f"{described}, renewed {age:.0f} s ago; if it is dead, wait {_EXPIRE_SECONDS:.0f} s from then"


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _process() -> dict[str, Any]:
    """Return what tells this process from all others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read().strip()
    started = psutil.Process().create_time()
    kernel = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return {"host": socket.gethostname(), "kernel": kernel, "process": os.getpid(), "started": started}


def _lives(holder: dict[str, Any]) -> bool:
    try:
        return bool(abs(psutil.Process(holder["process"]).create_time() - holder["started"]) < 1)
    except (psutil.NoSuchProcess, KeyError, TypeError):
        return False
