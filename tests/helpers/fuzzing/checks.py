"""What every command must do, whatever it is given."""

import contextlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from amscale import cli

ENCODINGS = ("utf-8", "utf-8", "ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "utf-16-le")
"""Encodings that standard output may have."""

encoding = "utf-8"
"""That of the present example."""

SECONDS = 20
"""Processor time that an example may take: an input of a few lines must not stop a command."""


class Broken(AssertionError):
    """A command did what no input may make it do."""


def passes(function: Callable[..., Any], arguments: list[str]) -> None:
    """Check that a command accepts undamaged input."""
    if status := command(function, arguments):
        raise Broken(f"exit status {status} with undamaged input: {arguments}")


def command(function: Callable[..., Any], arguments: list[str]) -> int:
    """Run a command as the command line does; return its exit status.

    Raises:
        Broken: it raised anything, ended with an unknown status, or printed more than one line about an input.
    """
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    status: Any = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            cli.run(function, arguments, "python -m amscale.command")
    except SystemExit as ended:
        status = ended.code
    except Exception as failure:
        raise Broken(f"{type(failure).__name__}: {str(failure)[:300]}") from failure
    if status not in (0, 1, 2):
        raise Broken(f"exit status {status!r}")
    said, complained = (stream.buffer.getvalue().decode(encoding) for stream in (out, error))
    if "Traceback" in said + complained:
        raise Broken("a traceback was printed")
    if status == 2:
        one_line(complained.removesuffix("\n"))
    return int(status)


def one_line(text: str) -> None:
    """Check that a message is one printable line."""
    if len(text.splitlines()) != 1 or not text.isprintable():
        raise Broken(f"not one printable line: {text[:400]!r}")
    if len(text) > 2000:
        raise Broken(f"a line of {len(text)} characters: {text[:100]!r}…")


def contents(sweep: Path) -> dict[str, bytes]:
    """Return every file of a sweep's trials."""
    files = (path for path in sweep.glob("trials/*/*") if path.is_file())
    return {str(path.relative_to(sweep)): path.read_bytes() for path in files}


def same(before: dict[str, bytes], after: dict[str, bytes], but: str = "\0") -> None:
    """Check that no file has changed except those whose names hold `but`."""
    changed = [name for name in before if before[name] != after.get(name) and but not in name]
    if changed:
        raise Broken(f"files of trials changed: {changed[:3]}")


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in another folder: a damaged path may be relative."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limit the processor time of an example, so that one that hangs is found."""

    def late(*_: Any) -> None:
        raise Broken(f"not done within {SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
