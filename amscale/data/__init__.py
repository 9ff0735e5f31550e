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
from amscale.data.known import KnownFacts, known_facts
from amscale.data.settings import CorpusSettings
from amscale.data.store import TokenStore, open_store
from amscale.data.subsets import Subset

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
