"""From settings to a shape: the given dimensions, a published model, or the best shape for a wanted size.

Among the shapes that the rules below allow, and whose N is within TOLERANCE of what is wanted, the one of least
`_cost` is taken: layers near ½·√width and a head dimension near 2·√width, at most 64. This gives 4 x 64 with heads
of 16, 8 x 256 with heads of 32, 16 x 1024 and 32 x 4096 with heads of 64, so that width / layers grows with size as
in published families. The cost depends on the shape alone, which makes the choice monotone: as N grows the window
slides over a fixed list, and the least of a sliding window never moves backwards.
"""

import math
from bisect import bisect_left, bisect_right
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

from amscale.errors import InputError
from amscale.models.family import Family, FamilySettings
from amscale.models.registry import find_family
from amscale.models.shape import Shape
from amscale.settings import format_size

TOLERANCE = 0.03
"""Largest relative distance between wanted and reached N."""
LARGEST_WIDTH = 16384
LARGEST_DEPTH = 256
_WIDTH_STEPS = ((8, 128, 2), (128, 256, 4), (256, 512, 16), (512, 1024, 32), (1024, 2048, 64), (2048, 16385, 128))
"""(from, to, step): fine where models are tiny, multiples that hardware likes where they are not."""


class Candidate(NamedTuple):
    """A shape that the search may take, and its N."""

    size: int
    cost: float
    layers: int
    width: int
    heads: int


def target_layers(width: int) -> float:
    """Return the number of layers that suits a width: ½·√width."""
    return 0.5 * math.sqrt(width)


def target_head_dimension(width: int) -> float:
    """Return the head dimension that suits a width: 2·√width, at most 64."""
    return min(64.0, 2 * math.sqrt(width))


@cache
def choose_heads(width: int) -> int:
    """Return the heads whose dimension is nearest the target and even; from width 128 on, where one divides the width,
    a multiple of 8."""
    step = 8 if width >= 128 and width % 8 == 0 else 2 if width % 2 == 0 else 1
    dimensions = [dimension for dimension in range(step, width + 1, step) if width % dimension == 0]
    target = target_head_dimension(width)
    return width // min(dimensions, key=lambda dimension: (round(abs(math.log(dimension / target)), 9), -dimension))


def _cost(layers: int, width: int, heads: int) -> float:
    """Return the distance from the rules: of depth, half of that of head dimension (none for 0 heads), and a little for
    a width not in sixteens."""
    depth = abs(math.log(layers / target_layers(width)))
    head = abs(math.log(width / heads / target_head_dimension(width))) if heads else 0.0
    return depth + 0.5 * head + (0.1 if width % 16 else 0.0)


@lru_cache(maxsize=256)
def _dimensions(
    layers: int | None, width: int | None, heads: int | None, derives_heads: bool, multiple: int
) -> tuple[tuple[float, int, int, int], ...]:
    """Return (cost, layers, width, heads) of every shape with the given dimensions; free ones stay near the rules.

    A family that derives its heads is judged by depth and width alone."""
    if width is not None:
        widths = [width]
    elif heads is not None:
        widths = list(range(8 * heads, LARGEST_WIDTH + 1, 8 * heads))
    else:
        widths = [w for start, stop, step in _WIDTH_STEPS for w in range(start, stop, step)]
    if width is None:
        widths = [w for w in widths if w % multiple == 0]
    found = []
    for w in widths:
        h = choose_heads(w) if heads is None else heads
        if (
            width is None
            and heads is None
            and not derives_heads
            and abs(math.log(w / h / target_head_dimension(w))) > math.log(1.6)
        ):
            continue
        if layers is not None:
            depths = range(layers, layers + 1)
        elif width is not None:
            depths = range(1, LARGEST_DEPTH + 1)
        else:
            depths = range(max(1, math.floor(target_layers(w) / 2)), math.ceil(2 * target_layers(w)) + 1)
        found += [(_cost(depth, w, 0 if derives_heads else h), depth, w, h) for depth in depths]
    return tuple(found)


@lru_cache(maxsize=512)
def _candidates(
    family: Family,
    options: Any,
    count: str,
    vocabulary: int,
    context: int,
    layers: int | None,
    width: int | None,
    heads: int | None,
) -> tuple[list[int], list[Candidate]]:
    """Return every candidate shape and its N, in order of N."""
    import numpy as np

    rows = _dimensions(layers, width, heads, family.derives_heads, family.width_multiple(options))
    columns: Any = [np.array(column) for column in zip(*rows, strict=True)]
    _, depth, widths, head = columns
    counts = family.counts_of_many(depth, widths, head, vocabulary, context, options)
    sizes = cast("np.ndarray[Any, Any]", counts.under(count)).tolist()
    ordered = sorted(Candidate(size, *row) for size, row in zip(sizes, rows, strict=True))
    return [candidate.size for candidate in ordered], ordered


def search(family: Family, settings: FamilySettings, options: Any, vocabulary: int, context: int) -> Candidate:
    """Return the best shape for the wanted size and the dimensions that are given beside it.

    Raises:
        InputError: no shape has the wanted size within TOLERANCE.
    """
    wanted = settings.size
    assert wanted is not None
    sizes, ordered = _candidates(
        family, options, settings.count, vocabulary, context, settings.layers, settings.width, settings.heads
    )
    low = bisect_left(sizes, wanted * (1 - TOLERANCE))
    high = bisect_right(sizes, wanted * (1 + TOLERANCE))
    if low < high:
        return min(ordered[low:high], key=lambda candidate: (candidate.cost, candidate.size))
    below = format_size(sizes[low - 1]) if low else "none"
    above = format_size(sizes[low]) if low < len(sizes) else "none"
    fixed = ", ".join(
        f"model.{name} = {getattr(settings, name)}"
        for name in ("layers", "width", "heads")
        if getattr(settings, name) is not None
    )
    raise InputError(
        f"model.size = {format_size(wanted)} ({settings.count}) is reached within {TOLERANCE:.0%} by no {family.name} "
        f"shape{' with ' + fixed if fixed else ''}; nearest below: {below}, above: {above}; "
        f"choose one of these, {'free a dimension' if fixed else 'or give model.layers and model.width'}"
    )


def _given(family: Family, settings: FamilySettings, options: Any) -> tuple[int, int, int] | None:
    """Return layers, width and heads where nothing is left to search for, else None."""
    if (fixed := family.fixed_dimensions(options)) is not None:
        return fixed
    size = cast("int | str | None", settings.size)
    if isinstance(size, str):
        if (settings.layers, settings.width, settings.heads) != (None, None, None):
            raise InputError(
                f"model.size = {size} fixes layers, width and heads; drop model.layers, model.width and model.heads"
            )
        return family.presets[size]
    if settings.layers is not None and settings.width is not None:
        if size is not None:
            raise InputError(
                f"model.size = {format_size(size)} is given beside model.layers = {settings.layers} and model.width = "
                f"{settings.width}, which fix it; drop model.size, or one of the two"
            )
        return settings.layers, settings.width, settings.heads or choose_heads(settings.width)
    if (size, settings.width, settings.heads) == (None, None, None):
        dimensions = family.default_dimensions(options)
        if dimensions is not None:
            layers, width, heads = dimensions
            return settings.layers or layers, width, heads
    if size is None:
        raise InputError("model.size is not given; give a number such as 100k, or both model.layers and model.width")
    return None


def solve(settings: FamilySettings, vocabulary: int, context: int) -> Shape:
    """Return the shape for settings, a vocabulary of so many tokens and sequences of at most `context` tokens.

    Shapes are kept, and solved anew where a user's code was edited.

    Raises:
        InputError: no shape has the wanted size within TOLERANCE, or the given dimensions do not fit together.
    """
    return _solve(settings, vocabulary, context, find_family(settings.family).source(settings))


@lru_cache(maxsize=4096)
def _solve(settings: FamilySettings, vocabulary: int, context: int, source: str) -> Shape:
    family = find_family(settings.family)
    options = family.options(settings)
    if settings.width is not None and settings.heads is not None and settings.width % settings.heads:
        raise InputError(
            f"model.heads = {settings.heads} does not divide model.width = {settings.width}; "
            f"give model.heads = {choose_heads(settings.width)}, or a width that is a multiple of the heads"
        )
    given = _given(family, settings, options)
    layers, width, heads = given or search(family, settings, options, vocabulary, context)[2:]
    dimensions = family.dimensions(layers, width, heads, vocabulary, context, options)
    shape = Shape(
        **vars(dimensions),
        parameters=family.counts(dimensions),
        wanted=settings.size if given is None else None,
        count=settings.count,
    )
    family.check(shape)
    if shape.wanted is not None and abs(shape.reached / shape.wanted - 1) > TOLERANCE:
        raise InputError(  # layers that differ among themselves can escape the search, which counts the second one
            f"model.size = {format_size(shape.wanted)} ({settings.count}) would give {family.name} "
            f"{format_size(shape.reached)}; give model.layers and model.width instead"
        )
    return shape
