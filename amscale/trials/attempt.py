"""Only the newest start of a trial writes into its folder."""

import os
import sys

from amscale.cluster.launcher import ATTEMPT_VARIABLE
from amscale.trials.folder import TrialFolder
from amscale.trials.objects import ObjectStore


class AttemptGuard:
    """Ends this rank before it writes into a trial that was started anew elsewhere.

    A host that the cluster has given up may still run, and reach the storage: its ranks find another start's name
    there. Between a check and the write that follows it lie milliseconds; checkpoints of two starts have names of
    their own until they are whole.

    Args:
        folder: the trial's. A run that was started by hand has no name and no rival.
        objects: of the trial, where they are its record and the folder is this machine's alone.
    """

    def __init__(self, folder: TrialFolder, objects: ObjectStore | None = None) -> None:
        self._folder = folder
        self._objects = objects
        self.start = os.environ.get(ATTEMPT_VARIABLE, "")

    def check(self) -> None:
        """Return while this start is the newest; end the process otherwise."""
        if self.start and self._folder.newest_start() != self.start:
            self._end()

    def check_objects(self) -> None:
        """The same, by the name among the trial's objects; asked before an upload."""
        if self.start and self._objects and self._objects.read(self._folder.start_file.name) != self.start.encode():
            self._end()

    def _end(self) -> None:
        print("this start of the trial ends: a newer one has taken its place", file=sys.stderr, flush=True)
        os._exit(1)
