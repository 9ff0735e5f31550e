"""Parameters and activation memory of a family's network, measured on torch's meta device, where it takes no memory.

The default methods of `Family` use this.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from amscale.errors import InputError
from amscale.models.shape import Dimensions, ParameterCounts

if TYPE_CHECKING:
    from amscale.models.family import Family


@contextmanager
def _on_meta(family: "Family", methods: str) -> Iterator[None]:
    """Work on the meta device, and leave torch's random state as it was.

    Args:
        methods: of the family, which make this needless.

    Raises:
        InputError: the network needs the values of its tensors.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            yield
    except (NotImplementedError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"model.family = {family.name}: its network cannot be measured on torch's meta device, where tensors hold "
            f"nothing ({first}); write the methods {methods} of {type(family).__name__}"
        ) from None


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _classified(family: "Family", model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter of a network once, with its component.

    Outside the layers: embeddings, the output head, and the rest. In a layer: norms are rest, what is in the attention
    module is attention, and everything else feed-forward.
    """
    layers, attention = family.residual_names(model), family.attention_names(model)
    head = model.get_submodule(family.output_head_name(model))
    seen: set[int] = set()
    # Embeddings come first, so that the matrix of a tied output head counts as the embedding.
    modules = sorted(model.named_modules(), key=lambda item: not isinstance(item[1], nn.Embedding))
    for name, module in modules:
        if _within(name, layers):
            component = "attention" if _within(name, attention) else "feed_forward"
        elif isinstance(module, nn.Embedding):
            component = "embedding"
        else:
            component = "output_head" if any(module is part for part in head.modules()) else "norms_and_rest"
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield "norms_and_rest" if _is_norm(module) else component, parameter


def _within(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@lru_cache(maxsize=1024)
def _measured(family: "Family", dimensions: Dimensions) -> tuple[ParameterCounts, int]:
    """Return the counts of a network, and the elements of its layers' matrices."""
    with _on_meta(family, "counts and matmul_weights"):
        model = family.build(dimensions)
    sizes = dict.fromkeys(("embedding", "output_head", "attention", "feed_forward", "norms_and_rest"), 0)
    matrices = 0
    for component, parameter in _classified(family, model):
        sizes[component] += parameter.numel()
        if component in ("attention", "feed_forward") and parameter.dim() >= 2:
            matrices += parameter.numel()
    head = model.get_submodule(family.output_head_name(model))
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return ParameterCounts(**sizes, tied=any(id(p) in embeddings for p in head.parameters())), matrices


def count_parameters(family: "Family", dimensions: Dimensions) -> ParameterCounts:
    """Return the exact counts of the network that a family builds."""
    return _measured(family, _plain(dimensions))[0]


def count_layer_matrices(family: "Family", dimensions: Dimensions) -> int:
    """Return the elements of all parameters of two or more dimensions in the layers, norms left out."""
    return _measured(family, _plain(dimensions))[1]


def _plain(dimensions: Dimensions) -> Dimensions:
    """Return the dimensions without what a shape adds to them."""
    return Dimensions(**{name: getattr(dimensions, name) for name in Dimensions.__dataclass_fields__})


@dataclass(frozen=True)
class SavedBytes:
    """What the forward pass of a network keeps for its backward pass."""

    per_token: float
    """Bytes for each token, without attention scores and logits."""
    cpu_scores: float
    """Float32 values that attention on a CPU keeps for each head, query and key, averaged over the layers."""


class _FusedAttention(torch.autograd.Function):
    """Attention that computes nothing and keeps what a fused kernel keeps: q, k, v, its output, one sum a query."""

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        output = torch.empty_like(q[..., :1]).expand(*q.shape[:-1], v.shape[-1]).contiguous()
        context.save_for_backward(q, k, v, output, torch.empty(q.shape[:-1], dtype=torch.float32))
        return output


class _Dropout(torch.autograd.Function):
    """Dropout that keeps its mask, of so many bytes an element, and nothing else."""

    @staticmethod
    def forward(context: Any, x: Tensor, mask: int) -> Tensor:  # type: ignore[override]
        context.save_for_backward(torch.empty(x.numel() * mask, dtype=torch.uint8))
        return torch.empty_like(x)


class _Kernels(TorchFunctionMode):
    """Replace attention and dropout by functions that keep what a device's kernels keep."""

    def __init__(self, mask: int) -> None:
        super().__init__()
        self.mask = mask
        self.scores: list[int] = []

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        if function is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p")
            given = dict(zip(names, arguments, strict=False)) | keywords
            bias = given.get("attn_mask")
            learned = bias is not None and bias.requires_grad
            self.scores.append(3 if given.get("dropout_p") else 1 if learned else 0)
            output: Tensor = _FusedAttention.apply(given["query"], given["key"], given["value"])
            return output
        if function is F.dropout:
            given = (
                {"p": 0.5, "training": True} | dict(zip(("input", "p", "training"), arguments, strict=False)) | keywords
            )
            if not (given["training"] and given["p"]):
                return given["input"]
            dropped: Tensor = _Dropout.apply(given["input"], self.mask)
            return dropped
        return function(*arguments, **keywords)


@lru_cache(maxsize=1024)
def _saved_bytes(family: "Family", dimensions: Dimensions, element: int, mask: int) -> SavedBytes:
    dtype = torch.float32 if element == 4 else torch.bfloat16
    sizes: dict[int, int] = {}
    held: list[Any] = []
    with _on_meta(family, "activations_per_token and cpu_scores"):
        model = family.build(dimensions).to(dtype).train()
        tokens_BT = torch.zeros(1, dimensions.context, dtype=torch.int64)
        given = {t.untyped_storage()._cdata for t in [tokens_BT, *model.parameters(), *model.buffers()]}

        def pack(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage._cdata not in given:
                sizes[storage._cdata] = storage.nbytes()
                held.append(storage)  # so that no address is used twice
            return x

        kernels = _Kernels(mask)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), kernels:
            model(tokens_BT)
    scores = sum(kernels.scores) / len(kernels.scores) if kernels.scores else 0.0
    return SavedBytes(sum(sizes.values()) / dimensions.context, scores)


def saved_bytes(family: "Family", dimensions: Dimensions, element: int, mask: int) -> SavedBytes:
    """Return what a network keeps of each token for its backward pass, run once in training mode on one sequence.

    Attention scores are left out where the network calls `scaled_dot_product_attention`, and counted in `per_token`
    where it computes them itself.
    """
    return _saved_bytes(family, _plain(dimensions), element, mask)


def moved_by_later_tokens(model: nn.Module, tokens_BT: Tensor, vocabulary: int) -> float:
    """Return the largest change of the logits of the first half when the second half changes, relative to the logits.

    A network that sees later tokens moves them by its own size; a causal one by rounding.

    Args:
        model: in evaluation mode.
        tokens_BT: tokens of which at least two are in a sequence.
        vocabulary: number of tokens there are.
    """
    half = tokens_BT.shape[1] // 2
    other_BT = tokens_BT.clone()
    other_BT[:, half:] = (other_BT[:, half:] + 1) % vocabulary
    with torch.no_grad():
        first_BTV, second_BTV = model(tokens_BT)[:, :half], model(other_BT)[:, :half]
    return float((first_BTV - second_BTV).abs().max() / first_BTV.std())
