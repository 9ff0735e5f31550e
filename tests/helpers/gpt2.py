"""The library's GPT-2 with the weights of a network of ours."""

from transformers import GPT2Config, GPT2LMHeadModel


def in_the_library(network, heads: int) -> GPT2LMHeadModel:
    """Return the library's model with the network's weights, in evaluation mode, with written-out attention."""
    weights = network.model.state_dict()
    vocabulary, width = weights["transformer.wte.weight"].shape
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=network.context,
        n_embd=width,
        n_layer=len(network.model["transformer"]["h"]),
        n_head=heads,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    theirs = GPT2LMHeadModel(config)
    theirs.load_state_dict(weights)
    return theirs.eval()
