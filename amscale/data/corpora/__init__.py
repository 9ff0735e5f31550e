"""The corpora, one class each, by the name that `data.corpus` gives; docs/data.md shows how to add one."""

from typing import Annotated

from pydantic import SerializeAsAny

from amscale.data.corpus import Corpus
from amscale.registry import Registry
from amscale.settings import select_class

CORPORA: Registry[type[Corpus]] = Registry(
    "amscale.corpora",
    {
        "question_formation": "amscale.data.corpora.question_formation:QuestionFormation",
        "random_tokens": "amscale.data.corpora.random_tokens:RandomTokens",
        "openwebtext": "amscale.data.corpora.openwebtext:OpenWebText",
        "spgc": "amscale.data.corpora.spgc:Gutenberg",
        "kjv": "amscale.data.corpora.kjv:KingJames",
        "hub": "amscale.data.corpora.hub:Hub",
        "jsonl": "amscale.data.corpora.local_files:JsonLines",
        "parquet": "amscale.data.corpora.local_files:Parquet",
        "text": "amscale.data.corpora.local_files:Text",
    },
)

DataSettings = Annotated[SerializeAsAny[Corpus], select_class(CORPORA, "corpus")]
"""The `data` section of a configuration: the corpus that its `corpus` names."""

__all__ = ["CORPORA", "DataSettings"]
