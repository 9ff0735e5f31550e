"""Weights and tokenizer of a GGUF file are those that it was written from."""

import json
import string
import sys

import numpy as np
import pytest
import torch

from amscale import huggingface
from amscale.errors import InputError
from amscale.probe import probe

LAYERS, WIDTH, HEADS = 2, 32, 2
FEED_FORWARD = 64
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Modules of a Llama layer in transformers, and what llama.cpp calls them."""


def write_gguf(gguf, model, tokens, path):
    """Write a Llama as llama.cpp does, its matrices quantised to 8 bits, and round the model's own likewise."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        outside = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}
        if name in outside:
            written = outside[name]
        else:
            _, _, layer, module = name.removesuffix(".weight").split(".", 3)
            written = f"blk.{layer}.{NAMES[module]}"
        if written.endswith(("attn_q", "attn_k")):  # llama.cpp interleaves the halves that rotary positions pair
            array = array.reshape(HEADS, 2, WIDTH // HEADS // 2, WIDTH).swapaxes(1, 2).reshape(WIDTH, WIDTH)
        if array.ndim == 1:
            writer.add_tensor(f"{written}.weight", array)
            continue
        bytes_ = gguf.quants.quantize(np.ascontiguousarray(array), kind)
        writer.add_tensor(f"{written}.weight", bytes_, raw_dtype=kind)
        rounded = gguf.quants.dequantize(bytes_, kind)
        if written.endswith(("attn_q", "attn_k")):
            rounded = rounded.reshape(HEADS, WIDTH // HEADS // 2, 2, WIDTH).swapaxes(1, 2).reshape(WIDTH, WIDTH)
        parameter.data.copy_(torch.from_numpy(rounded.copy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
def test_a_gguf_file_measures_as_the_folder_of_the_same_weights(tmp_path):
    gguf = pytest.importorskip("gguf")
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = [*string.ascii_lowercase, "Ġ", "Ċ", "th", "the", "<|end|>"]
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(shape)
    for norm in (module for name, module in model.named_modules() if name.endswith("norm")):
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    file = tmp_path / "tiny.Q8_0.gguf"
    write_gguf(gguf, model, tokens, file)
    model.save_pretrained(tmp_path / "folder")
    words = np.random.default_rng(0).choice(["the", "then", "with", "a", "bath"], (60, 12))
    (tmp_path / "text.txt").write_text("\n".join(" ".join(line) for line in words))
    found = {}
    for name, path in (("file", file), ("folder", tmp_path / "folder")):
        data = f"data={{corpus: text, files: {tmp_path}/text.txt, document: line, validation: 0.1, tokenizer: {file}}}"
        sample = "sample={chunks: 40, tokens: 12, layers: [0, -1]}"
        wanted = [f"model.path={path}", data, sample, f"name=of_{name}", f"storage={tmp_path}"]
        assert probe("radius_gpt2_openwebtext.yaml", *wanted) == 0
        spreads = json.loads((tmp_path / f"of_{name}" / "summary.json").read_text())["spreads"]
        found[name] = {(one["place"], one["vectors"]): one["samples"][-1]["distance_mean"] for one in spreads}
    assert len(found["file"]) == 3 * 5
    assert found["file"] == pytest.approx(found["folder"], rel=1e-4)


def test_a_gguf_file_that_is_missing_or_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"model\.path = .*none\.gguf: no such file; give the path of a GGUF file"):
        huggingface.find_source(str(tmp_path / "none.gguf"), "model.path")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match="needs the package gguf; pip install gguf"):
        huggingface.find_source(str(tmp_path / "some.gguf"), "model.path")
