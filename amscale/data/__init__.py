"""Corpora, tokenizers, the memory-mapped token store, its nested subsets, and batches."""

from amscale.data.batches import IGNORED, Batches, Sequences
from amscale.data.build import corpus_content, prepare, store_name
from amscale.data.corpora import (
    DataSettings,
    Gutenberg,
    Hub,
    JsonLines,
    KingJames,
    OpenWebText,
    Parquet,
    QuestionFormation,
    RandomTokens,
    Text,
)
from amscale.data.corpus import CorpusSettings
from amscale.data.store import KnownFacts, Subset, TokenStore, known_facts, open_store

__all__ = [
    "IGNORED",
    "Batches",
    "CorpusSettings",
    "DataSettings",
    "Gutenberg",
    "Hub",
    "JsonLines",
    "KingJames",
    "KnownFacts",
    "OpenWebText",
    "Parquet",
    "QuestionFormation",
    "RandomTokens",
    "Sequences",
    "Subset",
    "Text",
    "TokenStore",
    "corpus_content",
    "known_facts",
    "open_store",
    "prepare",
    "store_name",
]
