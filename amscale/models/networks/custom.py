"""A user's network behind the interface of this package: its layers, attention, norm and head are found."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from amscale.errors import InputError

_ATTENTION = re.compile(r"attn|attention|mixer|mamba", re.IGNORECASE)
_NORM = re.compile(r"norm|^ln_f$", re.IGNORECASE)


class Names:
    """Names of the modules that counts and probes look for; those that are given, else found.

    Args:
        network: the user's.
        vocabulary: tokens that the output head scores.
        given: names by part: `layers`, `attention` (within a layer), `final_norm`, `head`; "none" for no norm.

    Raises:
        InputError: a name that is not there, or a part that is not found.
    """

    def __init__(self, network: nn.Module, vocabulary: int, given: dict[str, str]) -> None:
        self._network = network
        self._parts = dict(network.named_modules())
        for part, name in given.items():
            if part != "attention" and (part, name) != ("final_norm", "none") and name not in self._parts:
                raise InputError(
                    f"model.modules.{part}={name!r}: the network has no such module; it has {self._some()}"
                )
        layers = given.get("layers") or self._longest_list()
        self.layers = [f"{layers}.{index}" for index in range(len(self._list(layers)))]
        self.attention = [name for name in map(lambda layer: self._attention(layer, given), self.layers) if name]
        self.head = given.get("head") or self._output_head(vocabulary)
        norm = given.get("final_norm") or self._final_norm()
        self.final_norm = None if norm == "none" else norm

    def _some(self) -> str:
        return ", ".join(name for name in self._parts if name.count(".") < 2 and name) or "none"

    def _list(self, name: str) -> nn.ModuleList | nn.Sequential:
        module = self._parts[name]
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            raise InputError(
                f"model.modules.layers={name!r} is a {type(module).__name__}; name the ModuleList of layers"
            )
        return module

    def _longest_list(self) -> str:
        lists = {name: len(part) for name, part in self._parts.items() if isinstance(part, nn.ModuleList)}
        if not lists:
            raise InputError(
                "model.modules.layers is not given, and the network has no ModuleList; name the module that holds its "
                f"layers: it has {self._some()}"
            )
        return max(lists, key=lambda name: (lists[name], -name.count(".")))

    def _attention(self, layer: str, given: dict[str, str]) -> str | None:
        own = self._parts[layer]
        if "attention" in given:
            name = f"{layer}.{given['attention']}"
            return name if name in self._parts else None
        below = sorted(own.named_modules(), key=lambda item: item[0].count("."))
        for name, part in below:
            last = name.rpartition(".")[2]
            named = _ATTENTION.search(last) or _ATTENTION.search(type(part).__name__)
            if name and named and not _NORM.search(last) and any(True for _ in part.parameters()):
                return f"{layer}.{name}"
        return None

    def _output_head(self, vocabulary: int) -> str:
        heads = [name for name, part in self._parts.items() if getattr(part, "out_features", None) == vocabulary]
        outside = [name for name in heads if not any(name.startswith(f"{layer}.") for layer in self.layers)]
        if not outside:
            raise InputError(
                f"model.modules.head is not given, and no linear module has the vocabulary's {vocabulary} outputs; "
                f"name the output head: the network has {self._some()}"
            )
        return outside[-1]

    def _final_norm(self) -> str:
        norms = [
            name
            for name, part in self._parts.items()
            if "norm" in type(part).__name__.lower() and not any(name.startswith(f"{layer}.") for layer in self.layers)
        ]
        order = list(self._parts)
        after = [name for name in norms if order.index(name) > order.index(self.layers[0])]
        return after[-1] if after else "none"


class CustomNetwork(nn.Module):
    """tokens_BT -> float32 logits_BTV around a user's network, which is `.model`."""

    def __init__(self, model: nn.Module, context: int, vocabulary: int, given: dict[str, str]) -> None:
        super().__init__()
        names = Names(model, vocabulary, given)
        self.model = model
        self.context = context
        self.vocabulary = vocabulary
        self.residual_names = [f"model.{name}" for name in names.layers]
        self.attention_names = [f"model.{name}" for name in names.attention]
        self.final_norm_name = f"model.{names.final_norm}" if names.final_norm else None
        self.output_head_name = f"model.{names.head}"

    def forward(self, tokens_BT: Tensor) -> Tensor:
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context of {self.context}")
        logits_BTV: Any = self.model(tokens_BT)
        wanted = (*tokens_BT.shape, self.vocabulary)
        if not isinstance(logits_BTV, torch.Tensor) or logits_BTV.shape != wanted:
            got = tuple(logits_BTV.shape) if isinstance(logits_BTV, torch.Tensor) else type(logits_BTV).__name__
            raise InputError(
                f"model.builder: the network returns {got} for tokens {tuple(tokens_BT.shape)}; it must "
                f"return logits {wanted}"
            )
        return logits_BTV.float()
