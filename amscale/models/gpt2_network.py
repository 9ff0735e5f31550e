"""The network of the gpt2 family: the transformers library's model, with its own initialisation."""

from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from amscale.models.shape import Shape


class GPT2(nn.Module):
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

    def residual_names(self) -> list[str]:
        return [f"model.transformer.h.{index}" for index in range(self.model.config.n_layer)]

    def attention_names(self) -> list[str]:
        return [f"model.transformer.h.{index}.attn" for index in range(self.model.config.n_layer)]

    def final_norm_name(self) -> str:
        return "model.transformer.ln_f"


def configuration(shape: Shape) -> GPT2Config:
    """The shape as transformers' configuration; the special tokens of the published vocabulary are left unset."""
    return GPT2Config(
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


def build(shape: Shape) -> GPT2:
    """The model, freshly initialised."""
    return GPT2(GPT2LMHeadModel(configuration(shape)))
