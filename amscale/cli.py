"""Run a command: Fire for the arguments, one line and exit status 2 for bad input."""

import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from amscale.errors import EXIT_PREEMPTED, InputError, Preempted

INTERRUPTED = 128 + signal.SIGINT


def run(function: Callable[..., Any], arguments: list[str] | None = None, name: str | None = None) -> None:
    """Run a command function with the arguments of the command line and exit with its status.

    Args:
        function: takes positional strings and keyword flags; returns its exit status, or None for 0.
        arguments: the arguments, without the command's name; `sys.argv[1:]` if None.
        name: the command as the user typed it, for messages.
    """
    import fire

    if sys.platform != "linux":  # process trees are owned by prctl and /proc
        print(f"amscale runs on Linux only, and this is {sys.platform}", file=sys.stderr)
        sys.exit(2)
    arguments = sys.argv[1:] if arguments is None else arguments
    name = name or f"python -m amscale.{function.__name__}"
    os.environ.setdefault("PAGER", "cat")
    try:
        _check_flags(function, arguments, name)
        status = fire.Fire(function, command=_with_switches(function, arguments), name=name, serialize=lambda _: None)
    except InputError as error:
        print(f"{name.split('.')[-1].split()[-1]}: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted:
        print("told to end: the same command continues from the checkpoints", file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
    except OSError as error:
        from amscale.trials.storage_errors import disk_error

        if (told := disk_error(error)) is None:
            raise
        print(f"{name.split('.')[-1].split()[-1]}: {told}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _check_flags(function: Callable[..., Any], arguments: list[str], name: str) -> None:
    """Fire answers an unknown flag with a page of usage; one line is kinder."""
    parameters = inspect.signature(function).parameters.values()
    flags = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    for argument in arguments:
        if not argument.startswith("--") or argument == "--":
            continue
        flag = argument[2:].partition("=")[0].replace("-", "_")
        if flag not in flags and flag.removeprefix("no") not in flags and flag != "help":
            known = ", ".join(f"--{f}" for f in flags if f not in ("source", "config")) or "none"
            raise InputError(f"unknown flag {argument}; flags of {name}: {known}; settings are written key=value")


def _with_switches(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Fire would take the word after a switch for the switch's value, and lose a setting that stands there."""
    parameters = inspect.signature(function).parameters.values()
    switches = {f"--{p.name}" for p in parameters if isinstance(p.default, bool)}
    return [f"{word}=True" if word.replace("-", "_").replace("__", "--", 1) in switches else word for word in arguments]


def main() -> None:
    """The console script `amscale <command> …`."""
    from importlib import import_module

    commands = ("sweep", "plan", "train", "status", "fit", "report", "probe")
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: amscale COMMAND [CONFIG] [key=value …] [--flag]\n\ncommands:")
        for command in commands:
            module = import_module(f"amscale.{command}")
            print(f"  {command:8}{(module.__doc__ or '').strip().splitlines()[0]}")
        print("\n`amscale COMMAND --help` describes one of them.")
        sys.exit(0 if arguments else 2)
    command, *rest = arguments
    if command not in commands:
        print(f"amscale: unknown command {command!r}; commands: {', '.join(commands)}", file=sys.stderr)
        sys.exit(2)
    run(getattr(import_module(f"amscale.{command}"), command), rest, f"amscale {command}")
