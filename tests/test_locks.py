"""File locks between real processes, and disks that have none."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from amscale.locks import FileLock, LockHeld, LocksUnsupported

HOLD = """
import pathlib, sys, time
from amscale.locks import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]))
lock.write("the other one")
print("held", flush=True)
time.sleep(600)
"""


def without_locks(number: int):
    """Return a `flock` that fails as on a disk without locks."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockHeld, match=r"^the other one$"):
            FileLock(path)
    finally:
        other.kill()
        other.wait()
    with FileLock(path, wait=True) as lock:
        assert lock.is_current()
        path.rename(tmp_path / "elsewhere")
        assert not lock.is_current()
        path.touch()
        assert not lock.is_current()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_a_disk_without_locks_is_no_other_holder(number, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", without_locks(number))
    before = len(os.listdir("/proc/self/fd"))
    for wait in (True, False):
        with pytest.raises(LocksUnsupported, match=f"lock: {os.strerror(number)}"):
            FileLock(tmp_path / "lock", wait=wait)
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_error_of_the_disk_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", without_locks(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        FileLock(tmp_path / "lock")
