"""The console that commands print to."""

from rich.console import Console

_PLAIN_WIDTH = 132


def make_console() -> Console:
    """The terminal at its own width; a pipe or a file wide enough that no table is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)
