"""Where a trial is kept, and the folder in which each machine works on it.

On shared storage that is the trial's folder. With objects under a URI every machine has a working folder for its part
of the trial, below its scratch folder:

    <scratch>/<scheme>-<digits>/<bucket>/<prefix>/       what a storage folder holds: tokens/ and sweeps
        <sweep>/trials/<label>/          small files of the trial, as the driver and `fit` read them
        .work/<sweep>/<label>/machine0/  the trial's folder on its machine 0, and so on
"""

import hashlib
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from amscale.config import Experiment
from amscale.errors import InputError
from amscale.files import removed_if_empty
from amscale.trials.object_trial_store import ObjectTrialStore
from amscale.trials.objects import ObjectStore, check_uri, is_uri
from amscale.trials.trial_store import TrialStore
from amscale.trials.visibility import VISIBLE_SECONDS

_UNEXPANDED = re.compile(r"^~|\$[A-Za-z_{]")
"""What a shell would have replaced: the home folder of a user, here an unknown one, or a variable."""


def working_folder(uri: str, scratch: str | None = None) -> Path:
    """Return this machine's working folder for the objects under a URI, which need not exist.

    Args:
        uri: storage of sweeps.
        scratch: `launch.scratch`.

    Raises:
        InputError: a password in the URI, an unset variable in `scratch`, or another user's scratch folder.
    """
    check_uri(uri)
    address = urlsplit(uri)
    # The same path behind another endpoint is another storage.
    digits = hashlib.sha256(f"{address.scheme}?{address.query}".encode()).hexdigest()[:8]
    path = f"{address.netloc}/{address.path.strip('/')}".strip("/")
    if ".." in path.split("/"):
        raise InputError(f"storage={uri!r}: a URI with '..' in it; write it out")
    return scratch_folder(scratch) / f"{address.scheme}-{digits}" / path


def storage_folder(experiment: Experiment) -> Path:
    """Return the storage folder: this machine's working folder where storage is a URI.

    That it can be made and written is tried; one that was missing is missing still, until something is written there.

    Raises:
        InputError: it cannot be made or written, or the URI holds a password.
    """
    if is_uri(experiment.storage):
        folder = working_folder(experiment.storage, experiment.launch.scratch)
        named = f"{folder} (launch.scratch={experiment.launch.scratch!r}):"
    else:
        path = os.path.expanduser(experiment.storage)
        folder = Path(path).absolute()
        named = f"storage={experiment.storage!r}:"
        if _UNEXPANDED.search(path) and not folder.exists():
            raise InputError(f"{named} variables and unknown users in it stand for nothing; write the path out")
    with removed_if_empty(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # a ValueError: a NUL in it
            reason = getattr(error, "strerror", None) or error
            if isinstance(error, FileExistsError | NotADirectoryError):
                taken = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
                reason = f"{taken} is a link to nothing" if taken.is_symlink() else f"{taken} is a file"
            raise InputError(f"{named} cannot be made ({reason}); give a writable folder") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{named} cannot be written; give a writable folder")
    return folder


def scratch_folder(scratch: str | None) -> Path:
    """Return the scratch folder of this machine: `launch.scratch` with its variables, or one in the temporary folder.

    Raises:
        InputError: an unset variable in `scratch`, or a temporary folder that another user made.
    """
    if scratch is not None:
        path = os.path.expanduser(os.path.expandvars(scratch))
        if "$" in path:
            raise InputError(f"launch.scratch={scratch!r}: a variable in it is not set on this machine")
        return Path(path).absolute()
    # Checkpoints are read with pickle: nobody else may write them.
    folder = Path(tempfile.gettempdir()) / f"amscale-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; give launch.scratch")
    return folder


@dataclass(frozen=True)
class TrialLocation:
    """Where a trial is kept: plain data that can be sent to its machines."""

    storage: str
    """A folder, absolute, or a URI."""
    scratch: str | None
    """`launch.scratch`; counts where storage is a URI."""
    sweep: str
    label: str
    visible_seconds: float = VISIBLE_SECONDS
    """`launch.visible_after`."""

    def store(self, machine: int = 0, machines: int = 1, *, attempt: str = "", path: Path | None = None) -> TrialStore:
        """Return the trial's store on one of its machines, which must be this one.

        Args:
            machine: index of this machine in the trial.
            machines: number of the trial's machines; counts where checkpoints are read.
            attempt: the attempt that this process takes part in.
            path: the trial's folder on this machine; as the location says if None.
        """
        if not is_uri(self.storage):
            folder = path or Path(self.storage) / self.sweep / "trials" / self.label
            return TrialStore(folder, machine, attempt, self.visible_seconds)
        objects, working = ObjectStore(self.storage), working_folder(self.storage, self.scratch)
        return ObjectTrialStore(
            objects.at(self.sweep, "trials", self.label),
            path or working / ".work" / self.sweep / self.label / f"machine{machine}",
            machine,
            machines,
            attempt,
            tokens=(objects, working / "tokens"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the location as plain data."""
        return asdict(self)
