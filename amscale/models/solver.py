"""From settings to a shape: the given dimensions, a published model, or the best shape for a wanted size."""

from functools import lru_cache
from typing import Any, cast

from amscale.errors import InputError
from amscale.models.family import Family, FamilySettings
from amscale.models.registry import FAMILIES
from amscale.models.search import TOLERANCE, choose_heads, search
from amscale.models.shape import Shape
from amscale.settings import format_size


def _given(family: Family, settings: FamilySettings, options: Any) -> tuple[int, int, int] | None:
    """Layers, width and heads where nothing is left to solve for."""
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
    standing = family.standing(options) if (size, settings.width, settings.heads) == (None, None, None) else None
    if standing is not None:
        layers, width, heads = standing
        return settings.layers or layers, width, heads
    if size is None:
        raise InputError("model.size is not given; give a number such as 100k, or both model.layers and model.width")
    return None


@lru_cache(maxsize=4096)
def solve(settings: FamilySettings, vocabulary: int, context: int) -> Shape:
    """The shape for some settings, a vocabulary of so many tokens and sequences of at most `context` tokens.

    Raises:
        InputError: no shape has the wanted size within TOLERANCE, or the given dimensions do not fit together.
    """
    family = FAMILIES[settings.family]
    options = family.options(settings)
    if settings.width is not None and settings.heads is not None and settings.width % settings.heads:
        raise InputError(
            f"model.heads = {settings.heads} does not divide model.width = {settings.width}; "
            f"give model.heads = {choose_heads(settings.width)}, or a width that is a multiple of the heads"
        )
    given = _given(family, settings, options)
    if given is None:
        candidate = search(family, settings, options, vocabulary, context)
        layers, width, heads = candidate.layers, candidate.width, candidate.heads
    else:
        layers, width, heads = given
    if family.heads is not None:
        heads = family.heads(layers, width, options)
    feed_forward = int(family.feed_forward(layers, width, options))
    shape = Shape(
        family=family.name,
        layers=layers,
        width=width,
        heads=heads,
        feed_forward=feed_forward,
        vocabulary=vocabulary,
        context=context,
        options=options,
        parameters=family.counts(layers, width, heads, feed_forward, vocabulary, context, options),
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
