"""Model families, the shape for a wanted number of parameters, and what a shape costs. Importing this is light."""

from amscale.models.costs import FLOPS_FORMULA, FLOPS_FORMULAS, activation_bytes, flops_per_token
from amscale.models.registry import attention_names, build, family_names, final_norm_name, residual_names
from amscale.models.shape import CONVENTIONS, ParameterCounts, Shape
from amscale.models.sizing import solve

__all__ = [
    "CONVENTIONS",
    "FLOPS_FORMULA",
    "FLOPS_FORMULAS",
    "ParameterCounts",
    "Shape",
    "activation_bytes",
    "attention_names",
    "build",
    "family_names",
    "final_norm_name",
    "flops_per_token",
    "residual_names",
    "solve",
]
