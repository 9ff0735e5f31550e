"""What is known exactly of a corpus's tokens before any of them is made: enough to plan runs on a corpus far away."""

from pathlib import Path
from typing import NamedTuple

from amscale.data.settings import CorpusSettings
from amscale.data.tokenizers import make_tokenizer

_PUBLISHED = {"gpt2": 50257, "openai-community/gpt2": 50257}
"""Vocabularies of tokenizers on the hub, end token included, so that a plan needs no network."""


class KnownFacts(NamedTuple):
    """What a plan has to know of tokens."""

    vocabulary_size: int
    context: int
    """Tokens of a sequence, at most."""
    mean_tokens_per_sequence: float


def known_facts(settings: CorpusSettings) -> KnownFacts | None:
    """Vocabulary, context and the mean length of a sequence where they follow from the settings and the source.

    The mean is that of the source: documents that were drawn from it have it up to chance. Under `stream` packing it is
    the context, which the last sequence alone falls short of.

    Returns:
        None where only the tokens themselves can tell.

    Raises:
        InputError: a tokenizer that is neither here nor to be had from the hub.
    """
    source = settings.known_source() if settings.duplicates == "keep" else None
    context = settings.context or (source.longest_document if source else None)
    if context is None:
        return None
    if settings.packing == "stream":
        mean = float(context)
    elif source is not None and source.lengths is not None:
        pieces = sum(-(-length // context) * p for length, p in source.lengths.items())
        mean = sum(length * p for length, p in source.lengths.items()) / pieces
    else:
        return None
    vocabulary_size = _vocabulary_size(settings)
    return None if vocabulary_size is None else KnownFacts(vocabulary_size, context, mean)


def _vocabulary_size(settings: CorpusSettings) -> int | None:
    if settings.tokenizer == "bpe" or (settings.tokenizer == "word" and settings.word_types() is None):
        return None
    if settings.tokenizer in _PUBLISHED and not Path(settings.tokenizer).exists():
        return _PUBLISHED[settings.tokenizer]
    return make_tokenizer(settings).vocabulary_size
