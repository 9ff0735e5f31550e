"""What a radius experiment would compute and hold, before anything is spent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from amscale.hopfield.volume import r_star
from amscale.models import Shape, flops_per_token, solve
from amscale.models.gpt2 import GPT2Settings
from amscale.models.hub_settings import HubSettings
from amscale.radius.settings import RadiusSettings
from amscale.settings import format_size

_GPT2 = {"gpt2": "small", "gpt2-medium": "medium", "gpt2-large": "large", "gpt2-xl": "xl"}
"""Names on the hub of the published sizes, which need no network to be planned."""
_GPT2_TOKENS, _GPT2_POSITIONS = 50257, 1024
_CONTROLS = 3


def is_radius(tree: dict[str, Any]) -> bool:
    """Whether a configuration, as it was read, is one of the radius experiment and not of a sweep."""
    model = tree.get("model")
    return isinstance(model, dict) and "source" in model


def print_radius_plan(settings: RadiusSettings, console: Console) -> None:
    """The model, the sample, FLOPs and memory.

    Forward passes are those of the trained and of the random weights; each of k vectors is compared with all others, at
    each place for the trained vectors and three controls: 2·k²·width FLOPs a set.

    Raises:
        InputError: a model that is not there, or whose shape cannot be had.
    """
    shape = _shape(settings)
    chunks = settings.sample.chunks
    context = settings.data.context if settings.data is not None else None
    tokens = min(settings.sample.tokens or context or shape.context, shape.context)
    layers = {layer % shape.layers for layer in settings.sample.layers}
    places = len(layers) + (shape.layers - 1 in layers)
    per_token = flops_per_token(replace(shape, context=tokens)) / 3  # of training, a third is the forward pass
    forward = 2 * chunks * tokens * per_token
    compared = (1 + _CONTROLS) * places * 2 * chunks**2 * shape.width
    held = 4 * (shape.parameters.total + (places + 1) * chunks * shape.width)
    corpus = settings.data.corpus if settings.data is not None else "its own corpus"
    for line in (
        f"plan: radius of {settings.model.path} on {corpus}, one process on a CPU or on one GPU",
        f"model: {shape.layers} x {shape.width}, {format_size(shape.parameters.total)} parameters, "
        f"r* = {r_star(shape.width):.3g}",
        f"sample: {format_size(chunks)} chunks of at most {tokens} tokens, vectors at {places} places, {_CONTROLS} "
        "controls of each",
        f"FLOPs: {forward:.2g} in forward passes, {compared:.2g} in distances",
        f"memory: {held / 1e9:.2g} GB of weights and vectors in float32, and the activations of a forward pass",
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
    from amscale.models.hub_files import load_configuration

    found = load_configuration(path, "model.path")
    context = getattr(found, "max_position_embeddings", None) or _GPT2_POSITIONS
    return solve(HubSettings(architecture=path), found.vocab_size, context)
