"""Plan a radius experiment: what it will compute and hold, before anything is spent."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from amscale.hopfield.volume import r_star
from amscale.models import Shape, flops_per_token, solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.hub_settings import HubSettings
from amscale.radius.configuration import RadiusSettings
from amscale.settings import format_size

_GPT2 = {"gpt2": "small", "gpt2-medium": "medium", "gpt2-large": "large", "gpt2-xl": "xl"}
"""Names on the hub of the published sizes, which need no network to be planned."""
_GPT2_TOKENS, _GPT2_POSITIONS = 50257, 1024
_CONTROLS = 4


@dataclass(frozen=True)
class RadiusPlan:
    """What a radius experiment would compute and hold."""

    model: str
    corpus: str
    layers: int
    width: int
    parameters: int
    r_star: float
    chunks: int
    tokens: int
    """Tokens of a chunk, at most."""
    places: int
    """Places in the network of which vectors are taken."""
    forward_flops: float
    distance_flops: float
    memory: float
    """Bytes of weights and vectors in float32, without the activations of a forward pass."""


def plan_radius(settings: RadiusSettings) -> RadiusPlan:
    """Plan a radius experiment: the model, the sample, FLOPs and memory.

    Forward passes are those of the trained and of the random weights; each of k vectors is compared with all others, at
    each place for the trained vectors and four controls: 2·k²·width FLOPs a set.

    Raises:
        InputError: a model that is not there, or whose shape is unknown.
    """
    shape = _shape(settings)
    chunks = settings.sample.chunks
    context = settings.data.context if settings.data is not None else None
    tokens = min(settings.sample.tokens or context or shape.context, shape.context)
    layers = {layer % shape.layers for layer in settings.sample.layers}
    places = len(layers) + (shape.layers - 1 in layers)
    per_token = flops_per_token(replace(shape, context=tokens)) / 3  # of training, a third is the forward pass
    return RadiusPlan(
        model=settings.model.path,
        corpus=settings.data.corpus if settings.data is not None else "the corpus of its training",
        layers=shape.layers,
        width=shape.width,
        parameters=shape.parameters.total,
        r_star=r_star(shape.width),
        chunks=chunks,
        tokens=tokens,
        places=places,
        forward_flops=2 * chunks * tokens * per_token,
        distance_flops=(1 + _CONTROLS) * places * 2 * chunks**2 * shape.width,
        memory=4 * (shape.parameters.total + (places + 1) * chunks * shape.width),
    )


def print_radius_plan(plan: RadiusPlan, console: Console) -> None:
    """Print a plan, a line a subject."""
    for line in (
        f"plan: radius of {plan.model} on {plan.corpus}, one process on a CPU or on one GPU",
        f"model: {plan.layers} x {plan.width}, {format_size(plan.parameters)} parameters, r* = {plan.r_star:.3g}",
        f"sample: {format_size(plan.chunks)} chunks of at most {plan.tokens} tokens, vectors at {plan.places} places, "
        f"{_CONTROLS} controls of each",
        f"FLOPs: {plan.forward_flops:.2g} in forward passes, {plan.distance_flops:.2g} in distances",
        f"memory: {plan.memory / 1e9:.2g} GB of weights and vectors in float32, and the activations of a forward pass",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _shape(settings: RadiusSettings) -> Shape:
    path = settings.model.path
    if settings.model.source == "trial":
        from amscale.radius.subject import find_trial

        return find_trial(path).shape
    size = _GPT2.get(path.removeprefix("openai-community/"))
    if size is not None and not Path(path).exists():
        return solve(GPT2Settings(size=size), _GPT2_TOKENS, _GPT2_POSITIONS)  # type: ignore[arg-type]
    from amscale.huggingface import load_configuration

    found = load_configuration(path, "model.path")
    context = getattr(found, "max_position_embeddings", None) or _GPT2_POSITIONS
    return solve(HubSettings(architecture=path), found.vocab_size, context)
