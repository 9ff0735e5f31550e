"""The corpora, one class each, by the name that `data.corpus` gives; docs/data.md shows how to add one."""

from functools import cache
from typing import Annotated, get_args

from pydantic import SerializeAsAny

from amscale.data.corpus import Corpus
from amscale.errors import InputError
from amscale.registry import Registry
from amscale.settings import select_settings

CORPORA: Registry[type[Corpus]] = Registry(
    "amscale.corpora",
    {
        "question_formation": "amscale.data.corpora.question_formation:QuestionFormation",
        "random_tokens": "amscale.data.corpora.random_tokens:RandomTokens",
        "openwebtext": "amscale.data.corpora.openwebtext:OpenWebText",
        "spgc": "amscale.data.corpora.spgc:Gutenberg",
        "kjv": "amscale.data.corpora.kjv:KingJames",
        "hub": "amscale.data.corpora.hub:HubCorpus",
        "jsonl": "amscale.data.corpora.local_files:JsonLines",
        "parquet": "amscale.data.corpora.local_files:Parquet",
        "text": "amscale.data.corpora.local_files:Text",
        "script": "amscale.data.corpora.script:ScriptCorpus",
    },
)


@cache
def find_corpus(name: str) -> type[Corpus]:
    """Return the corpus of that name.

    Raises:
        InputError: no such corpus, or what an entry point names is not one.
    """
    corpus = CORPORA.find(name, "data.corpus")
    source = f"entry point {name!r} of {CORPORA.group}"
    if not (isinstance(corpus, type) and issubclass(corpus, Corpus)):
        raise InputError(f"{source} is {corpus!r}; give a subclass of amscale.data.Corpus")
    if get_args(corpus.model_fields["corpus"].annotation) != (name,):
        raise InputError(f'{source}: in {corpus.__name__} declare `corpus: Literal["{name}"] = "{name}"`')
    if corpus.__abstractmethods__:
        raise InputError(f"{source}: {corpus.__name__} lacks {', '.join(sorted(corpus.__abstractmethods__))}; add it")
    return corpus


DataSettings = Annotated[SerializeAsAny[Corpus], select_settings("corpus", CORPORA, find_corpus)]
"""The `data` section of a configuration: the corpus that its `corpus` names."""

__all__ = ["CORPORA", "DataSettings", "find_corpus"]
