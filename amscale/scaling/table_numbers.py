"""The numbers in the cells of a table, and their units: decimal signs, suffixes, scales, nats."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from amscale.errors import InputError
from amscale.settings import parse_number

LOSS_UNITS = ("nats", "bits", "bits_per_byte", "perplexity")


def nats_per_token(unit: str, bytes_per_token: float | None) -> float:
    """Return the factor that turns a loss into nats per token; 1 for a perplexity, whose logarithm is the loss.

    Args:
        unit: nats or bits, both per token, bits_per_byte or perplexity.
        bytes_per_token: mean bytes of a token; needed for bits_per_byte, and only there.

    Raises:
        InputError: the unit is unknown, or bytes per token are missing or not wanted.
    """
    if unit not in LOSS_UNITS:
        raise InputError(f"loss_unit={unit!r} is not a unit of loss; choose one of {', '.join(LOSS_UNITS)}")
    if unit == "bits_per_byte":
        number = isinstance(bytes_per_token, int | float) and not isinstance(bytes_per_token, bool)
        if bytes_per_token is None or not number or not 0 < bytes_per_token < math.inf:
            raise InputError(f"loss_unit=bits_per_byte needs --bytes_per_token, above 0 (got {bytes_per_token!r})")
        return math.log(2) * bytes_per_token
    if bytes_per_token is not None:
        raise InputError(f"bytes_per_token={bytes_per_token!r} is for loss_unit=bits_per_byte, not for {unit}")
    return math.log(2) if unit == "bits" else 1.0


_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_SCALE = re.compile(
    r"(?:(?i:.*[(\[]\s*(?:in )?(k|m|b|g|t|thousand|million|billion)s?( (params|parameters|tokens))?\s*[)\]])"
    r"|.*_([kKMBGT])|(?i:.*[ _](thousand|million|billion)s?))"
)


_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_POWER = r"(10?(?:\.0*)?e\+?[0-9]{1,2}|10 ?(?:\^|\*\*) ?\{?\+?[0-9]{1,2}\}?|10[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}|1(?:[,_ ]?000)+)"
_TIMES = r"(?:×|\*|·|⋅|\\times|\\cdot)"
_UNIT = r"(?: (?:params|parameters|tokens|flops?))?"
_POWERS = re.compile(
    rf".*[(\[] ?\$?(?:in |of |/ ?|(?:x|times|{_TIMES}) ?)?{_POWER}s?\$?{_UNIT} ?[)\]]"
    rf"|.*(?:[ _]in[ _]|/ ?|[ _](?:x|times)[ _]?|[ _]?\$?{_TIMES}[ _]?){_POWER}\$?",
    re.IGNORECASE,
)
"""Names that end in a power of ten: `N (x1e6)`, `params (×10^6)`, `D (1,000,000)`, `N/1e6`, `tokens_in_1e9`."""


def power_of(name: str) -> float | None:
    """Return the power of ten by which the numbers of a column are to be multiplied, as its name says, or None.

    Raises:
        ValueError: it may be read in two ways.
    """
    match = _POWERS.fullmatch(name)
    if match is None:
        return None
    text = (match[1] or match[2]).lower().translate(_RAISED)
    base, e, exponent = text.partition("e")
    if e and base.startswith("10"):
        raise ValueError(f"{text} is 1e{int(exponent) + 1}, and often meant as 1e{int(exponent)}")
    if e:
        return 10.0 ** int(exponent)
    zeros = re.fullmatch(r"1(?:[,_ ]?000)+", match[1] or match[2])
    return 10.0 ** (text.count("0") if zeros else int(re.sub("[^0-9]", "", text[2:])))


def scale_of(name: str) -> float | None:
    """Return what the numbers of a column are to be multiplied by, as its name says: 1e6 for `params (M)`, or None.

    Raises:
        ValueError: as for `power_of`.
    """
    match = _SCALE.fullmatch(name)
    if match is None:
        return power_of(name)
    return _SCALES[next(group for group in (match[1], match[4], match[5]) if group).lower()]


LARGEST = 1e40
"""No count is as large: products of larger ones would overflow."""

_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_UNITLESS = re.compile(r"[^a-z]*(?:[0-9]e[+-]?[0-9]+)?", re.IGNORECASE)
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "infinity": math.inf, "-inf": -math.inf}


def to_number(cell: Any, decimal: str, sizes: bool, scale: float) -> float:
    """Return the number in a cell.

    Raises:
        ValueError: there is none; a truth value, a date or a list is no number.
    """
    if isinstance(cell, str):
        if decimal == "." and _PLAIN.fullmatch(cell):
            return scale * float(cell)
        if cell.lower() in _NOT_FINITE:
            return _NOT_FINITE[cell.lower()]
        unitless = _UNITLESS.fullmatch(cell) is not None
        if not sizes and not (unitless and is_number(cell, decimal, grouped=False)):
            raise ValueError(f"{cell!r} is not a plain number")
        return (scale if unitless else 1.0) * parse_number(cell, decimal)
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | np.integer | np.floating | Decimal):
        raise ValueError(f"{cell!r} is not a number")
    return scale * float(cell)


def is_number(text: str, decimal: str, grouped: bool) -> bool:
    """Return whether a text is a number with that decimal sign; the other one may group thousands if `grouped`."""
    try:
        parse_number(text, decimal)
    except ValueError:
        return False
    return grouped or {".": ",", ",": "."}[decimal] not in text


_ONE_VALUE = 1e-9
"""Values that differ by less than this share of themselves are one value: D = C/(6N) leaves such differences."""


def merged(values: Sequence[float | None] | None) -> list[float | None]:
    """Return the values with each run of neighbours that agree to nine digits replaced by its least."""
    least: dict[float, float] = {}
    before = first = -math.inf
    for value in sorted({value for value in values or [] if value is not None}):
        if value - before > _ONE_VALUE * value:
            first = value
        before = value
        least[value] = first
    return [None if value is None else least[value] for value in values or []]
