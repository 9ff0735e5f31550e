"""Attempts of a trial, and what is known of one that ended.

A host that was cut off may still reach the storage, and its ranks would go on writing. So every attempt has a name, and
writes only while the trial's `start` file holds it.
"""

import os
from dataclasses import dataclass

ATTEMPT_MARK = "=== start "
"""Begins the line that every attempt adds to a trial's log."""

REFUSED_MARK = "=== refused: "
"""Begins the line by which a rank says why it refuses to train: no other attempt would do better."""

ATTEMPT_VARIABLE = "AMSCALE_ATTEMPT"
"""Environment variable that tells a rank the name of its attempt."""


class AttemptReplaced(BaseException):
    """A newer attempt of the trial has begun, and this one must write nothing more.

    Not an `Exception`: no handler of failed writes may take it for one and go on.
    """

    def __init__(self) -> None:
        super().__init__("this attempt of the trial ends: a newer one has taken its place")


@dataclass(frozen=True)
class Diagnosis:
    """What went wrong in an attempt, as one machine sees it; None or empty where nothing is known."""

    storage: str | None
    """The line about storage that is full, read-only or out of reach."""
    out_of_memory: str | None
    """What the rank said that ran out of memory."""
    reason: str
    """The last lines that the machine's ranks wrote."""
    refused: str | None = None
    """Why a rank refused to train; another attempt would only repeat it."""


def attempt_of_environment() -> str:
    """Return the attempt that this process was started for; empty where it was started by hand."""
    return os.environ.get(ATTEMPT_VARIABLE, "")


def refusal_in_log(text: str) -> str | None:
    """Return why a rank refused to train, from the lines of its attempt; None where none did."""
    lines = (line for line in text.splitlines() if line.startswith(REFUSED_MARK))
    return next((line.removeprefix(REFUSED_MARK) for line in lines), None)
