"""The network of the gpt2 family: parameters, names and initialisation of the transformers library's model."""

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

from amscale.errors import InputError
from amscale.huggingface import weights_file
from amscale.models.networks.activations import fuse_activations
from amscale.models.shape import Dimensions

_KEPT = (
    "activation_function",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
)
"""Fields of published weights' configuration that change what the network computes."""


class Attention(nn.Module):
    """Causal multi-head self-attention with the projections of the library's module: x_BTD -> x_BTD."""

    def __init__(self, theirs: GPT2Attention) -> None:
        super().__init__()
        self.heads = theirs.num_heads
        self.scale = theirs.scaling
        self.dropout = theirs.attn_dropout.p
        self.c_attn = theirs.c_attn
        self.c_proj = theirs.c_proj
        self.resid_dropout = theirs.resid_dropout

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = (
            part_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part_BTD in self.c_attn(x_BTD).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True, scale=self.scale
        )
        output: Tensor = self.resid_dropout(self.c_proj(y_BHTK.transpose(1, 2).flatten(2)))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual sum after: x_BTD -> x_BTD."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.ln_1 = theirs.ln_1
        self.attn = Attention(theirs.attn)
        self.ln_2 = theirs.ln_2
        self.mlp = theirs.mlp

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD))
        output: Tensor = x_BTD + self.mlp(self.ln_2(x_BTD))
        return output


class GPT2Network(nn.Module):
    """tokens_BT -> logits_BTV with the parameters of `GPT2LMHeadModel`, under its names in `.model`.

    The library's forward pass handles caches, masks and cross-attention; at the sizes of scaling laws that costs more
    than some of the products. This one is the same arithmetic without them (tests/models/test_gpt2.py).
    """

    def __init__(self, theirs: GPT2LMHeadModel) -> None:
        super().__init__()
        self.context = theirs.config.n_positions
        decoder = theirs.transformer
        parts = {"wte": decoder.wte, "wpe": decoder.wpe, "drop": decoder.drop}
        layers = nn.ModuleList(Layer(block) for block in decoder.h)
        transformer = nn.ModuleDict({**parts, "h": layers, "ln_f": decoder.ln_f})
        self.model = nn.ModuleDict({"transformer": transformer, "lm_head": theirs.lm_head})
        fuse_activations(self)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits (B, T, V) of the next token for token numbers (B, T).

        Raises:
            ValueError: T is longer than the model's context.
        """
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context of {self.context}")
        parts: Any = self.model["transformer"]
        positions_T = torch.arange(length, device=tokens_BT.device)
        x_BTD = parts["drop"](parts["wte"](tokens_BT) + parts["wpe"](positions_T))
        for layer in parts["h"]:
            x_BTD = layer(x_BTD)
        logits_BTV: Tensor = self.model["lm_head"](parts["ln_f"](x_BTD))
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
