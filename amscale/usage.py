"""The help of a command, from what its function and its module say of themselves.

The function's docstring gives the purpose and the arguments, its signature the flags and their defaults, and the
module's docstring, after its first line, examples and the settings that matter.
"""

import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

_EXIT = "exit status: 0 all done, 1 some trials failed, 2 bad input, 75 stopped by SIGTERM, 130 interrupted"
_WIDEST = 100
_MOST_FLAGS = 4
_OPERAND = {"arguments": "[CONFIG] [key=value ...]", "overrides": "[key=value ...]"}
"""How the usage line writes positional arguments of any number."""


def flags_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that are given as --name: those with a default, but the first and those of any number."""
    parameters = list(inspect.signature(function).parameters.values())
    first = parameters[:1] if parameters and parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else []
    return [p for p in parameters if p not in first and (p.default is not p.empty or p.kind is p.KEYWORD_ONLY)]


def operands_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that are given by their place."""
    flags = flags_of(function)
    return [p for p in inspect.signature(function).parameters.values() if p not in flags]


def usage_line(function: Callable[..., Any], name: str) -> str:
    """Return `usage: NAME OPERANDS FLAGS`; many flags are not listed one by one."""
    words = [f"usage: {name}", *map(_operand, operands_of(function))]
    flags = flags_of(function)
    if len(flags) > _MOST_FLAGS:
        return " ".join([*words, "[--flag=VALUE ...]"])
    for flag in flags:
        words.append(f"[--{flag.name}]" if isinstance(flag.default, bool) else f"[--{flag.name}={flag.name.upper()}]")
    return " ".join(words)


def help_text(function: Callable[..., Any], name: str) -> str:
    """Return the help of a command.

    Args:
        name: the command as the user typed it, such as `amscale sweep` or `python -m amscale.sweep`.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    described = inspect.getdoc(function) or ""
    purpose = described.partition("\nArgs:")[0].partition("\nReturns:")[0].strip()
    module = inspect.cleandoc(sys.modules[function.__module__].__doc__ or "").partition("\n")[2].strip("\n")
    module = module.replace(f"python -m amscale.{function.__name__}", name)
    meanings = dict(_arguments(described))
    usage = textwrap.wrap(usage_line(function, name), width, subsequent_indent="    ", break_on_hyphens=False)
    parts = ["\n".join(usage), *(textwrap.fill(paragraph, width) for paragraph in purpose.split("\n\n")), module]
    for title, parameters in (("arguments", operands_of(function)), ("flags", flags_of(function))):
        rows = [_row(p, meanings.get(p.name, ""), width, title == "flags") for p in parameters]
        parts.append("\n".join([f"{title}:", *rows]))
    return "\n\n".join(part for part in [*parts, textwrap.fill(_EXIT, width)] if part)


def _operand(parameter: inspect.Parameter) -> str:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return _OPERAND.get(parameter.name, f"[{parameter.name} ...]")
    required = parameter.default is inspect.Parameter.empty
    return parameter.name.upper() if required else f"[{parameter.name.upper()}]"


def _row(parameter: inspect.Parameter, meaning: str, width: int, flag: bool) -> str:
    label = f"--{parameter.name}" if flag else _operand(parameter)
    if parameter.default not in (None, False, inspect.Parameter.empty):
        meaning += f" (default: {parameter.default})"
    lines = textwrap.wrap(meaning, max(width - 24, 20), break_on_hyphens=False)
    if len(label) > 19:
        return "\n".join([f"  {label}", *(" " * 22 + line for line in lines)])
    return "\n".join(f"{f'  {label}' if index == 0 else '':22}{line}" for index, line in enumerate(lines))


def _arguments(described: str) -> Iterator[tuple[str, str]]:
    """Yield name and meaning of each entry below `Args:` of a docstring."""
    name = ""
    words: list[str] = []
    section = described.partition("\nArgs:\n")[2].partition("\n\n")[0]
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            if name:
                yield name, " ".join(words)
            name, _, rest = line.strip().partition(": ")
            words = [rest]
        else:
            words.append(line.strip())
    if name:
        yield name, " ".join(words)
