"""Run a command: its help, Fire for its arguments, one line and exit status 2 for bad input, JSON with --json."""

import contextlib
import difflib
import functools
import inspect
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO, get_args

import amscale
from amscale.errors import EXIT_PREEMPTED, EXIT_UNREAD, InputError, Preempted
from amscale.folders import set_cache_folders
from amscale.streams import discard_output, is_unread, make_readable
from amscale.usage import flags_of, help_text, usage_line

COMMANDS = (
    "sweep",
    "plan",
    "train",
    "status",
    "fit",
    "report",
    "probe",
    "doctor",
    "compare",
    "export",
    "reproduce",
    "clean",
    "card",
)
EXIT_INTERRUPTED = 128 + signal.SIGINT
_HELP = {"-h", "--help"}
_VERSION = f"amscale {amscale.__version__}"

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
    make_readable()
    if (reason := _unusable()) is not None:
        print(reason, file=sys.stderr)
        sys.exit(2)
    arguments = sys.argv[1:] if arguments is None else arguments
    name = name or f"python -m amscale.{function.__name__}"
    if _HELP & set(arguments) or arguments == ["help"]:
        _tell(help_text(function, name))
    if arguments == ["--version"]:
        _tell(_VERSION)
    try:
        note = set_cache_folders(os.environ)  # before any library looks for its own
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if note and function.__name__ == "sweep":
        print(note, file=sys.stderr)
    # Every rank of a trial runs `train`, and the document is rank 0's.
    silent = function.__name__ == "train" and os.environ.get("RANK", "0") != "0"
    wanted = "--json" in arguments and not silent
    if wanted and sys.stdout is None:
        print("--json: standard output is closed; give it a place to go", file=sys.stderr)
        sys.exit(2)
    with _only_documents(wanted):
        status = _run(function, arguments, name)
    if status == EXIT_UNREAD:
        discard_output()
    sys.exit(status)


def _unusable() -> str | None:
    """Return why a command cannot run in this process, whatever its arguments are."""
    if sys.flags.optimize > 1:
        return "Python drops docstrings (-OO, PYTHONOPTIMIZE=2), which Ray and the help need; leave that out"
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working folder has been removed; cd to one that exists"
    return None


def _tell(text: str) -> NoReturn:
    """Print what was asked about the program, and exit."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # a pager that has seen enough
        discard_output()
    sys.exit(0)


_CONTINUING = ("sweep", "train", "probe")


def _run(function: Callable[..., Any], arguments: list[str], name: str) -> int:
    short = name.split(".")[-1].split()[-1]
    try:
        _check_flags(function, arguments, name)
        operands, flags = _parse(function, _with_switches(function, arguments), name)
        status = function(*operands, **flags)
    except InputError as error:
        return _end(2, str(error), command=short)
    except Preempted:
        return _end(EXIT_PREEMPTED, "stopped: the same command continues from the checkpoints")
    except OSError as error:
        output = (_document or sys.stdout) if isinstance(error, BrokenPipeError) else None
        if output is not None and is_unread(output.fileno()):
            return EXIT_UNREAD
        from amscale.trials.storage_errors import disk_error

        if (found := disk_error(error)) is None:
            raise
        return _end(2, str(found), command=short)
    except KeyboardInterrupt:
        return _end(EXIT_INTERRUPTED, "interrupted" + ": the same command continues" * (short in _CONTINUING))
    return status if isinstance(status, int) else 0


def _end(status: int, message: str, command: str = "") -> int:
    """Say why a command ends early, on standard error and, with --json, in the document; return the exit status."""
    print(f"{command}: {message}" if command else message, file=sys.stderr)
    if _document is not None:
        with contextlib.suppress(OSError, InputError):  # perhaps the very thing that is being said
            print_json({"error": message})
    return status


def print_json(document: Any) -> None:
    """Print the one JSON document of a command with --json; numbers that are not finite become null."""
    try:
        print(json.dumps(_finite(document), allow_nan=False), file=_document or sys.stdout, flush=True)
    except OSError as error:  # named here: to those who call, it would be their folder's
        from amscale.trials.storage_errors import disk_error

        if (found := disk_error(error)) is None:
            raise
        raise found from None


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
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    _document = os.fdopen(os.dup(kept), "w", encoding="utf-8")
    try:
        yield
    finally:
        sys.stdout.flush()
        with contextlib.suppress(OSError):  # print_json has met it, and the command said so
            _document.close()
        _document = None
        os.dup2(kept, 1)
        os.close(kept)


def _check_flags(function: Callable[..., Any], arguments: list[str], name: str) -> None:
    """Refuse, in one line, a flag that is unknown or lacks its value; Fire would answer with a page or guess."""
    flags = {flag.name: flag for flag in flags_of(function)}
    for index, argument in enumerate(arguments):
        if argument == "-":  # Fire would leave it out
            raise InputError("-: no file has this name; standard input is /dev/stdin")
        if not _is_flag(argument):
            continue
        written, separator, _ = argument.partition("=")
        flag = written.lstrip("-").replace("-", "_")
        if not argument.startswith("--") or flag not in flags:
            raise InputError(_unknown_flag(argument, flag, list(flags), name))
        if isinstance(flags[flag].default, bool):
            if separator:
                raise InputError(f"{argument}: write --{flag}")
        elif not separator and (index + 1 == len(arguments) or _is_flag(arguments[index + 1])):
            raise InputError(f"--{flag} needs a value: --{flag}={flag.upper()}")


def _is_flag(argument: str) -> bool:
    return argument == "--" or (argument.startswith("-") and argument.lstrip("-")[:1].isalpha())


def _unknown_flag(argument: str, flag: str, flags: list[str], name: str) -> str:
    close = difflib.get_close_matches(flag, flags, n=1)
    meant = f" (did you mean --{close[0]}?)" if close else ""
    known = ", ".join(f"--{flag}" for flag in flags)
    return f"unknown flag {argument}{meant}; flags of {name}: {known}; settings are written key=value"


def _parse(function: Callable[..., Any], arguments: list[str], name: str) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return the positional arguments and the flags of a command line, as Fire reads them.

    Fire gets a function that only keeps them, so that nothing runs before the whole line is understood. Arguments are
    text unless the parameter's annotation says otherwise: Fire would take `run#1` for `run`, and `1_0` for 10.

    Raises:
        InputError: too few or too many arguments, or a value of the wrong type.
    """
    import fire
    from fire import decorators

    found: list[tuple[Sequence[Any], dict[str, Any]]] = []

    @functools.wraps(function)
    def keep(*operands: Any, **flags: Any) -> None:
        found.append((operands, flags))

    signature = inspect.signature(function)
    flags = flags_of(function)
    keep.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=p.KEYWORD_ONLY) if p in flags else p for p in signature.parameters.values()]
    )
    decorators.SetParseFn(str)(keep)
    decorators.SetParseFns(**{flag.name: functools.partial(_value, flag) for flag in flags})(keep)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            fire.Fire(keep, command=arguments, name=name, serialize=lambda _: None)
    except fire.core.FireExit:
        _, is_missing, operand = said.getvalue().partition("\n")[0].partition("required argument: ")
        _, _, surplus = said.getvalue().partition("\n")[0].partition("arg: ")
        reason = f"{operand.upper()} is missing" if is_missing else f"one argument too many: {surplus!r}"
        raise InputError(f"{reason}; {usage_line(function, name)}") from None
    return found[0]


def _value(parameter: inspect.Parameter, text: str) -> Any:
    """Return the value of a flag: text where its parameter is text, otherwise what Fire reads."""
    from fire.parser import DefaultParseValue

    kinds = set(get_args(parameter.annotation) or [parameter.annotation]) - {type(None)}
    if kinds == {str}:
        return text
    value = DefaultParseValue(text)
    if kinds == {int} and isinstance(value, float) and value.is_integer():
        return int(value)
    if kinds <= {int, float} and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InputError(f"--{parameter.name}={text}: not a number")
    return value


def _with_switches(function: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Write switches as `--switch=True`: Fire would take the setting that follows a switch for its value."""
    parameters = inspect.signature(function).parameters.values()
    switches = {f"--{p.name}" for p in parameters if isinstance(p.default, bool)}
    return [f"{word}=True" if word.replace("-", "_").replace("__", "--", 1) in switches else word for word in arguments]


def main() -> None:
    """Run the console script `amscale COMMAND …`."""
    from importlib import import_module

    make_readable()
    command, *rest = sys.argv[1:] or ["help"]
    if command == "help" and rest[:1]:
        command, *rest = rest[0], "--help"
    if command in _HELP | {"help"}:
        _tell(_overview())
    elif command == "--version":
        _tell(_VERSION)
    elif command in COMMANDS:
        run(getattr(import_module(f"amscale.{command}"), command), rest, f"amscale {command}")
    else:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        print(f"amscale: unknown command {command!r}{meant}; commands: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def _overview() -> str:
    from importlib import import_module

    lines = ["usage: amscale COMMAND [CONFIG] [key=value ...] [--flag]", "", "commands:"]
    for command in COMMANDS:
        lines.append(f"  {command:11}{(import_module(f'amscale.{command}').__doc__ or '').partition(chr(10))[0]}")
    lines += [
        "",
        "example:",
        "  amscale sweep quick.yaml         the sweep that comes with the package, about 4 minutes without a GPU",
        "",
        "`amscale COMMAND --help` describes one of them, docs/configuration.md every setting.",
    ]
    return "\n".join(lines)
