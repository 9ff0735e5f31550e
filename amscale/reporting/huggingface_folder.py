"""A finished trial as a folder that transformers loads: weights, config, tokenizer, card."""

import shutil
from pathlib import Path
from typing import Any

from amscale import config, models
from amscale.errors import InputError
from amscale.trials.storage_errors import output_folder, storage_errors
from amscale.trials.trial_store import TrialStore

_MOST_DIFFERENCE = 1e-3
"""Logits may differ by rounding: kernels are others."""
_CHECKED_TOKENS = 64
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md")


def write_huggingface(store: TrialStore, folder: Path, card: str) -> float:
    """Write a trial's model as `AutoModelForCausalLM` loads it, load it, and compare its logits with the trial's.

    Args:
        store: of a finished trial of the gpt2 or hub family.
        folder: made if missing.
        card: Markdown, for README.md.

    Returns:
        The largest difference of a logit on random tokens.

    Raises:
        InputError: a family that transformers has not, weights that are missing, a folder that cannot be written, or
            a model that transformers computes otherwise.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    result, cell = store.read_result(), config.parse(store.read_spec().settings)
    assert result is not None
    if result.shape.vocabulary is None or result.shape.context is None:
        raise InputError(f"{store.result}: shape.vocabulary or shape.context is missing; run the trial again")
    shape = models.solve(cell.model, result.shape.vocabulary, result.shape.context)
    theirs = _model(shape)
    setting, advice = f"huggingface={str(folder)!r}", "give another folder by --huggingface"
    with output_folder(folder, setting, _FILES, [], advice):
        network = models.build(shape)
        try:
            state = load_file(store.weights)
            network.load_state_dict(state)
            theirs.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{store.weights}: not the weights of the trial beside it ({reason})") from None
        theirs.tie_weights()
        with storage_errors(folder):
            theirs.save_pretrained(folder)
            (folder / "README.md").write_text(card, encoding="utf-8")
            tokenizer = Path(store.read_spec().store) / "tokenizer.json"
            if tokenizer.is_file():
                shutil.copyfile(tokenizer, folder / "tokenizer.json")
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    length = min(_CHECKED_TOKENS, shape.context)
    tokens_BT = torch.randint(shape.vocabulary, (2, length), generator=generator)
    with torch.no_grad():
        difference = float((loaded(tokens_BT).logits - network.eval()(tokens_BT)).abs().max())
    if not difference <= _MOST_DIFFERENCE:
        raise InputError(
            f"{folder}: transformers computes other logits than the trial (by {difference:.2g}); do not use it"
        )
    return difference


def _model(shape: models.Shape) -> Any:
    """Return the library's model of a shape, with random weights.

    Raises:
        InputError: transformers has no such family.
    """
    if shape.family == "gpt2":
        from transformers import GPT2LMHeadModel

        from amscale.models.families.gpt2 import published_configuration
        from amscale.models.networks.gpt2 import configuration

        name = shape.options.pretrained
        return GPT2LMHeadModel(configuration(shape, None if name is None else published_configuration(name)))
    if shape.family == "hub" and shape.options.remote_code is None:
        from amscale.models.hub_configuration import configuration as hub_configuration
        from amscale.models.networks.hub import model_class

        found = hub_configuration(shape)
        return model_class(found, None)(found)
    code = " with code of its own" if shape.family == "hub" else ""
    raise InputError(
        f"--huggingface: transformers has no {shape.family}{code}; of gpt2 and hub it has the architectures"
    )
