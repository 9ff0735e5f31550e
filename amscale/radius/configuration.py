"""Settings of the radius experiment, and what it will compute and hold, before anything is spent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from rich.console import Console

from amscale.config.loading import assign, parse_override, read_yaml
from amscale.data import DataSettings
from amscale.errors import InputError
from amscale.hopfield.volume import r_star
from amscale.models import Shape, flops_per_token, solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.hub import HubSettings
from amscale.settings import Settings, Size, describe_error, format_size


class TrialModel(Settings):
    """A finished trial of a sweep."""

    source: Literal["trial"]
    """A finished trial."""
    path: str
    """Folder of the trial, or of a sweep: then its finished trial of most parameters and, among these, of most data."""


class PretrainedModel(Settings):
    """A causal language model that the transformers library loads."""

    source: Literal["pretrained"]
    """A pretrained model."""
    path: str
    """Name on the Hugging Face hub, or a local folder."""


class SampleSettings(Settings):
    """Which vectors are measured."""

    chunks: Size = Field(4096, ge=2)
    """Random chunks of text, k: one vector each."""
    tokens: int | None = Field(None, ge=1)
    """Tokens of a chunk, T. None: the corpus's `context`, else the model's. Where the corpus is packed by document, a
    chunk is a document of at most so many tokens."""
    layers: tuple[int, ...] = (-1,)
    """Layers whose output is measured, counted from 0, or from −1 backwards. The last one is measured after the final
    norm too, where there is one."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of chunks, of the random weights and of the other controls."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs and distances are computed. auto: cuda where there is one."""

    @field_validator("layers")
    @classmethod
    def _has_a_layer(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("name at least one layer, for example [-1]")
        return value


class RadiusSettings(Settings):
    """One radius experiment: a model, a corpus and a sample."""

    name: str = Field("radius", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the folder that is written."""
    model: Annotated[TrialModel | PretrainedModel, Field(discriminator="source")]
    """The model whose activations are measured."""
    data: DataSettings | None = None
    """The corpus. None: the one that the trial was trained on. Its tokenizer is the pretrained model's unless named."""
    sample: SampleSettings = SampleSettings()
    """The chunks and the layers."""
    storage: str = "results"
    """Folder for results."""

    @model_validator(mode="after")
    def _has_a_corpus(self) -> "RadiusSettings":
        if self.data is None and self.model.source == "pretrained":
            raise ValueError("data is missing: a pretrained model needs a corpus, for example data.corpus=text")
        return self


def load(path: str, overrides: Sequence[str] = ()) -> RadiusSettings:
    """Read a YAML file, apply `key=value` overrides, and check the whole.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    tree = read_yaml(path)
    for override in overrides:
        key, value = parse_override(override)
        assign(tree, key, value)
    return parse(tree)


def parse(tree: dict[str, Any]) -> RadiusSettings:
    """Check a tree of settings.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    model, data = tree.get("model"), tree.get("data")
    if isinstance(model, dict) and model.get("source") == "pretrained" and isinstance(data, dict):
        tree = {**tree, "data": {"tokenizer": model.get("path"), **data}}
    try:
        return RadiusSettings.model_validate(tree)
    except ValidationError as error:
        if not error.errors()[0]["loc"]:
            raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        raise InputError(describe_error(error, tree)) from None


_GPT2 = {"gpt2": "small", "gpt2-medium": "medium", "gpt2-large": "large", "gpt2-xl": "xl"}
"""Names on the hub of the published sizes, which need no network to be planned."""
_GPT2_TOKENS, _GPT2_POSITIONS = 50257, 1024
_CONTROLS = 3


def is_radius(tree: dict[str, Any]) -> bool:
    """Return whether a tree of settings is of the radius experiment and not of a sweep."""
    model = tree.get("model")
    return isinstance(model, dict) and "source" in model


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
    each place for the trained vectors and three controls: 2·k²·width FLOPs a set.

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
