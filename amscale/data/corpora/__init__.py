"""One file and one settings class per corpus; a new one joins the union below."""

from typing import Annotated

from pydantic import Field

from amscale.data.corpora.hub import Hub
from amscale.data.corpora.kjv import KingJames
from amscale.data.corpora.local_files import JsonLines, Parquet, Text
from amscale.data.corpora.openwebtext import OpenWebText
from amscale.data.corpora.question_formation import QuestionFormation
from amscale.data.corpora.random_tokens import RandomTokens
from amscale.data.corpora.spgc import Gutenberg

DataSettings = Annotated[
    QuestionFormation | RandomTokens | OpenWebText | Gutenberg | KingJames | Hub | JsonLines | Parquet | Text,
    Field(discriminator="corpus"),
]
"""The `data` section of a configuration, told apart by its `corpus`."""

__all__ = [
    "DataSettings",
    "Gutenberg",
    "Hub",
    "JsonLines",
    "KingJames",
    "OpenWebText",
    "Parquet",
    "QuestionFormation",
    "RandomTokens",
    "Text",
]
