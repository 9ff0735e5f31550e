"""A transformers configuration scaled to a shape. Imports transformers, so the hub family imports this when needed."""

import difflib
import json
from functools import lru_cache
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from amscale.errors import InputError
from amscale.huggingface import load_configuration
from amscale.models.hub_fields import derived, first_problem, token_ids
from amscale.models.hub_settings import DerivedOptions, HubOptions, HubSettings
from amscale.models.shape import Dimensions

_OWN = {
    "hidden_size": "model.width",
    "num_hidden_layers": "model.layers",
    "num_attention_heads": "model.heads",
    "vocab_size": "the corpus's tokenizer",
    "max_position_embeddings": "data.context",
}
"""Fields that the shape sets, and where a user sets them."""
WIDTHS = ("moe_intermediate_size", "intermediate_size", "shared_expert_intermediate_size", "ffn_dim", "n_inner")
"""Fields that grow in proportion to the width; the first that a configuration has is its feed-forward width."""
EXPERTS = ("num_experts_per_tok", "moe_top_k", "moe_topk", "top_k_experts")
"""Fields that can hold the experts that one token is sent to."""
_NOT_A_SHAPE = ("transformers_version", "architectures", "_name_or_path", "dtype", "torch_dtype", "model_type")


def read_options(settings: HubSettings) -> HubOptions:
    """Return the base configuration's own fields and those that the settings give.

    Raises:
        InputError: no such architecture, no causal language model, or a field that it does not have.
    """
    name = settings.architecture
    if name in CONFIG_MAPPING:
        if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise InputError(f"model.architecture = {name}: transformers has no causal language model of that type")
        base, source, fields = _defaults(name), None, {}
    else:
        if "/" not in name and not name.startswith((".", "~")):
            near = difflib.get_close_matches(name, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, n=3)
            hint = f"; near it are {', '.join(near)}" if near else ""
            _only_if_there(name, hint)
        base, source = load_configuration(name, "model.architecture", settings.trust_remote_code), name
        fields = {key: value for key, value in base.to_dict().items() if key not in _NOT_A_SHAPE}
        if not settings.trust_remote_code and base.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise InputError(
                f"model.architecture = {name}: {base.model_type} is not a causal language model that transformers has"
            )
    _check_fields(base, settings.options)
    options = HubOptions(
        architecture=base.model_type,
        base=json.dumps(fields, sort_keys=True),
        given=json.dumps(settings.options, sort_keys=True),
        remote_code=source if settings.trust_remote_code else None,
    )
    problem = first_problem(base_configuration(options))
    if problem:
        raise InputError(f"model.architecture = {name}: {problem}")
    names = sorted(set(derived(base, 1, base.hidden_size, base.num_attention_heads, 1)) - set(settings.options))
    return DerivedOptions(**vars(options), derived=tuple(names)) if names else options


def _defaults(name: str) -> PretrainedConfig:
    try:
        return CONFIG_MAPPING[name]()
    except Exception as error:  # the classes check their fields with exceptions of many kinds
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"model.architecture = {name}: transformers has no working default configuration of that type ({said}); "
            "give a folder with config.json"
        ) from None


def _only_if_there(name: str, hint: str) -> None:
    from pathlib import Path

    if not Path(name).is_dir():
        raise InputError(
            f"model.architecture = {name}: no model type of transformers{hint}; give one (llama, mistral, mixtral, "
            "qwen3, …), a folder with config.json, or a hub name such as org/model"
        )


def _check_fields(base: PretrainedConfig, given: dict[str, Any]) -> None:
    own = {base.attribute_map.get(name, name): place for name, place in _OWN.items()} | _OWN
    known = set(base.to_dict()) | set(base.attribute_map) | set(own)
    for key in given:
        if key in own:
            raise InputError(f"model.options.{key}: set by {own[key]}; drop it here")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            raise InputError(
                f"model.options.{key}: {base.model_type} has no such field"
                f"{'; near it are ' + ', '.join(near) if near else ''}"
            )


def _make(options: HubOptions, **fields: Any) -> PretrainedConfig:
    """Return a configuration of the base's class.

    Raises:
        InputError: the class refuses a value.
    """
    if options.remote_code is not None:
        cls = type(load_configuration(options.remote_code, "model.architecture", True))
    else:
        cls = CONFIG_MAPPING[options.architecture]
    try:
        return cls(**fields)
    except Exception as error:  # the classes check their fields with exceptions of many kinds
        said = " ".join(str(error).split())[:200]
        lists = [name for name in ("layers_block_type", "layer_types") if name in said]
        advice = f"; give model.options.{lists[0]} with one entry a layer" if lists else ""
        raise InputError(f"model.options: {options.architecture} refuses its fields: {said}{advice}") from None


@lru_cache(maxsize=256)
def base_configuration(options: HubOptions) -> PretrainedConfig:
    """Return the configuration before scaling, with the given fields."""
    fields, given = json.loads(options.base), json.loads(options.given)
    try:
        return _make(options, **{**fields, **given})
    except InputError:  # a given list can have one entry for each layer of the shape, not of the base
        plain = {name: value for name, value in given.items() if not isinstance(value, list)}
        if len(plain) == len(given):
            raise
        return _make(options, **{**fields, **plain})


def base_dimensions(options: HubOptions) -> tuple[int, int, int]:
    """Return (layers, width, heads) of the configuration before scaling."""
    base = base_configuration(options)
    return base.num_hidden_layers, base.hidden_size, base.num_attention_heads


def experts_per_token(config: PretrainedConfig) -> int | None:
    """Return the experts that one token is sent to; None where the configuration has no such field."""
    return next((int(getattr(config, name)) for name in EXPERTS if getattr(config, name, None)), None)


def width_multiple(options: HubOptions) -> int:
    """Return 8 for a mixture of experts, whose grouped products in bfloat16 need rows of whole 16 bytes; else 1."""
    return 1 if experts_per_token(base_configuration(options)) is None else 8


def scaled(value: int, width: int, base_width: int) -> int:
    """Return a hidden width in proportion to the width, in a multiple that suits it; unchanged at the base's width."""
    if width == base_width:
        return value
    wanted = value * width / base_width
    step = 64 if wanted >= 1024 else 8  # what grouped products of experts in bfloat16 ask for
    return max(step, round(wanted / step) * step)


def _scaled_widths(value: Any, layers: int, width: int, base_width: int) -> Any:
    """Return a hidden width, or those of each layer, in proportion to the width."""
    if not isinstance(value, list):
        return scaled(int(value), width, base_width)
    return [scaled(int(value[i * len(value) // layers]), width, base_width) for i in range(layers)]


def feed_forward(width: int, options: HubOptions) -> int:
    """Return the hidden width of a feed-forward block, of one expert where there are several."""
    base = base_configuration(options)
    given = json.loads(options.given)
    for name in WIDTHS:
        value = getattr(base, name, None)
        if value is not None:
            widths = value if isinstance(value, list) else [value]
            return max(int(w) if name in given else scaled(int(w), width, base.hidden_size) for w in widths)
    return 4 * width


def _key_value_heads(base: PretrainedConfig, heads: int) -> int:
    """Return the key heads: as many queries to a key as in the base, or the nearest number that divides the heads."""
    wanted = heads * base.num_key_value_heads / base.num_attention_heads
    divisors = [n for n in range(1, heads + 1) if heads % n == 0]
    return min(divisors, key=lambda n: (abs(n - wanted), n))


def configuration(dimensions: Dimensions) -> PretrainedConfig:
    """Return the configuration of a shape."""
    d = dimensions
    return scaled_configuration(d.options, d.layers, d.width, d.heads, d.vocabulary, d.context)


def scaled_configuration(
    options: HubOptions, layers: int, width: int, heads: int, vocabulary: int, context: int
) -> PretrainedConfig:
    """Return the base configuration with other dimensions, and what it derives from them derived anew.

    Feed-forward widths and the width of the queries keep their ratio to the width, key heads theirs to the heads.
    """
    base_dimensions(options)
    base, given = base_configuration(options), json.loads(options.given)
    fields = {**json.loads(options.base), **given}
    per_layer = [k for k, v in fields.items() if isinstance(v, list) and len(v) == base.num_hidden_layers]
    for name in per_layer if layers != base.num_hidden_layers else []:
        if name not in given:
            fields.pop(name)
    values = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    values |= {"vocab_size": vocabulary, "max_position_embeddings": context}
    new: dict[str, Any] = {base.attribute_map.get(name, name): value for name, value in values.items()}
    new |= {**token_ids(type(base)), "use_cache": False}
    if getattr(base, "num_key_value_heads", None) is not None:
        new["num_key_value_heads"] = _key_value_heads(base, heads)
    elif "num_key_value_heads" in vars(base):
        new["num_key_value_heads"] = heads
    follows = derived(base, layers, width, heads, vocabulary)
    own_head = base.to_dict().get("head_dim", 0)  # 0: it has no such field, or a property that follows
    if "qk_rope_head_dim" in follows:
        if vars(base).get("head_dim") == base.qk_rope_head_dim:
            new["head_dim"] = follows["qk_rope_head_dim"]
    elif own_head is None:
        new["head_dim"] = width // heads
    elif own_head:
        ratio = base.head_dim * base.num_attention_heads / base.hidden_size
        new["head_dim"] = max(2, 2 * round(width / heads * ratio / 2))
    for name in WIDTHS:
        value = getattr(base, name, None)
        if value is not None:
            new[name] = _scaled_widths(value, layers, width, base.hidden_size)
    new |= follows
    return _make(options, **{**fields, **{name: value for name, value in new.items() if name not in given}})
