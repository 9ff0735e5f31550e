"""Find folders that can be written where TMPDIR or HOME do not serve: long paths, read-only disks, no passwd entry."""

import os
import pwd
import stat
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from amscale.errors import InputError

# Ray's sockets lie about 63 characters below its folder, and a socket's path has at most 107.
LONGEST_RAY_FOLDER = 44
_NAME_LENGTH = len("/ray-12345678")
_CACHES = {
    "XDG_CACHE_HOME": "cache",  # Hugging Face, torch's extensions and hub, DeepSpeed
    "MPLCONFIGDIR": "matplotlib",
    "TRITON_HOME": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
}
"""Variables of libraries that keep files in the home folder, and the folder that each gets instead."""


def ray_folder() -> Path:
    """Make a folder for Ray's files: below TMPDIR where that can be written and is short enough for a socket's path.

    Raises:
        InputError: neither TMPDIR nor any of the system's folders for temporary files serves.
    """
    for parent in _temporary_parents():
        if len(os.fsencode(parent)) + _NAME_LENGTH <= LONGEST_RAY_FOLDER:
            try:
                return Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
            except OSError:  # not there, read-only, full, or another user's
                continue
    raise InputError(
        f"no folder for Ray's files: neither {' nor '.join(_temporary_parents())} can be written and has a path of at "
        f"most {LONGEST_RAY_FOLDER - _NAME_LENGTH} bytes; set TMPDIR to one that does"
    )


def _temporary_parents() -> list[str]:
    given = os.environ.get("TMPDIR", "")
    return [*([os.path.abspath(given)] if given else []), "/tmp", "/var/tmp", "/dev/shm"]


def private_folder(name: str, parent: str | None = None) -> Path:
    """Make and return a folder of this user below the folder for temporary files, which all its processes share.

    Args:
        name: of the folder, to which the user's id is added.
        parent: another folder for temporary files than TMPDIR names; taken where it can be written.

    Raises:
        InputError: it is another user's, or a link: files in it could be anyone's; or it cannot be made.
    """
    try:
        serves = parent is not None and os.access(parent, os.W_OK | os.X_OK)
        folder = Path(str(parent) if serves else tempfile.gettempdir()) / f"{name}-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InputError(f"no folder for temporary files can be made ({error}); set TMPDIR to one") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InputError(f"{folder}: is not a folder of this user (id {os.getuid()}); remove it, or set TMPDIR")
    if found.st_mode & 0o022:
        folder.chmod(0o700)
    return folder


def set_cache_folders(environment: MutableMapping[str, str]) -> str:
    """Let libraries keep their files elsewhere where the home folder cannot be written.

    Args:
        environment: variables of a process, to which those that are missing are added.

    Returns:
        One line that says so; empty where the home folder can be written.
    """
    home = environment.get("HOME", "")
    if not _has_passwd_entry():
        # getpass.getuser() looks here before it looks for the entry.
        environment.setdefault("USER", f"uid{os.getuid()}")
        environment.setdefault("LOGNAME", environment["USER"])
    if home and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return ""
    missing = [name for name in _CACHES if not environment.get(name)]
    if home and not missing:
        return ""
    folder = private_folder("amscale-home")
    if not home:
        environment["HOME"] = str(folder)
    for name in missing:
        environment[name] = str(folder / _CACHES[name])
    state = f"HOME={home} cannot be written" if home else "HOME is not set"
    return f"{state}: caches of libraries go to {folder}"


def _has_passwd_entry() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
