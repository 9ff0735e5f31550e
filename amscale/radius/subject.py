"""The model that is measured: that of a finished trial, or one that transformers loads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amscale import config, models
from amscale.config import Experiment
from amscale.data import TokenStore, prepare
from amscale.errors import InputError
from amscale.huggingface import find_source, first_line
from amscale.models import Shape
from amscale.planning.plan import tokens_folder
from amscale.radius.configuration import PretrainedModel
from amscale.trials.records import TrialResult
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore


@dataclass(frozen=True)
class Subject:
    """A model, and the names of the modules whose outputs are measured."""

    name: str
    """The model's name, for a reader."""
    model: nn.Module
    """Holds the named modules; called through `forward`."""
    forward: Callable[[Tensor], Any]
    """Takes tokens_BT; what it returns is not used."""
    layers: list[str]
    """Modules whose first output is the residual stream after each layer, in order."""
    final_norm: str | None
    """The norm after the last layer; None in a model without one."""
    vocabulary: int
    """Token ids lie below it."""
    context: int | None
    """Tokens of the longest sequence that the model takes; None without a limit."""
    logits: int
    """Width of the logits that `forward` computes; 0 where it stops before the output head."""
    reinitialised: Callable[[], "Subject"]
    """Makes the same shape with random weights, by the model's initialisation and PyTorch's random state."""


@dataclass(frozen=True)
class TrainedTrial:
    """A finished trial whose model is measured."""

    folder: TrialStore
    cell: Experiment
    result: TrialResult
    store: TokenStore

    @property
    def shape(self) -> Shape:
        """Return the shape that was trained."""
        recorded = self.result.shape
        if recorded.vocabulary is None or recorded.context is None:
            raise InputError(f"{self.folder.result}: shape.vocabulary or shape.context is missing; run the trial again")
        return models.solve(self.cell.model, recorded.vocabulary, recorded.context)


def find_trial(path: str) -> TrainedTrial:
    """Find the finished trial in a folder, or a sweep's largest: of most parameters N and, among these, most data D.

    Raises:
        InputError: no finished trial there, or one whose corpus cannot be found.
    """
    place = Path(path).expanduser()
    if (place / "spec.yaml").is_file():
        result = TrialStore(place).read_result()
        if result is None:
            raise InputError(f"model.path={path!r}: the trial is not finished; it has no result.json")
        finished = [(TrialStore(place), result)]
    else:
        found = SweepStore(place).all_trials()
        results = [(trial, trial.read_result()) for trial in found]
        finished = [(t, r) for t, r in results if r and r.state == "finished" and t.weights.is_file()]
        if not finished:
            raise InputError(
                f"model.path={path!r}: {len(found)} trials there, none finished; give the folder of a finished trial "
                "or of a sweep that `python -m amscale.sweep` has run"
            )
    folder, result = max(finished, key=lambda pair: (pair[1].parameters.total, pair[1].data.unique_tokens))
    spec = folder.read_spec()
    cell = config.parse(spec.settings)
    tokens = Path(spec.store).parent
    # The store that the trial was trained on is opened; where it has been moved or removed, it is built again.
    store = prepare(cell.data, tokens if tokens.is_dir() else tokens_folder(folder.path.parents[2]))
    if store.vocabulary_size != result.shape.vocabulary:
        raise InputError(
            f"{folder.path}: its corpus now has a vocabulary of {store.vocabulary_size}, in training it had "
            f"{result.shape.vocabulary}; bring back the corpus that the trial was trained on"
        )
    return TrainedTrial(folder, cell, result, store)


def trial_subject(trial: TrainedTrial) -> Subject:
    """Load the network of a finished trial with its trained weights, on the CPU.

    Raises:
        InputError: the weights are missing or do not fit the shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shape = trial.shape
    model = models.build(shape)
    try:
        model.load_state_dict(load_file(trial.folder.weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{trial.folder.weights}: not the weights of the trial beside it ({reason})") from None
    return _network_subject(trial.folder.path.name, model, shape)


def _network_subject(name: str, model: nn.Module, shape: Shape) -> Subject:
    return Subject(
        name=name,
        model=model,
        forward=model,
        layers=models.residual_names(model),
        final_norm=models.final_norm_name(model),
        vocabulary=shape.vocabulary,
        context=shape.context,
        logits=shape.vocabulary,
        reinitialised=lambda: _network_subject(f"{name}, random weights", models.build(shape), shape),
    )


def pretrained_subject(settings: PretrainedModel) -> Subject:
    """Load a causal language model from the hub, a folder or a GGUF file, in float32 on the CPU.

    Quantised weights of a GGUF file become the float32 numbers that they stand for.

    Raises:
        InputError: no model there that transformers loads, or a model without recognisable layers.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = find_source(settings.path, "model.path")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **source.arguments,
            dtype=torch.float32,
            use_safetensors=True,  # weights in another format are pickles, which run code
            trust_remote_code=False,
        )
    except Exception as error:  # OSError, ValueError, KeyError, ImportError and more, depending on what is missing
        reason = source.missing or first_line(error)
        raise InputError(
            f"model.path={settings.path!r}: no causal language model there ({reason}); give a name on the Hugging Face "
            "hub, a folder that save_pretrained has written, or a GGUF file"
        ) from None
    return transformers_subject(settings.path, model)


def transformers_subject(name: str, model: Any) -> Subject:
    """Wrap a model of the transformers library, without its output head.

    Raises:
        InputError: the model has no recognisable layers.
    """
    from transformers import AutoModelForCausalLM

    base, whole = model.base_model, model.config
    settings = whole.get_text_config()
    layers = _layers(name, base, getattr(settings, "num_hidden_layers", None))

    def forward(tokens_BT: Tensor) -> Any:
        return base(input_ids=tokens_BT, use_cache=False)

    def reinitialised() -> Subject:
        fresh = AutoModelForCausalLM.from_config(whole, dtype=torch.float32)
        return transformers_subject(f"{name}, random weights", fresh)

    return Subject(
        name=name,
        model=base,
        forward=forward,
        layers=layers,
        final_norm=_final_norm(base, layers[0].rpartition(".")[0]),
        vocabulary=int(settings.vocab_size),
        context=getattr(settings, "max_position_embeddings", None),
        logits=0,
        reinitialised=reinitialised,
    )


def _layers(name: str, base: nn.Module, count: int | None) -> list[str]:
    lists = [n for n, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        parts = ", ".join(f"{n} ({type(m).__name__})" for n, m in base.named_children()) or "none"
        raise InputError(
            f"model.path={name!r}: no list of {count} layers is recognisable in {type(base).__name__}; "
            f"its parts are {parts}"
        )
    outermost = min(lists, key=lambda n: n.count("."))
    return [f"{outermost}.{index}" for index in range(count or 0)]


def _final_norm(base: nn.Module, layers: str) -> str | None:
    """Return the norm beside the list of layers, if there is one; a norm of the embedding does not count."""
    parent = layers.rpartition(".")[0]
    beside = base.get_submodule(parent).named_children() if parent else base.named_children()
    norms = [n for n, m in beside if "norm" in type(m).__name__.lower() and "embed" not in n]
    return f"{parent}.{norms[-1]}".lstrip(".") if norms else None
