"""The families by name.

The settings of a model: those of its family, told apart by `family`.

Building a model from its shape, and the names of the places inside it that measurements hook.

The names are module names for `model.get_submodule`, on the model as `build` returns it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from amscale.models.families import gpt2, hub, openelm, vanilla
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.hub import HubSettings
from amscale.models.families.openelm import OpenELMSettings
from amscale.models.families.vanilla import VanillaSettings
from amscale.models.family import Family
from amscale.models.shape import Shape

FAMILIES: dict[str, Family] = {
    family.name: family for family in (vanilla.FAMILY, gpt2.FAMILY, openelm.FAMILY, hub.FAMILY)
}


def family_names() -> list[str]:
    """Names that `model.family` may take."""
    return list(FAMILIES)


ModelSettings = Annotated[VanillaSettings | GPT2Settings | OpenELMSettings | HubSettings, Field(discriminator="family")]


if TYPE_CHECKING:
    from torch import nn


def build(shape: Shape) -> "nn.Module":
    """A freshly initialised model in float32 on the CPU; the same after the same `torch.manual_seed`.

    Its forward takes tokens_BT (int64, T <= shape.context, padding on the right if any) and returns logits_BTV in
    float32, whatever the precision of the parameters.
    """
    model: nn.Module = import_module(FAMILIES[shape.family].network).build(shape)
    return model


def residual_names(model: Any) -> list[str]:
    """Modules whose (first) output is the residual stream x_BTD after layer 1, 2, …, in order."""
    names: list[str] = model.residual_names()
    return names


def attention_names(model: Any) -> list[str]:
    """The attention modules, in order of layers; their first input is x_BTD, normed where the family norms first."""
    names: list[str] = model.attention_names()
    return names


def final_norm_name(model: Any) -> str | None:
    """The norm between the last layer and the output head; None where there is none (post-LN)."""
    name: str | None = model.final_norm_name()
    return name
