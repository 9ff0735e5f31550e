"""Where results live: a folder that machines share, or objects under a URI with a working folder on each machine.

trouble.py      storage that fails, in one line
objects.py      whole objects under a URI, through pyarrow.fs
place.py        the folder in which a machine works on a trial
mirror.py       the small files of a sweep, down and up
stored.py       a trial's objects, as one of its machines uses them
checksums.py    what a file must be
tokens.py       token stores
lease.py        one driver a sweep, without file locks
"""

from amscale.storage.mirror import sweep_at
from amscale.storage.objects import Objects, is_uri
from amscale.storage.place import TrialPlace, storage_folder, working_folder
from amscale.storage.trouble import StorageError, in_words, probe, trouble

__all__ = [
    "Objects",
    "StorageError",
    "TrialPlace",
    "in_words",
    "is_uri",
    "probe",
    "storage_folder",
    "sweep_at",
    "trouble",
    "working_folder",
]
