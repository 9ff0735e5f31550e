"""Formulas in HTML."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup


def formula(text: str) -> "Markup":
    """`text`, escaped, with the powers and the subscripts of formulas set as such: D^k, N_opt, α_D."""
    from markupsafe import Markup, escape

    marked = re.sub(r"\^([A-Za-z0-9α-ω])", r"<sup>\1</sup>", str(escape(text)))
    return Markup(re.sub(r"(?<!\w)([A-Za-zα-ω])_(opt|global|[A-Z])(?!\w)", r"\1<sub>\2</sub>", marked))
