"""Fields of a transformers configuration that only some architectures have and that must follow the shape."""

from dataclasses import fields, is_dataclass
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

HEAD_DIMENSIONS = ("rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
"""Dimensions of a head, or of the part of it that is rotated; they keep their ratio to width / heads."""
RANKS = ("q_lora_rank", "kv_lora_rank")
"""Ranks that queries, keys and values are squeezed through; they keep their ratio to the width."""
VOCABULARIES = ("vocab_size_per_layer_input", "unpadded_vocab_size")
"""Rows of a second table of embeddings; logits that are returned."""


def first_problem(base: PretrainedConfig) -> str | None:
    """Return why no causal language model can be scaled from a configuration, and what to do; None where one can."""
    dimensions = ("num_hidden_layers", "hidden_size", "num_attention_heads")
    for name in (*dimensions, "num_key_value_heads", "head_dim", "intermediate_size"):
        try:
            value = getattr(base, name, None)
        except RuntimeError:  # what transformers raises where layers have values of their own
            return f"its layers differ in {name}, which no rule scales; choose another"
        if name in dimensions and not isinstance(value, int):
            part = _text_part(base)
            if part:
                return f"a model of several parts; give its language model, model.architecture = {part}"
            if getattr(base, "sub_configs", {}):
                return "a model of several parts, none of which is a causal language model; choose another"
            return f"{base.model_type} has no {name}; choose one that has attention heads"
    if {"vision_config", "audio_config"} & set(getattr(base, "sub_configs", {})):
        return "it keeps parts for images or sound, which no text reaches; choose another"
    if getattr(base, "is_encoder_decoder", False):
        return (
            "an encoder and a decoder; the decoder alone would keep weights for an encoder's output, which nothing "
            "reaches; choose a decoder such as gpt2, opt or llama"
        )
    return None


def _text_part(base: PretrainedConfig) -> str | None:
    try:
        name = base.get_text_config(decoder=True).model_type
    except ValueError:  # several parts are text
        return None
    return name if name != base.model_type and name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def derived(base: PretrainedConfig, layers: int, width: int, heads: int, vocabulary: int) -> dict[str, Any]:
    """Return those fields that the configuration has, for a shape; unchanged at its own layers, width and heads."""
    head = (width / heads) / (base.hidden_size / base.num_attention_heads)
    own = {field.name for field in fields(base)} if is_dataclass(base) else set(vars(base))  # no computed attributes
    found: dict[str, Any] = {}
    for names, ratio, step in ((HEAD_DIMENSIONS, head, 2), (RANKS, width / base.hidden_size, 8)):
        for name in names:
            value = vars(base).get(name)
            if name in own and isinstance(value, int) and value > 0:
                found[name] = value if ratio == 1 else max(step, step * round(value * ratio / step))
    found |= {name: vocabulary for name in VOCABULARIES if vars(base).get(name) is not None}
    if vars(base).get("attention_types"):  # GPT-Neo: [[kinds of layers, how often], …], as many layers as there are
        kinds = base.attention_layers
        found["attention_types"] = [[[kinds[i % len(kinds)] for i in range(layers)], 1]]
    if vars(base).get("num_kv_shared_layers"):
        found["num_kv_shared_layers"] = base.num_kv_shared_layers * layers // base.num_hidden_layers
    if isinstance(vars(base).get("mamba_n_heads"), int):
        found |= _state_space(base, width)
    if vars(base).get("is_decoder") is False:  # an encoder's class, which then would see later tokens
        found["is_decoder"] = True
    return found


def _state_space(base: PretrainedConfig, width: int) -> dict[str, int]:
    """Return heads of state-space layers that divide their inner width and keep their dimension as far as they can."""
    ratio = width / base.hidden_size
    found = {}
    inner = int(base.mamba_expand * width)
    if vars(base).get("mamba_d_ssm"):
        inner = found["mamba_d_ssm"] = (
            base.mamba_d_ssm if ratio == 1 else max(8, 8 * round(base.mamba_d_ssm * ratio / 8))
        )
    groups = vars(base).get("mamba_n_groups") or 1
    heads = [n for n in range(groups, inner + 1, groups) if inner % n == 0]
    if heads:  # else the class says in words what does not fit
        found["mamba_n_heads"] = min(heads, key=lambda n: abs(n - base.mamba_n_heads * ratio))
        found["mamba_d_head"] = inner // found["mamba_n_heads"]
    return found


def token_ids(cls: type[PretrainedConfig]) -> dict[str, int | None]:
    """Return ids of special tokens: none, so that no token of the corpus is special; 0 where a class asks for one."""
    asked = {field.name for field in fields(cls) if field.type in (int, "int")}  # type: ignore[arg-type]
    return {name: 0 if name in asked else None for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
