"""Print any text, whatever the encoding of standard output: a character that it lacks becomes a readable substitute.

β becomes `beta`, − `-` and é `e`; what has no such name, or no place in any encoding, becomes its escape. Python would
end the command at the first such character; encodings come from the locale, PYTHONIOENCODING and batch systems.
"""

import codecs
import os
import select
import sys
import unicodedata
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

_HANDLER = "amscale.readable"
_SUBSTITUTES = {
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys("·•", "*"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’′", "'"),
    **{"‖": "||", "∝": "~", "√": "sqrt", "≤": "<=", "≥": ">=", "≈": "~", "×": "x", "±": "+-", "∞": "inf"},
    **{"½": "1/2", "→": "->", "←": "<-", "∫": "int", "∇": "grad", "⁻": "^-", "ᵀ": "^T", "ⁿ": "^n", "\u0302": "_hat"},
}
_GREEK = ("GREEK SMALL LETTER ", "GREEK CAPITAL LETTER ")


def make_readable() -> None:
    """Let standard output and standard error print any text from now on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def discard_output() -> None:
    """Send what is still to be written to standard output nowhere: nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def end_rank(status: int) -> NoReturn:
    """Write what is buffered and end this process, which has met others in a process group, without a shutdown.

    In the interpreter's shutdown around gloo's threads a rank now and then aborts ("terminate called without an active
    exception"), or waits for another rank, also after its process group is gone.
    """
    with suppress(OSError):  # on a disk that may be full, into a pipe that nobody may read
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def is_unread(descriptor: int) -> bool:
    """Return whether what is written to a pipe is read by nobody any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def readable(text: str, encoding: str | None) -> str:
    """Return a text with substitutes for the characters that an encoding, UTF-8 if None, lacks."""
    return text.encode(encoding or "utf-8", _HANDLER).decode(encoding or "utf-8")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Replace the characters that an encoding lacks, as the codecs module asks of an error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_substitute_of, error.object[error.start : error.end])), error.end


def _substitute_of(character: str) -> str:
    if character in _SUBSTITUTES:
        return _SUBSTITUTES[character]
    name = unicodedata.name(character, "")
    for prefix in _GREEK:
        if name.startswith(prefix):
            letter = name.removeprefix(prefix).split()[0].lower()
            return letter if prefix == _GREEK[0] else letter.capitalize()
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if plain and name.startswith(("SUPERSCRIPT ", "SUBSCRIPT ")):
        return ("^" if name.startswith("SUPERSCRIPT") else "_") + plain
    return plain or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(_HANDLER, _substitute)
