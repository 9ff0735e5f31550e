"""A model that the user's own training script makes: N is only a number here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from amscale.errors import InputError
from amscale.models.family import Family, FamilySettings
from amscale.models.shape import Dimensions, ParameterCounts, Shape
from amscale.settings import Size

if TYPE_CHECKING:
    from torch import nn


class ScriptModelSettings(FamilySettings):
    """A model of your own that `train.script` makes. amscale knows of it the size asked for, and what the script
    reports."""

    family: Literal["script"] = "script"
    """A model that your training script makes."""
    size: Size = Field(ge=1)
    """N: parameters, which the script is told. What it reports is recorded in its place."""


@dataclass(frozen=True)
class ScriptModelOptions:
    """What a trial is asked for."""

    size: int
    """N."""


class ScriptModel(Family):
    """A model of which only its size is known. Costs are those of a network of N parameters of which each multiplies:
    6 N FLOPs a token, and no activations."""

    settings = ScriptModelSettings
    derives_heads = True

    def options(self, settings: ScriptModelSettings) -> ScriptModelOptions:
        """Return the size."""
        return ScriptModelOptions(settings.size)

    def fixed_dimensions(self, options: ScriptModelOptions) -> tuple[int, int, int] | None:
        """Return one layer of width 2: the script chooses dimensions by itself."""
        return 1, 2, 1

    def heads(self, layers: int, width: int, options: ScriptModelOptions) -> int:
        """Return one head."""
        return 1

    def counts(self, dimensions: Dimensions) -> ParameterCounts:
        """Return N, the same under every convention."""
        return ParameterCounts(0, 0, 0, dimensions.options.size, 0)

    def matmul_weights(self, shape: Shape) -> int:
        """Return N."""
        return int(shape.options.size)

    def query_width(self, shape: Shape) -> int:
        """Return 0."""
        return 0

    def activations_per_token(self, shape: Shape, element: int, mask: int) -> float:
        """Return 0."""
        return 0.0

    def cpu_scores(self, shape: Shape) -> float:
        """Return 0."""
        return 0.0

    def build(self, shape: Dimensions) -> "nn.Module":
        """Refuse.

        Raises:
            InputError: always; the script makes the network.
        """
        raise InputError("model.family=script names no network of amscale: give train.script, or another family")
