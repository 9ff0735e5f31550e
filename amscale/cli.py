"""Run a command: Fire for its arguments, one line and exit status 2 for bad input, one JSON document with --json."""

import inspect
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from amscale.errors import EXIT_PREEMPTED, InputError, Preempted

COMMANDS = ("sweep", "plan", "train", "status", "fit", "report", "probe", "doctor")
EXIT_INTERRUPTED = 128 + signal.SIGINT

_document: TextIO | None = None
"""Standard output, kept apart from everything that prints, while a command runs with --json."""


def run(function: Callable[..., Any], arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run a command function with the arguments of the command line, and exit with its status.

    Args:
        function: takes positional strings and keyword flags; returns its exit status, or None for 0.
        arguments: the arguments, without the command's name; `sys.argv[1:]` if None.
        name: the command as the user typed it, for messages.
    """
    if sys.platform != "linux":  # process trees are owned by prctl and /proc
        print(f"amscale runs on Linux only, and this is {sys.platform}", file=sys.stderr)
        sys.exit(2)
    arguments = sys.argv[1:] if arguments is None else arguments
    name = name or f"python -m amscale.{function.__name__}"
    # Every rank of a trial runs `train`, and the document is rank 0's.
    silent = function.__name__ == "train" and os.environ.get("RANK", "0") != "0"
    with _only_documents("--json" in arguments and not silent):
        status = _run(function, arguments, name)
    sys.exit(status)


def _run(function: Callable[..., Any], arguments: list[str], name: str) -> int:
    import fire

    os.environ.setdefault("PAGER", "cat")
    short = name.split(".")[-1].split()[-1]
    try:
        _check_flags(function, arguments, name)
        status = fire.Fire(function, command=_with_switches(function, arguments), name=name, serialize=lambda _: None)
    except InputError as error:
        return _end(2, str(error), command=short)
    except Preempted:
        return _end(EXIT_PREEMPTED, "stopped: the same command continues from the checkpoints")
    except OSError as error:
        from amscale.trials.storage_errors import disk_error

        if (found := disk_error(error)) is None:
            raise
        return _end(2, str(found), command=short)
    except KeyboardInterrupt:
        return _end(EXIT_INTERRUPTED, "interrupted")
    return status if isinstance(status, int) else 0


def _end(status: int, message: str, command: str = "") -> int:
    """Say why a command ends early, on standard error and, with --json, in the document; return the exit status."""
    print(f"{command}: {message}" if command else message, file=sys.stderr)
    if _document is not None:
        print_json({"error": message})
    return status


def print_json(document: Any) -> None:
    """Print the one JSON document of a command with --json; numbers that are not finite become null."""
    print(json.dumps(_finite(document), allow_nan=False), file=_document or sys.stdout, flush=True)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


@contextmanager
def _only_documents(wanted: bool) -> Iterator[None]:
    """While the block runs, send what is written to standard output to standard error, but for `print_json`.

    By file descriptor: what libraries and child processes write there does not pass `sys.stdout`.
    """
    global _document
    if not wanted:
        yield
        return
    if sys.stdout is None:
        raise InputError("--json: standard output is closed")
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    _document = os.fdopen(os.dup(kept), "w", encoding="utf-8")
    try:
        yield
    finally:
        sys.stdout.flush()
        _document.close()
        _document = None
        os.dup2(kept, 1)
        os.close(kept)


def _check_flags(function: Callable[..., Any], arguments: list[str], name: str) -> None:
    """Refuse an unknown flag in one line; Fire would answer with a page of usage."""
    parameters = inspect.signature(function).parameters.values()
    flags = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    for argument in arguments:
        if argument.startswith("-") and argument[1:2].isalpha() and argument != "-h":
            raise InputError(f"unknown flag {argument}; flags are written --name, and settings key=value")
        if not argument.startswith("--") or argument == "--":
            continue
        flag = argument[2:].partition("=")[0].replace("-", "_")
        if flag == "json" and argument != "--json":
            raise InputError(f"{argument}: write --json")
        if flag not in flags and flag.removeprefix("no") not in flags and flag != "help":
            known = ", ".join(f"--{f}" for f in flags if f not in ("source", "config")) or "none"
            raise InputError(f"unknown flag {argument}; flags of {name}: {known}; settings are written key=value")


def _with_switches(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Write switches as `--switch=True`: Fire would take the setting that follows a switch for its value."""
    parameters = inspect.signature(function).parameters.values()
    switches = {f"--{p.name}" for p in parameters if isinstance(p.default, bool)}
    return [f"{word}=True" if word.replace("-", "_").replace("__", "--", 1) in switches else word for word in arguments]


def main() -> None:
    """Run the console script `amscale COMMAND …`."""
    from importlib import import_module

    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: amscale COMMAND [CONFIG] [key=value …] [--flag]\n\ncommands:")
        for command in COMMANDS:
            module = import_module(f"amscale.{command}")
            print(f"  {command:8}{(module.__doc__ or '').strip().splitlines()[0]}")
        print("\n`amscale COMMAND --help` describes one of them.")
        sys.exit(0 if arguments else 2)
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"amscale: unknown command {command!r}; commands: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    run(getattr(import_module(f"amscale.{command}"), command), rest, f"amscale {command}")
