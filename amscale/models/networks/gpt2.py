"""The network of the gpt2 family: the transformers library's model, with its own initialisation."""

from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from amscale.errors import InputError
from amscale.huggingface import weights_file
from amscale.models.shape import Dimensions

_KEPT = (
    "activation_function",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
)
"""Fields of published weights' configuration that change what the network computes."""


class GPT2Network(nn.Module):
    """tokens_BT -> logits_BTV around `GPT2LMHeadModel`, which is `.model`."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:
        length, context = tokens_BT.shape[1], self.model.config.n_positions
        if length > context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context of {context}")
        logits_BTV: Tensor = self.model(input_ids=tokens_BT, use_cache=False).logits
        return logits_BTV.float()


def configuration(shape: Dimensions, published: Any) -> GPT2Config:
    """Return the shape as transformers' configuration, with the special tokens of the published vocabulary unset."""
    own = {} if published is None else {name: getattr(published, name) for name in _KEPT}
    return GPT2Config(
        **own,
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.feed_forward,
        resid_pdrop=shape.options.dropout,
        embd_pdrop=shape.options.dropout,
        attn_pdrop=shape.options.dropout,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",  # type: ignore[call-arg]
    )


def build(shape: Dimensions, published: Any) -> GPT2Network:
    """Return the model, freshly initialised or with its published weights; of their positions the first `context`.

    Args:
        published: the configuration that comes with the published weights; None: from scratch.

    Raises:
        InputError: the published weights cannot be had or are not those of the configuration.
    """
    model = GPT2LMHeadModel(configuration(shape, published))
    if shape.options.pretrained is not None:
        _load(model, shape.options.pretrained)
    return GPT2Network(model)


def _load(model: GPT2LMHeadModel, name: str) -> None:
    """Copy published weights in. The library's own loader would partition the parameters at once under ZeRO-3; here a
    model is partitioned by the engine that it is given to."""
    state = {}
    for key, tensor in load_file(weights_file(name)).items():
        key = key.removeprefix("transformer.")
        if key != "lm_head.weight" and not key.endswith((".attn.bias", ".attn.masked_bias")):  # causal masks
            state[key] = tensor.float()
    if "wpe.weight" in state:
        state["wpe.weight"] = state["wpe.weight"][: model.config.n_positions]
    try:
        model.transformer.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(f"model.pretrained = {name}: not the weights of its config.json: {first}") from None
    model.tie_weights()
