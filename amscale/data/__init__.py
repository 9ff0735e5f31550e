"""Corpora, tokenizers, the memory-mapped token store, its nested subsets, and batches."""

from amscale.data.batches import IGNORED, Batches, Sequences, nested_length
from amscale.data.build import corpus_content, prepare, store_name
from amscale.data.corpora import CORPORA, DataSettings
from amscale.data.corpus import Corpus
from amscale.data.token_store import (
    Subset,
    TokenStatistics,
    TokenStore,
    describe_sample,
    open_store,
    predict_statistics,
    statistics_without_tokens,
)

__all__ = [
    "CORPORA",
    "IGNORED",
    "Batches",
    "Corpus",
    "DataSettings",
    "Sequences",
    "Subset",
    "TokenStatistics",
    "TokenStore",
    "corpus_content",
    "describe_sample",
    "nested_length",
    "open_store",
    "predict_statistics",
    "prepare",
    "statistics_without_tokens",
    "store_name",
]
