"""The network of the vanilla family.

Initialisation: embeddings normal with variance 1/d, scaled by √d on entry (Vaswani et al. 2017), so that their variance
is 1 whatever the vocabulary; attention and feed-forward matrices Xavier-uniform, with ReLU's gain √2 on the first
feed-forward matrix; biases 0. The output head is normal with deviation 1/(4·√d): logits then have deviation 1/4 and the
first loss is ln V + 1/32. (Xavier there would start a small vocabulary a fifth above ln V.)
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amscale.models.shape import Dimensions

_LONGEST_DISTANCE = 128


def sinusoids(context: int, width: int) -> Tensor:
    """Return the table of Vaswani et al. 2017, sin in even and cos in odd columns: [context, width], float32."""
    angle_TF = _angles(context, width)
    return torch.stack((angle_TF.sin(), angle_TF.cos()), dim=-1).flatten(1).float()


def _angles(context: int, width: int) -> Tensor:
    frequency_F = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.arange(context, dtype=torch.float64)[:, None] * frequency_F


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021) of queries and keys, dimension k paired with k + K/2."""

    cos_TF: Tensor
    sin_TF: Tensor

    def __init__(self, context: int, head_dimension: int) -> None:
        super().__init__()
        angle_TF = _angles(context, head_dimension)
        self.register_buffer("cos_TF", angle_TF.cos().float(), persistent=False)
        self.register_buffer("sin_TF", angle_TF.sin().float(), persistent=False)

    def forward(self, x_BHTK: Tensor) -> Tensor:
        first, second = x_BHTK.chunk(2, dim=-1)
        length = x_BHTK.shape[-2]
        cos_TF, sin_TF = self.cos_TF[:length], self.sin_TF[:length]
        return torch.cat((first * cos_TF - second * sin_TF, second * cos_TF + first * sin_TF), dim=-1).to(x_BHTK.dtype)


class RelativeBias(nn.Module):
    """A learned bias of the scores for each head and bucket of distance (Raffel et al. 2020), and the causal mask.

    Half of the buckets are single distances; the others widen geometrically up to a distance of 128."""

    bucket_T: Tensor

    def __init__(self, context: int, heads: int, buckets: int) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        exact = buckets // 2
        distance_T = torch.arange(context)
        scale = (distance_T.clamp(min=1) / exact).log() / math.log(_LONGEST_DISTANCE / exact)
        wide_T = (exact + (scale * (buckets - exact)).long()).clamp(max=buckets - 1)
        self.register_buffer("bucket_T", torch.where(distance_T < exact, distance_T, wide_T), persistent=False)

    def forward(self, length: int) -> Tensor:
        """Return biases [1, heads, length, length], minus infinity above the diagonal."""
        position_T = torch.arange(length, device=self.bucket_T.device)
        distance_TT = position_T[:, None] - position_T
        bias_TTH = self.table(self.bucket_T[distance_TT.clamp(min=0)])
        return bias_TTH.permute(2, 0, 1).masked_fill(distance_TT < 0, -math.inf)[None]


class Attention(nn.Module):
    """Causal multi-head self-attention: x_BTD -> x_BTD."""

    def __init__(self, shape: Dimensions) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = shape.options.dropout
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.output = nn.Linear(shape.width, shape.width)
        rotary = shape.options.positions == "rotary"
        self.rotary = Rotary(shape.context, shape.width // shape.heads) if rotary else None

    def forward(self, x_BTD: Tensor, bias_HTT: Tensor | None = None) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rotary is not None:
            q_BHTK, k_BHTK = self.rotary(q_BHTK), self.rotary(k_BHTK)
        dropout = self.dropout if self.training else 0.0
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=bias_HTT, dropout_p=dropout, is_causal=bias_HTT is None
        )
        output: Tensor = self.output(y_BHTK.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """Two matrices with a ReLU between: x_BTD -> x_BTD."""

    def __init__(self, shape: Dimensions) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.feed_forward)
        self.down = nn.Linear(shape.feed_forward, shape.width)
        self.dropout = nn.Dropout(shape.options.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        output: Tensor = self.down(self.dropout(F.relu(self.up(x_BTD))))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual sum and a norm after (post) or before (pre) it."""

    def __init__(self, shape: Dimensions) -> None:
        super().__init__()
        self.pre = shape.options.norm_position == "pre"
        self.attention = Attention(shape)
        self.attention_norm = _norm(shape)
        self.feed_forward = FeedForward(shape)
        self.feed_forward_norm = _norm(shape)
        self.dropout = nn.Dropout(shape.options.dropout)

    def forward(self, x_BTD: Tensor, bias_HTT: Tensor | None = None) -> Tensor:
        if self.pre:
            x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), bias_HTT))
            return x_BTD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTD)))
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, bias_HTT)))
        output: Tensor = self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))
        return output


class VanillaNetwork(nn.Module):
    """tokens_BT -> logits_BTV."""

    sinusoid_TD: Tensor

    def __init__(self, shape: Dimensions, relative_buckets: int) -> None:
        super().__init__()
        positions = shape.options.positions
        self.context = shape.context
        self.scale = math.sqrt(shape.width)
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width) if positions == "learned" else None
        relative = positions == "relative"
        self.relative_bias = RelativeBias(shape.context, shape.heads, relative_buckets) if relative else None
        self.sinusoidal = positions == "sinusoidal"
        if self.sinusoidal:
            self.register_buffer("sinusoid_TD", sinusoids(shape.context, shape.width), persistent=False)
        self.dropout = nn.Dropout(shape.options.dropout)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = _norm(shape) if shape.options.norm_position == "pre" else None
        self.head = nn.Linear(shape.width, shape.vocabulary)
        self._initialise(shape.width)

    def _initialise(self, width: int) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if name == "head":
                    nn.init.normal_(module.weight, std=0.25 / math.sqrt(width))
                elif name.endswith("qkv"):
                    for weight_DD in module.weight.chunk(3):
                        nn.init.xavier_uniform_(weight_DD)
                else:
                    nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2) if name.endswith("up") else 1.0)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1 / math.sqrt(width))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits (B, T, V) of the next token for token numbers (B, T).

        Raises:
            ValueError: T is longer than the model's context.
        """
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context of {self.context}")
        x_BTD = self.embedding(tokens_BT) * self.scale
        if self.sinusoidal:
            x_BTD = x_BTD + self.sinusoid_TD[:length].to(x_BTD.dtype)  # engines may leave buffers in float32
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(torch.arange(length, device=tokens_BT.device)) * self.scale
        bias_HTT = None if self.relative_bias is None else self.relative_bias(length)
        x_BTD = self.dropout(x_BTD)
        for layer in self.layers:
            x_BTD = layer(x_BTD, bias_HTT)
        if self.final_norm is not None:
            x_BTD = self.final_norm(x_BTD)
        logits_BTV: Tensor = self.head(x_BTD)
        return logits_BTV.float()


def _norm(shape: Dimensions) -> nn.Module:
    return nn.LayerNorm(shape.width) if shape.options.norm == "layernorm" else nn.RMSNorm(shape.width, eps=1e-5)
