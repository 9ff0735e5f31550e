"""Corpora, tokenizers, the memory-mapped token store, its nested subsets, and batches."""

from amscale.data.batches import IGNORED, Batches, Sequences
from amscale.data.build import prepare
from amscale.data.corpora import DataSettings, QuestionFormation, Text
from amscale.data.settings import CorpusSettings
from amscale.data.store import TokenStore, open_store
from amscale.data.subsets import Subset

__all__ = [
    "IGNORED",
    "Batches",
    "CorpusSettings",
    "DataSettings",
    "QuestionFormation",
    "Sequences",
    "Subset",
    "Text",
    "TokenStore",
    "open_store",
    "prepare",
]
