"""Model families, the shape for a wanted number of parameters, and what a shape costs. Importing this is light."""

from amscale.models.family import Family, FamilySettings
from amscale.models.registry import (
    FAMILIES,
    FLOPS_FORMULA,
    FLOPS_FORMULAS,
    activation_bytes,
    attention_names,
    build,
    final_norm_name,
    find_family,
    flops_per_token,
    output_head_name,
    residual_names,
)
from amscale.models.shape import CONVENTIONS, Dimensions, ParameterCounts, Shape
from amscale.models.sizing import solve

__all__ = [
    "CONVENTIONS",
    "FAMILIES",
    "FLOPS_FORMULA",
    "FLOPS_FORMULAS",
    "Dimensions",
    "Family",
    "FamilySettings",
    "ParameterCounts",
    "Shape",
    "activation_bytes",
    "attention_names",
    "build",
    "final_norm_name",
    "find_family",
    "flops_per_token",
    "output_head_name",
    "residual_names",
    "solve",
]
