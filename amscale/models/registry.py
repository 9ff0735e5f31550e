"""The families by name, those of installed packages included: build a shape of any of them, and what it costs."""

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
from typing import Literal

FAMILIES: Registry[type[Family]] = Registry(
    "amscale.families",
    {
        "vanilla": "amscale.models.families.vanilla:Vanilla",
        "gpt2": "amscale.models.families.gpt2:GPT2",
        "openelm": "amscale.models.families.openelm:OpenELM",
        "hub": "amscale.models.families.hub:HubFamily",
        "custom": "amscale.models.families.custom:Custom",
        "script": "amscale.models.families.script:ScriptModel",
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


FLOPS_FORMULAS = {
    "matmul": "6·(matmul weights, output head included) + 6·layers·width·(context + 1) (causal attention scores)",
    "6ND": "6·N, with N = attention + (active) feed-forward parameters",
}
"""What each formula counts. `matmul` is exact for matrix products over sequences of `context` tokens, where a query at
position t meets t keys (or those of its sliding window): QKᵀ and the weighted sum of values are 2·2·width·(mean keys) a
layer and token, forward; width is that of a layer's queries. Experts count as far as a token passes through them."""

FLOPS_FORMULA = "matmul"
"""The formula that results record."""


def flops_per_token(shape: Shape, formula: str = FLOPS_FORMULA) -> float:
    """Return the training FLOPs (forward and backward) per token.

    Raises:
        ValueError: no such formula.
    """
    if formula == "6ND":
        return 6.0 * shape.parameters.under("active")
    if formula == "matmul":
        family = find_family(shape.family)
        return 6.0 * (family.matmul_weights(shape) + 2 * family.query_width(shape) * family.mean_keys(shape))
    raise ValueError(f"{formula!r} is not a FLOPs formula; allowed are {', '.join(FLOPS_FORMULAS)}")


def activation_bytes(
    shape: Shape, micro_batch: int, bytes_per_element: int, device: Literal["cuda", "cpu"] = "cuda"
) -> float:
    """Return the bytes kept for the backward pass without recomputation, for sequences of the full context.

    Counts what every layer keeps, and the end of the network: logits in the model's precision, in float32 where that
    differs, and the float32 log-softmax of the loss. Parameters, gradients and optimiser states are left out.

    Args:
        shape: the model.
        micro_batch: sequences in one forward pass.
        bytes_per_element: 4 for float32, 2 for bfloat16.
        device: on a GPU attention never stores its scores and a dropout mask takes a byte an element. On a CPU a mask
            is as wide as what it masks, and where dropout or a learned bias keeps attention from its fused kernel,
            queries, keys, values and the attention weights of each head are stored in float32.
    """
    tokens = micro_batch * shape.context
    mask = 1 if device == "cuda" else bytes_per_element
    family = find_family(shape.family)
    layers = family.activations_per_token(shape, bytes_per_element, mask)
    scores = family.cpu_scores(shape) if device == "cpu" else 0
    if scores:
        widened = 3 * family.query_width(shape) * (4 - bytes_per_element)
        layers += widened + scores * 4 * family.query_heads(shape) * shape.context
    logits = shape.vocabulary * (4 + 4 + (bytes_per_element if bytes_per_element != 4 else 0))
    return float(tokens * (layers + logits))
