"""Run a command in a new process, and read the JSON document that it prints."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from amscale.errors import EXIT_PREEMPTED, InputError, Preempted
from amscale.streams import readable

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_LAST_LINES = 20


def run_command(name: str, configuration: dict[str, Any], progress: bool) -> dict[str, Any]:
    """Run `python -m amscale.<name> CONFIGURATION --json` and return its document.

    The process has a new session, so that Ctrl-C in a notebook reaches it once, through this one; and it gets
    SIGTERM when this process ends.

    Args:
        progress: pass on what it writes to standard error, as it comes.

    Raises:
        InputError: the command ended with status 2; its one line.
        Preempted: SIGTERM stopped it.
        KeyboardInterrupt: interrupted; it has ended in order.
        RuntimeError: it ended without a document, which is a bug; the last lines of standard error.
    """
    with tempfile.TemporaryDirectory(prefix="amscale-") as folder:
        file = Path(folder) / "experiment.yaml"
        file.write_text(json.dumps(configuration), encoding="utf-8")  # which is YAML, and quotes every text
        process = subprocess.Popen(
            [sys.executable, "-m", f"amscale.{name}", str(file), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        lines: list[str] = []
        reader = threading.Thread(target=_pass_on, args=(process.stderr, lines, progress), daemon=True)
        reader.start()
        try:
            output = process.stdout.read()
            status = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        finally:
            reader.join()
    if status == EXIT_PREEMPTED:
        raise Preempted
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    try:
        document: dict[str, Any] = json.loads(output)
    except ValueError:
        raise RuntimeError(f"amscale.{name} ended with status {status}:\n{''.join(lines)}") from None
    if status == 2:
        raise InputError(document["error"])
    return document


def _pass_on(stream: IO[str], lines: list[str], progress: bool) -> None:
    """Read a stream to its end, keep its last lines, and show them all where wanted."""
    for line in stream:
        lines.append(line)
        del lines[:-_LAST_LINES]
        if progress:
            try:
                shown = readable(line, getattr(sys.stderr, "encoding", None))
                print(shown, end="", file=sys.stderr, flush=True)
            except (OSError, ValueError):  # closed; the rest is read all the same, or the command would wait
                progress = False


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies: the command then ends its trials in order."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a caller in the background of a script ignores it
    parent = os.getppid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
