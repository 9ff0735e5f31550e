"""Formulas in HTML."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

_POWER = re.compile(r"\^(-?(?:\d+(?:\.\d+)?|[A-Za-zα-ω](?:_[A-Z]\b)?)|\([^()]*\))")
_SUBSCRIPT = re.compile(r"(?<!\w)([A-Za-zα-ω])_(opt|global|c|[A-Z0-9])(?!\w)")


def formula(text: str) -> "Markup":
    """`text`, escaped, with powers and subscripts set as such: D^k, D^1.35, N^-α, N_opt, α_D, x^(α_N/α_D)."""
    from markupsafe import Markup, escape

    marked = re.sub(_POWER, r"<sup>\1</sup>", str(escape(text)))
    return Markup(re.sub(_SUBSCRIPT, r"\1<sub>\2</sub>", marked))
