"""A network of the user's own: any function that returns a causal language model."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from amscale.errors import InputError, one_line
from amscale.models import user_code
from amscale.models.family import Family, FamilySettings
from amscale.models.shape import Dimensions, Shape
from amscale.settings import Settings, counted

if TYPE_CHECKING:
    from amscale.models.networks.custom import CustomNetwork

_TRIED = 50_000_000
"""Largest number of parameters with which a network is tried before anything is trained."""


class ModuleNames(Settings):
    """Modules of the network that counts and probes look at. None: found."""

    layers: str | None = None
    """The ModuleList of layers; the (first) output of each is the residual stream. Found: the longest one."""
    attention: str | None = None
    """The attention module, named within a layer. Found: the first that is named for attention."""
    final_norm: str | None = None
    """The norm after the last layer; `none` where there is no such norm. Found: the last norm outside the layers."""
    head: str | None = None
    """The output head. Found: the last linear module outside the layers with as many outputs as the vocabulary."""

    def given(self) -> dict[str, str]:
        """Return the names that are given, by part."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class CustomSettings(FamilySettings):
    """A network of your own, trained from scratch."""

    family: Literal["custom"] = "custom"
    """A network that a function of yours builds."""
    builder: str
    """The function: `my_package.models:build`, or `models.py:build`. It is called with the shape (`layers`, `width`,
    `heads`, `feed_forward`, `vocabulary`, `context`) and the options, and returns a `torch.nn.Module` from tokens_BT to
    logits_BTV."""
    folder: str | None = None
    """Folder that the function is imported from, the same on every machine. None: where it is found."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the function beside the shape."""
    width_multiple: int = Field(1, ge=1)
    """Widths that are searched for are multiples of it."""
    modules: ModuleNames = ModuleNames()
    """Names of the modules that counts and probes look at."""

    @model_validator(mode="after")
    def _keep_folder(self) -> Self:
        if self.folder is None:
            object.__setattr__(self, "folder", user_code.locate(self.builder).folder)
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


@dataclass(frozen=True)
class CustomOptions:
    """What identifies the network beside its dimensions. The same code in another folder is the same."""

    builder: str
    """Module and function."""
    source: str
    """Hash of the code (`user_code.source_hash`)."""
    given: str
    """Arguments beside the shape, as JSON."""
    modules: str
    """Names of modules that are given, as JSON."""
    width_multiple: int


_folders: dict[str, str] = {}
"""Where each builder's module is on this machine, by module and function."""


class Custom(Family):
    """A user's network. Counts and costs are measured on the network itself, without memory."""

    settings = CustomSettings

    def options(self, settings: CustomSettings) -> CustomOptions:
        """Return the builder, a hash of its code and what the settings give.

        Raises:
            InputError: no such function on this machine.
        """
        builder = user_code.locate(settings.builder, settings.folder)
        _folders[builder.name] = builder.folder
        return CustomOptions(
            builder.name,
            user_code.source_hash(builder),
            json.dumps(settings.options, sort_keys=True),
            json.dumps(settings.modules.given(), sort_keys=True),
            settings.width_multiple,
        )

    def source(self, settings: CustomSettings) -> str:
        """Return a hash of the builder's code, as it is now.

        Raises:
            InputError: no such function on this machine.
        """
        return user_code.source_hash(user_code.locate(settings.builder, settings.folder))

    def width_multiple(self, options: CustomOptions) -> int:
        """Return the setting."""
        return options.width_multiple

    def check(self, shape: Shape) -> None:
        """Run the network once, with two layers at most, and look whether later tokens move earlier logits.

        Raises:
            InputError: the function or the network fails, returns something else than logits, or is not causal.
        """
        _try(self, shape.width, min(shape.layers, 2), shape.heads, shape.vocabulary, shape.context, shape.options)

    def build(self, shape: Dimensions) -> "CustomNetwork":
        """Return the network, as the function initialises it.

        Raises:
            InputError: the function fails or returns no module, or parts of the network are not found.
        """
        from torch import nn

        from amscale.models.networks.custom import CustomNetwork

        options = shape.options
        module, _, function = options.builder.partition(":")
        build = user_code.load(user_code.Builder(module, function, _folders[options.builder]))
        try:
            model = build(shape, **json.loads(options.given))
        except NotImplementedError:
            raise
        except Exception as error:  # whatever a user's function does
            raise InputError(
                one_line(
                    f"model.builder: {options.builder} fails for {shape.layers} x {shape.width}, "
                    f"{counted(shape.heads, 'head')}: {type(error).__name__}: {error}",
                    most=400,
                )
            ) from error
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model.builder: {options.builder} returns {type(model).__name__}; return a torch.nn.Module"
            )
        return CustomNetwork(model, shape.context, shape.vocabulary, json.loads(options.modules))

    def residual_names(self, model: Any) -> list[str]:
        """Return the layers that are named or found."""
        return list(model.residual_names)

    def attention_names(self, model: Any) -> list[str]:
        """Return the attention modules that are named or found; a layer without one is left out."""
        return list(model.attention_names)

    def final_norm_name(self, model: Any) -> str | None:
        """Return the norm after the layers; None where there is no such norm."""
        name: str | None = model.final_norm_name
        return name

    def output_head_name(self, model: Any) -> str:
        """Return the output head."""
        return str(model.output_head_name)


@lru_cache(maxsize=256)
def _try(
    family: Custom, width: int, layers: int, heads: int, vocabulary: int, context: int, options: CustomOptions
) -> None:
    import torch

    from amscale.models.measure import moved_by_later_tokens

    dimensions = family.dimensions(layers, width, heads, vocabulary, context, options)
    if context < 2 or family.counts(dimensions).total > _TRIED:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokens_BT = torch.randint(vocabulary, (2, min(context, 16)))
        try:
            moved = moved_by_later_tokens(family.build(dimensions).eval(), tokens_BT, vocabulary)
        except InputError:
            raise
        except Exception as error:  # whatever a user's network does
            text = f"model.builder: the network of {options.builder} fails: {type(error).__name__}: {error}"
            raise InputError(one_line(text, most=400)) from error
    if not moved < 1e-3:
        raise InputError(
            f"model.builder: the network of {options.builder} is not causal: a later token changes the logits of an "
            "earlier one, which then would be trained on what it is to predict; mask later tokens"
        )
