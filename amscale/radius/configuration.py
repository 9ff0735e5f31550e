"""Settings of the radius experiment, and what it will compute and hold, before anything is spent."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator

from amscale.config.checking import check, known_keys
from amscale.config.loading import assign, parse_override, read_configuration
from amscale.data import DataSettings
from amscale.settings import Settings, Size


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
    """Name on the Hugging Face hub, a local folder, or a GGUF file (needs the package gguf)."""


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
    tree, written = read_configuration(path)
    for override in overrides:
        key, value, as_written = parse_override(override)
        assign(tree, key, value)
        assign(written, key, as_written)
    return parse(tree, written)


def parse(tree: dict[str, Any], written: dict[str, Any] | None = None) -> RadiusSettings:
    """Check a tree of settings.

    Args:
        tree: plain data.
        written: the same with scalars as they are written, for settings that are text.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    model, data = tree.get("model"), tree.get("data")
    if isinstance(model, dict) and model.get("source") == "pretrained" and isinstance(data, dict):
        tree = {**tree, "data": {"tokenizer": model.get("path"), **data}}
    known = tuple(known_keys(RadiusSettings, tree))
    return check(TypeAdapter(RadiusSettings), tree, tree if written is None else written, known=known)


def is_radius(tree: dict[str, Any]) -> bool:
    """Return whether a tree of settings is of the radius experiment and not of a sweep."""
    model = tree.get("model")
    return isinstance(model, dict) and "source" in model
