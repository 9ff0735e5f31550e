"""File locks: one holder at a time, freed by the kernel when the holder ends, however it ends.

Some shared disks have no locks: Lustre without the mount option `flock`, some NFS servers and FUSE file systems. They
raise `LocksUnsupported`, never `LockHeld`, and the caller chooses what serves there instead.
"""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class LockHeld(Exception):
    """Another process holds the lock; the message is what the holder wrote into the file."""


class LocksUnsupported(Exception):
    """The disk has no file locks."""


class FileLock:
    """An exclusive lock on a file, held until `release` or until this process ends.

    Use it as a context manager to release it at the end of a block.

    Args:
        path: the file; made where it is missing.
        wait: wait for another holder instead of raising.
        mode: permissions of a new file.

    Raises:
        LockHeld: another process holds it, and `wait` is false.
        LocksUnsupported: the disk has no locks; the message names the file.
        OSError: the file cannot be opened, or the disk fails.
    """

    def __init__(self, path: Path, *, wait: bool = False, mode: int = 0o644) -> None:
        self.path = path
        # Open for writing: NFS grants an exclusive lock on no other file.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(self._descriptor, 1000, 0).decode("utf-8", errors="replace").strip()
            self.release()
            raise LockHeld(holder) from None
        except OSError as error:
            self.release()
            if error.errno in _UNSUPPORTED:
                raise LocksUnsupported(f"{path}: {os.strerror(error.errno)}") from None
            raise

    def write(self, text: str) -> None:
        """Replace the content of the file, which others read while they cannot have the lock."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def is_current(self) -> bool:
        """Return whether the path still names the locked file, and not another or none."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others take the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
