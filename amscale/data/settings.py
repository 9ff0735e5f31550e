"""What every corpus can be asked: how much of it, cut into which tokens, packed into which sequences."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from amscale.settings import Settings, Size, parse_size

Packing = Literal["document", "stream"]


def parse_held_out(value: Any) -> float | int:
    """A share strictly between 0 and 1, or a count of documents of at least 1, written as any size."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = parse_size(value)
    if 0 < number < 1:
        return number
    if number < 1:
        raise ValueError(f"{value!r} holds nothing out; write a share such as 0.01 or a count such as 1000")
    return parse_size(value)


HeldOut = Annotated[float | int, BeforeValidator(parse_held_out)]


@dataclass(frozen=True)
class KnownEntropy:
    """What the source of a corpus is known to carry, in nats; tokens include the end token."""

    per_document: float
    tokens_per_document: float | None
    """The exact mean under the source, or None where only the tokenised documents can tell."""


class CorpusSettings(Settings):
    """A corpus, its tokens and its split; each corpus adds what it needs to find or to make its documents."""

    corpus: str
    """Which corpus this is."""
    size: Size | None = Field(default=None, gt=0)
    """D: unique training tokens, end tokens counted; a line that the corpus repeats counts each time it stands
    there. `document` packing takes whole documents until D is reached, `stream` exactly D. None: all there are."""
    tokenizer: str = "word"
    """`word`: the corpus's blank-separated words; `byte`: UTF-8 bytes; `bpe`: byte-level pairs trained on the whole
    corpus, held-out documents included; or a `tokenizer.json`, a folder, or a name on the Hugging Face hub."""
    tokenizer_vocabulary: Size = Field(default=4096, ge=257)
    """Vocabulary of a `bpe` tokenizer, in tokens, end token included; other tokenizers have their own."""
    packing: Packing = "document"
    """`document`: one document a sequence, padded; `stream`: documents end to end, cut every `context` tokens."""
    context: int | None = Field(default=None, ge=1)
    """Tokens a sequence, at most. None: the longest document of the corpus with its end token."""
    validation: HeldOut = 0.01
    """Held out for validation: a share of the documents if below 1, else their count. Copies of one document stay
    on one side, so the count can come out a few documents higher."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the choice of validation documents and of the order of the others; subsets are prefixes of it."""

    more: ClassVar[str] = "data"
    """Which setting to raise for a larger corpus, as an error message names it."""

    @abstractmethod
    def texts(self) -> Iterator[list[str]]:
        """The documents in the corpus's own order, in lists short enough to hold in memory."""

    def identity(self) -> dict[str, Any]:
        """All that determines the tokens and their split, as plain JSON; a store is named by a hash of it."""
        ignored = {"size", "packing", "context"}
        if self.tokenizer != "bpe":
            ignored.add("tokenizer_vocabulary")
        return self.model_dump(mode="json", exclude=ignored)

    def word_types(self) -> list[str] | None:
        """The `word` vocabulary where the corpus knows it beforehand; None: it is collected from the texts."""
        return None

    def word_tokens(self) -> Iterator[tuple[np.ndarray, np.ndarray]] | None:
        """Blocks of `word` tokens (flat, end tokens included) and document lengths; None: the texts are tokenised."""
        return None

    def known_entropy(self) -> KnownEntropy | None:
        """The exact entropy of the source, if it has one."""
        return None
