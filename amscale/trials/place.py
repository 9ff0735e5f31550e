"""The folder in which a machine works on a trial.

On shared storage it is the trial's folder. With objects under a URI every machine has a folder of its own for its part
of the trial, below its scratch folder:

    <scratch>/<scheme>-<digits>/<bucket>/<prefix>/       what a storage folder holds: tokens/ and sweeps
        <sweep>/trials/<label>/          small files of the trial, as the driver and `fit` read them
        .work/<sweep>/<label>/machine0/  the trial's folder on its machine 0, and so on
"""

import hashlib
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from amscale.config import Experiment
from amscale.errors import InputError
from amscale.trials.folder import SweepFolder, TrialFolder
from amscale.trials.objects import ObjectStore, check_uri, is_uri


def working_folder(uri: str, scratch: str | None = None) -> Path:
    """This machine's working folder for the objects under a URI; not made yet.

    Args:
        uri: storage of sweeps.
        scratch: `launch.scratch`.

    Raises:
        InputError: a password in the URI, an unset variable in `scratch`, or another user's scratch folder.
    """
    check_uri(uri)
    address = urlsplit(uri)
    # The same path behind another endpoint is another place.
    digits = hashlib.sha256(f"{address.scheme}?{address.query}".encode()).hexdigest()[:8]
    path = f"{address.netloc}/{address.path.strip('/')}".strip("/")
    if ".." in path.split("/"):
        raise InputError(f"storage={uri!r}: a URI with '..' in it; write it out")
    return scratch_folder(scratch) / f"{address.scheme}-{digits}" / path


def storage_folder(experiment: Experiment) -> Path:
    """The storage folder, made if it is missing; this machine's working folder where storage is a URI.

    Raises:
        InputError: it cannot be made or written, or the URI holds a password.
    """
    if is_uri(experiment.storage):
        folder = working_folder(experiment.storage, experiment.launch.scratch)
        named = f"{folder} (launch.scratch={experiment.launch.scratch!r}):"
    else:
        folder = Path(os.path.expanduser(experiment.storage)).absolute()
        named = f"storage={experiment.storage!r}:"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError: a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{named} cannot be made ({reason}); give a writable folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{named} cannot be written; give a writable folder")
    return folder


def scratch_folder(scratch: str | None) -> Path:
    """The scratch folder of this machine: `launch.scratch` with its variables, or one below the temporary folder.

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
class TrialPlace:
    """Where a trial is kept, and where each machine works on it."""

    storage: str
    """A folder, absolute, or a URI."""
    scratch: str | None
    sweep: str
    label: str

    @property
    def objects(self) -> ObjectStore | None:
        """The trial's objects; None on shared storage."""
        return self.tokens_at.at(self.sweep, "trials", self.label) if self.tokens_at else None

    @property
    def tokens_at(self) -> ObjectStore | None:
        """The objects of all sweeps and of `tokens/`; None on shared storage."""
        return ObjectStore(self.storage) if is_uri(self.storage) else None

    @property
    def working(self) -> Path:
        """This machine's folder of sweeps and tokens."""
        return working_folder(self.storage, self.scratch) if is_uri(self.storage) else Path(self.storage)

    def folder(self, machine: int) -> TrialFolder:
        """The trial's folder on one of its machines, which must be this one; not made yet."""
        if is_uri(self.storage):
            return TrialFolder(self.working / ".work" / self.sweep / self.label / f"machine{machine}")
        return SweepFolder(self.working / self.sweep).trial(self.label)

    def to_dict(self) -> dict[str, str | None]:
        """As plain data, for a trial's actor."""
        return asdict(self)
