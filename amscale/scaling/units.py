"""Where the numbers of a table cannot be, or hardly are, what they are taken for."""

import re

import numpy as np

from amscale.scaling.points import PointTable

_UNIFORM = 12.2
LEAST_COUNT = 2000.0
"""A largest N or D below this is none of a language model's, but a number of millions or billions."""

_BITS = re.compile(r"bpb|bpc|bits?\b|bits?[ _-]?per", re.IGNORECASE)
_PERPLEXITY = re.compile(r"ppl|perplex", re.IGNORECASE)
_LOGARITHM = re.compile(r"log|ln|(?<![a-z])nats?(?![a-z])", re.IGNORECASE)


def named_for_perplexity(name: str) -> bool:
    """Return whether a column's name says that it holds perplexities, and not their logarithms."""
    return _PERPLEXITY.search(name) is not None and _LOGARITHM.search(name) is None


_ACCURACY = re.compile(
    r"(?<![a-z])(acc|accuracy|accuracies|score|f1|auc|auroc|bleu|rouge|exact[ _-]?match|top[ _-]?[15]|pass[ _-]?rate)"
    r"(?![a-z])|pass@",
    re.IGNORECASE,
)
_LOSS = re.compile(r"loss|nll|entropy|err|ppl|perplex|(?<![a-z])(bits?|bp[bct]|nats?)(?![a-z])|1 ?[-−]", re.IGNORECASE)


def named_for_accuracy(name: str) -> bool:
    """Return whether a column's name says that it holds accuracies or scores, which rise as a model gets better."""
    return _ACCURACY.search(name) is not None and _LOSS.search(name) is None


_MOST_COMPARED = 500
_RISING = 0.75
"""Share of comparisons in which a loss that is none rises; of runs that over-fit, losses rise with N alone."""


def _rises(table: PointTable) -> float:
    """Return in what share of the pairs of runs, one larger in N or D and smaller in neither, the larger has more loss.

    0 where there are fewer than six pairs.
    """
    rows = np.linspace(0, len(table.points) - 1, min(len(table.points), _MOST_COMPARED)).astype(int)
    N, D, loss = table.N[rows], table.D[rows], table.loss[rows]
    larger = (N[:, None] >= N) & (D[:, None] >= D) & ((N[:, None] > N) | (D[:, None] > D))
    return float((loss[:, None] > loss)[larger].mean()) if larger.sum() >= 6 else 0.0


def in_doubt(table: PointTable, name: str, unit: str) -> str:
    """Return why the losses of a table may be no nats per token, or an empty text; a floor of 1 then means nothing."""
    if _named_for_bits(name, unit):
        return f"{name!r} is named for bits (--loss_unit)"
    if table.points and _middle(table) > _UNIFORM:
        return f"half of the losses are above {_middle(table):.3g}, too much for nats per token"
    return ""


def _named_for_bits(name: str, unit: str) -> bool:
    return unit == "nats" and _BITS.search(name) is not None


def _middle(table: PointTable) -> float:
    losses = sorted(point.loss for point in table.points)
    return losses[len(losses) // 2]


def units_warnings(table: PointTable, names: dict[str, str], unit: str) -> list[str]:
    """Return where the numbers of a table cannot be, or hardly are, what they are taken for.

    Args:
        names: names of its columns by their keys.
        unit: of the losses, as it was given.
    """
    if not table.points:
        return []
    found = []
    name, middle = names["loss"], _middle(table)
    if _named_for_bits(name, unit):
        found.append(f"{name!r} is named for bits, and is taken as nats per token: --loss_unit says which it is")
    elif middle > _UNIFORM:
        found.append(
            f"half of the losses are above {middle:.3g} nats per token, more than an even guess among 200,000 tokens "
            f"has ({_UNIFORM}): are they perplexities (--loss_unit perplexity), or sums?"
        )
    if unit != "perplexity" and float(table.loss.max()) <= 1 and (share := _rises(table)) > _RISING:
        found.append(
            f"{name!r} is between 0 and 1, and greater for the larger N or D in {share:.0%} of the pairs of runs: is "
            "it an accuracy? --loss_column names the column of the loss"
        )
    for key, symbol in (("n", "N"), ("d", "D")):
        column = getattr(table, symbol)
        if key in names and float(column.max()) < LEAST_COUNT:
            found.append(
                f"{symbol} is {column.min():.3g} to {column.max():.3g} in column {names[key]!r}: a count in millions "
                f"or billions? name the column with its unit, as in '{names[key]} (M)'"
            )
    if "flops" in names and "d" in names and all(point.flops for point in table.points):
        tokens = table.D if table.tokens is None else table.tokens
        ratio = sorted((table.flops / (table.N * tokens)).tolist())[len(table.points) // 2]
        if not 0.6 <= ratio <= 60:
            found.append(
                f"FLOPs are {ratio:.2g} times N times the tokens in the middle, where training takes about 6: the "
                "three columns are not in one unit"
            )
    return found
