"""The network of the hub family: the transformers library's own, behind the interface of this package."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from amscale.errors import InputError
from amscale.models.networks.activations import fuse_activations
from amscale.models.shape import Dimensions

_ATTENTION = re.compile(r"attn|attention|mixer|mamba")
_NORM = re.compile(r"norm|^ln_f$|layer_?norm")


def model_class(config: PretrainedConfig, remote_code: str | None) -> Any:
    """Return the class of the causal language model of a configuration.

    The class itself is called, not the library's `from_config`: under ZeRO-3 that would partition the parameters at
    once, and this package's models are partitioned by the engine that they are given to.
    """
    if remote_code is None:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    return get_class_from_dynamic_module(config.auto_map["AutoModelForCausalLM"], remote_code)


def layers_of(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the name of the model's list of layers, and the list.

    Raises:
        InputError: no list has as many modules as the configuration has layers.
    """
    layers = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return name, module
    raise InputError(
        f"model.architecture: {model.config.model_type} has no plain list of its {layers} layers; choose another"
    )


class HubNetwork(nn.Module):
    """tokens_BT -> logits_BTV around a causal language model of transformers, which is `.model`."""

    def __init__(self, model: Any, context: int) -> None:
        super().__init__()
        self.model = model
        self.context = context
        # Where positions are counted from the tokens that are not padding, and no token is padding.
        self.own_positions = any(hasattr(part, "create_position_ids_from_input_ids") for part in model.modules())

    def forward(self, tokens_BT: Tensor) -> Tensor:
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context of {self.context}")
        positions = {}
        if self.own_positions:
            positions["position_ids"] = torch.arange(length, device=tokens_BT.device).expand_as(tokens_BT)
        logits_BTV: Tensor = self.model(input_ids=tokens_BT, use_cache=False, **positions).logits
        return logits_BTV.float()


def residual_names(model: HubNetwork) -> list[str]:
    """Return the names of the layers."""
    name, layers = layers_of(model.model)
    return [f"model.{name}.{index}" for index in range(len(layers))]


def attention_names(model: HubNetwork) -> list[str]:
    """Return the first child of each layer that has parameters and is named for attention or for what replaces it."""
    name, layers = layers_of(model.model)
    found = []
    for index, layer in enumerate(layers):
        children = [child for child, module in layer.named_children() if any(True for _ in module.parameters())]
        child = next((c for c in children if _ATTENTION.search(c) and not _NORM.search(c)), None)
        found += [f"model.{name}.{index}.{child}"] if child else []
    return found


def final_norm_name(model: HubNetwork) -> str | None:
    """Return the last norm among the modules after the list of layers; None where there is no such norm."""
    name, _ = layers_of(model.model)
    parent, _, own = name.rpartition(".")
    children = [child for child, _ in model.model.get_submodule(parent).named_children()]
    after = [child for child in children[children.index(own) + 1 :] if _NORM.search(child)]
    return f"model.{parent}.{after[-1]}" if after else None


def output_head_name(model: HubNetwork) -> str:
    """Return the name of the output head."""
    head = model.model.get_output_embeddings()
    return next(name for name, module in model.named_modules() if module is head)


def wrap(config: PretrainedConfig, remote_code: str | None, context: int) -> HubNetwork:
    """Return the model of a configuration, freshly initialised by the library's own rules."""
    model = model_class(config, remote_code)(config)
    fuse_activations(model)
    return HubNetwork(model, context)


def build(shape: Dimensions) -> HubNetwork:
    """Return the network of a shape."""
    from amscale.models.hub_configuration import configuration

    config = configuration(shape)
    return wrap(config, shape.options.remote_code, shape.context)
