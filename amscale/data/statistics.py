"""Facts of a corpus's tokens that follow from its settings and its source: a plan needs no token made."""

from pathlib import Path
from typing import NamedTuple

from amscale.data.corpus import Corpus
from amscale.data.tokenizers import make_tokenizer

_PUBLISHED = {"gpt2": 50257, "openai-community/gpt2": 50257}
"""Vocabularies of tokenizers on the hub, end token included, so that a plan needs no network."""


class TokenStatistics(NamedTuple):
    """What a plan needs to know of tokens."""

    vocabulary_size: int
    context: int
    """Tokens of a sequence, at most."""
    mean_tokens_per_sequence: float


def predict_statistics(corpus: Corpus) -> TokenStatistics | None:
    """Return vocabulary, context and mean tokens per sequence where settings and source determine them.

    The mean is that of the source: documents that were drawn from it have it up to chance. Under `stream` packing it is
    the context, which the last sequence alone falls short of.

    Returns:
        None where only the tokens themselves can tell.

    Raises:
        InputError: the tokenizer is neither a local file nor on the hub.
    """
    source = corpus.source_statistics() if corpus.duplicates == "keep" else None
    context = corpus.context or (source.longest_document if source else None)
    if context is None:
        return None
    if corpus.packing == "stream":
        mean = float(context)
    elif source is not None and source.lengths is not None:
        pieces = sum(-(-length // context) * p for length, p in source.lengths.items())
        mean = sum(length * p for length, p in source.lengths.items()) / pieces
    else:
        return None
    vocabulary_size = _vocabulary_size(corpus)
    return None if vocabulary_size is None else TokenStatistics(vocabulary_size, context, mean)


def _vocabulary_size(corpus: Corpus) -> int | None:
    if corpus.tokenizer == "bpe" or (corpus.tokenizer == "word" and corpus.word_types() is None):
        return None
    if corpus.tokenizer in _PUBLISHED and not Path(corpus.tokenizer).exists():
        return _PUBLISHED[corpus.tokenizer]
    return make_tokenizer(corpus).vocabulary_size
