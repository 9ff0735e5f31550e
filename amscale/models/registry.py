"""The families by name, those of installed packages included, and how to build a shape of any of them."""

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import SerializeAsAny

from amscale.errors import InputError
from amscale.models.family import Family, FamilySettings
from amscale.models.shape import Shape
from amscale.registry import Registry
from amscale.settings import select_settings

if TYPE_CHECKING:
    from torch import nn

FAMILIES: Registry[type[Family]] = Registry(
    "amscale.families",
    {
        "vanilla": "amscale.models.families.vanilla:Vanilla",
        "gpt2": "amscale.models.families.gpt2:GPT2",
        "openelm": "amscale.models.families.openelm:OpenELM",
        "hub": "amscale.models.families.hub:Hub",
    },
)


@cache
def find_family(name: str) -> Family:
    """Return the family of that name, the same object each time.

    Raises:
        InputError: no such family, or what an entry point names is not one.
    """
    cls = FAMILIES.find(name, "model.family")
    if not (isinstance(cls, type) and issubclass(cls, Family)):
        raise InputError(
            f"entry point {name!r} of {FAMILIES.group} is {cls!r}; give a subclass of amscale.models.Family"
        )
    try:
        family = cls()
        tags = get_args(family.settings.model_fields["family"].annotation)
    except (TypeError, AttributeError) as error:  # abstract, or without settings
        raise InputError(f"entry point {name!r} of {FAMILIES.group}: {error}") from None
    if (tags, family.name) != ((name,), name):
        raise InputError(
            f"entry point {name!r} of {FAMILIES.group}: {family.settings.__name__}.family is {family.name!r}; declare "
            f'`family: Literal["{name}"] = "{name}"`'
        )
    return family


ModelSettings = Annotated[
    SerializeAsAny[FamilySettings], select_settings("family", FAMILIES, lambda name: find_family(name).settings)
]
"""The `model` section of a configuration: the settings of the family that its `family` names."""


def build(shape: Shape) -> "nn.Module":
    """Return a freshly initialised model in float32 on the CPU; the same after the same `torch.manual_seed`.

    Its forward takes tokens_BT (int64, T <= shape.context, padding on the right if any) and returns logits_BTV in
    float32, whatever the precision of the parameters.
    """
    family = find_family(shape.family)
    model = family.build(shape)
    model.amscale_family = family  # type: ignore[assignment]
    return model


def residual_names(model: Any) -> list[str]:
    """Return the modules whose (first) output is the residual stream x_BTD after layer 1, 2, …, in order.

    Args:
        model: as `build` returned it, without an engine's wrapper; names are for its `get_submodule`.
    """
    names: list[str] = model.amscale_family.residual_names(model)
    return names


def attention_names(model: Any) -> list[str]:
    """Return the attention modules in the order of layers; their first input is x_BTD, normed where the family norms
    first."""
    names: list[str] = model.amscale_family.attention_names(model)
    return names


def final_norm_name(model: Any) -> str | None:
    """Return the norm between the last layer and the output head; None where there is no such norm (post-LN)."""
    name: str | None = model.amscale_family.final_norm_name(model)
    return name


def output_head_name(model: Any) -> str:
    """Return the module that turns the residual stream, after the final norm, into logits."""
    name: str = model.amscale_family.output_head_name(model)
    return name
