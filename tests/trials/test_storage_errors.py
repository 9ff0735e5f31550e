"""Failures of storage in words: disks that are full, read-only or not one's own."""

import errno
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from amscale.trials.storage_errors import StorageError, check_writable, error_in_log, storage_error_in, storage_errors


@contextmanager
def small_disk(folder: Path, options: str):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_in_words(tmp_path):
    with small_disk(tmp_path / "disk", "size=256k") as disk:
        assert check_writable(disk) is None
        with pytest.raises(StorageError) as caught, storage_errors(disk):
            (disk / "big").write_bytes(bytes(1 << 20))
        line = f"storage full: {disk}: No space left on device; free space and run the same command again"
        assert str(caught.value) == line
        # torch reports a failed write without an error number, and libraries wrap what they raise.
        assert str(storage_error_in(RuntimeError("file write failed"), disk)) == line
        assert error_in_log(f"Traceback …\ntrain: {line}\nmore") == line
        (disk / "big").unlink()
        assert storage_error_in(RuntimeError("shapes differ"), disk) is None


def test_a_read_only_disk_in_words(tmp_path):
    with small_disk(tmp_path / "disk", "ro") as disk:
        assert str(check_writable(disk)).startswith(
            f"storage read-only: {disk}: Read-only file system; make it writable"
        )


def test_other_failures_of_storage_in_words(tmp_path):
    over = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    rust = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert str(storage_error_in(rust, tmp_path)).startswith(f"storage full: {tmp_path}: No space left on device; ")
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = over
    assert str(storage_error_in(wrapped, tmp_path)).startswith(
        f"storage quota used up: {tmp_path}: Disk quota exceeded; "
    )
    mine = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "metrics.jsonl"))
    assert str(storage_error_in(mine, tmp_path)).startswith(f"storage not writable: {tmp_path}/metrics.jsonl: ")
    assert storage_error_in(PermissionError(errno.EACCES, "Permission denied", "/some/corpus.txt"), tmp_path) is None
