"""Exceptions that a command reports in one line, and its exit status after a preemption."""

EXIT_PREEMPTED = 75
"""Exit status of a command or a trial that ended on request and is to be started again (EX_TEMPFAIL of sysexits.h)."""

EXIT_UNREAD = 141
"""Exit status of a command whose output nobody reads any more, as of one that SIGPIPE has ended."""


class InputError(Exception):
    """Report bad input: one line that names what was given, what is allowed and what to do.

    Commands print it without a traceback and exit with status 2. Whatever the message quotes, it is one printable line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def no_sweep(address: object) -> InputError:
    """Return the error that a folder or a URI holds no sweep."""
    return InputError(f"{address}: not a sweep folder; give <storage>/<name> of a sweep that has been started")


def one_line(text: str, most: int = 1500) -> str:
    """Return a text as one line that a terminal can print: control characters escaped, a long middle left out."""
    line = " ".join(text.split())
    if len(line) > most:
        line = f"{line[: most // 2]} … {line[-most // 2 :]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class Preempted(Exception):
    """SIGTERM ended a sweep after its trials wrote checkpoints; commands exit with EXIT_PREEMPTED."""


class TrialsFailed(Exception):
    """Some trials of a sweep ended without a result; every other trial has one.

    Args:
        reasons: why each trial failed, by label.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(f"{label}: {one_line(reason, 300)}" for label, reason in reasons.items()))
        self.reasons = reasons


class ClusterLost(Exception):
    """The Ray cluster is gone while a sweep ran on it; running the sweep again continues from the checkpoints."""
