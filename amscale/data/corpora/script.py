"""Data that the user's own training script reads: D is only a number here."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from amscale.data.corpus import Corpus
from amscale.settings import Size


class ScriptCorpus(Corpus):
    """Data of your own that `train.script` reads by itself. Nothing is tokenised; D is `data.size`, which the script is
    told."""

    corpus: Literal["script"] = "script"
    size: Size = Field(gt=0)
    """D: unique training tokens, or whatever unit the script counts its data in."""
    vocabulary: Size = Field(default=256, ge=1)
    """Tokens of the vocabulary of a model that amscale builds for the script."""
    context: int = Field(default=1024, ge=1)
    """Tokens a sequence: a global batch has `train.batch_tokens` / this sequences."""

    has_tokens: ClassVar[bool] = False

    def texts(self) -> Iterator[list[str]]:
        """Yield nothing."""
        yield from ()
