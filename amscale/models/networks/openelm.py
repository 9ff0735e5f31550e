"""The network of the openelm family, and the released checkpoints' names for its parameters."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amscale.errors import InputError
from amscale.huggingface import weights_file
from amscale.models.networks.vanilla import Rotary
from amscale.models.shape import Dimensions

_DEVIATION = 0.02
_EPSILON = 1e-6

RELEASED_NAMES = {
    "embedding": "transformer.token_embeddings",
    "layers.{i}.attention_norm": "transformer.layers.{i}.attn_norm",
    "layers.{i}.attention.qkv": "transformer.layers.{i}.attn.qkv_proj",
    "layers.{i}.attention.query_norm": "transformer.layers.{i}.attn.q_norm",
    "layers.{i}.attention.key_norm": "transformer.layers.{i}.attn.k_norm",
    "layers.{i}.attention.output": "transformer.layers.{i}.attn.out_proj",
    "layers.{i}.feed_forward_norm": "transformer.layers.{i}.ffn_norm",
    "layers.{i}.feed_forward.up": "transformer.layers.{i}.ffn.proj_1",
    "layers.{i}.feed_forward.down": "transformer.layers.{i}.ffn.proj_2",
    "final_norm": "transformer.norm",
}
"""Modules here and in the released OpenELM checkpoints; each has one parameter, `weight`. qkv_proj holds the heads of
the queries, then of the keys, then of the values; proj_1 the gate, then the values."""


class Attention(nn.Module):
    """Causal grouped-query self-attention with normed queries and keys: x_BTD -> x_BTD."""

    def __init__(self, shape: Dimensions, heads: int) -> None:
        super().__init__()
        options = shape.options
        keys, dimension = heads // options.queries_per_key, options.head_dimension
        self.split = [heads, keys, keys]
        self.dropout = options.dropout
        self.qkv = nn.Linear(shape.width, sum(self.split) * dimension, bias=False)
        self.query_norm = nn.RMSNorm(dimension, eps=_EPSILON)
        self.key_norm = nn.RMSNorm(dimension, eps=_EPSILON)
        self.rotary = Rotary(shape.context, dimension)
        self.output = nn.Linear(heads * dimension, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        heads_BHTK = self.qkv(x_BTD).unflatten(-1, (sum(self.split), -1)).transpose(1, 2)
        q_BHTK, k_BGTK, v_BGTK = heads_BHTK.split(self.split, dim=1)
        q_BHTK, k_BGTK = self.rotary(self.query_norm(q_BHTK)), self.rotary(self.key_norm(k_BGTK))
        dropout = self.dropout if self.training else 0.0
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BGTK, v_BGTK, dropout_p=dropout, is_causal=True, enable_gqa=True
        )
        output: Tensor = self.output(y_BHTK.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): x_BTD -> x_BTD."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, value_BTF = self.up(x_BTD).chunk(2, dim=-1)
        output: Tensor = self.down(F.silu(gate_BTF) * value_BTF)
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual sum after."""

    def __init__(self, shape: Dimensions, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=_EPSILON)
        self.attention = Attention(shape, heads)
        self.feed_forward_norm = nn.RMSNorm(shape.width, eps=_EPSILON)
        self.feed_forward = FeedForward(shape.width, hidden)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        output: Tensor = x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))
        return output


class OpenELMNetwork(nn.Module):
    """tokens_BT -> logits_BTV."""

    def __init__(self, shape: Dimensions, heads: list[int], hidden: list[int]) -> None:
        super().__init__()
        self.context = shape.context
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.dropout = nn.Dropout(shape.options.dropout)
        self.layers = nn.ModuleList(Layer(shape, h, f) for h, f in zip(heads, hidden, strict=True))
        self.final_norm = nn.RMSNorm(shape.width, eps=_EPSILON)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=_DEVIATION)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context of {self.context}")
        x_BTD = self.dropout(self.embedding(tokens_BT))
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        logits_BTV: Tensor = self.head(self.final_norm(x_BTD))
        return logits_BTV.float()


def build(shape: Dimensions, heads: list[int], hidden: list[int]) -> OpenELMNetwork:
    """Return the model, freshly initialised or with released weights.

    Args:
        heads: query heads of each layer.
        hidden: feed-forward width of each layer.

    Raises:
        InputError: the weights cannot be had or do not fit the shape.
    """
    model = OpenELMNetwork(shape, heads, hidden)
    if shape.options.pretrained is not None:
        load_released(model, weights_file(shape.options.pretrained))
    return model


def load_released(model: OpenELMNetwork, path: str | Path) -> None:
    """Load a released OpenELM checkpoint, a safetensors file, into a model of its shape, in place.

    Raises:
        InputError: the file's parameters are not those of the model, by name or shape.
    """
    from safetensors.torch import load_file

    theirs = load_file(path)
    state = {}
    for ours, name in RELEASED_NAMES.items():
        for index in range(len(model.layers)) if "{i}" in ours else [0]:
            weight = theirs.pop(f"{name.format(i=index)}.weight", None)
            own = model.get_parameter(f"{ours.format(i=index)}.weight")
            if weight is None or weight.shape != own.shape:
                found = "is missing" if weight is None else f"is {tuple(weight.shape)}"
                raise InputError(
                    f"{path}: {name.format(i=index)}.weight {found}; the model has {tuple(own.shape)}: give the "
                    "checkpoint's own layers, width, multipliers, head dimension and vocabulary"
                )
            state[f"{ours.format(i=index)}.weight"] = weight
    if theirs:
        raise InputError(f"{path}: {next(iter(theirs))} has no place in the model; give the checkpoint's own layers")
    with torch.no_grad():
        for name, weight in state.items():
            model.get_parameter(name).copy_(weight)
