"""Check that a tokenizer holds a text: encode and decode sampled documents, and count unknown tokens."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amscale.data.corpus import Corpus
from amscale.data.parts import document_blocks, is_empty
from amscale.data.tokenizers import Tokenizer, make_tokenizer
from amscale.errors import InputError
from amscale.settings import format_size

_SAMPLE, _CHARACTERS = 1 << 16, 1 << 13
"""Characters of a block that are sampled, about, and of one document."""
_EXAMPLES = 200
"""Distinct lost characters that are counted one by one."""


@dataclass
class RoundTrip:
    """Characters that did not come back from encoding and decoding, and tokens that stand for unknown text.

    Texts are compared after normalisation: Unicode's NFKC, and each run of white space as one blank. A character that
    comes back in another case or without its accents is changed, not lost; so is white space, unless more than half of
    a document's is gone (tokenizers such as BERT's drop it around punctuation).
    """

    characters: int = 0
    """Characters of the sample."""
    lost: int = 0
    changed: int = 0
    examples: dict[str, int] = field(default_factory=dict)
    """How often characters were lost or changed."""
    tokens: int = 0
    """Tokens of all texts, sampled or not, end tokens left out."""
    unknown: int = 0
    """Those among them that are the tokenizer's token for unknown text."""

    def compare(self, text: str, decoded: str) -> None:
        """Count what is missing in the text that came back."""
        before, after = _normalised(text), _normalised(decoded)
        self.characters += len(before)
        if before == after:
            return
        missing = Counter(before) - Counter(after)
        blanks = missing.pop(" ", 0)
        lost = min(missing.total(), (_letters(before) - _letters(after)).total())
        if 2 * blanks > before.count(" "):
            lost += blanks
        self.lost += lost
        self.changed += missing.total() + blanks - lost
        self._add_examples(missing)

    def count_unknown(self, tokenizer: Tokenizer, tokens: np.ndarray, documents: int) -> None:
        """Count the unknown ones among the tokens of whole documents, each with its end token."""
        self.tokens += len(tokens) - documents
        if tokenizer.unknown_token is not None:
            ends = documents if tokenizer.unknown_token == tokenizer.end_token else 0
            self.unknown += int((tokens == tokenizer.unknown_token).sum()) - ends

    def add(self, other: "RoundTrip") -> None:
        """Add the counts of other texts."""
        self.characters += other.characters
        self.lost += other.lost
        self.changed += other.changed
        self.tokens += other.tokens
        self.unknown += other.unknown
        self._add_examples(Counter(other.examples))

    def facts(self) -> dict[str, Any]:
        """Return shares and counts as plain data."""
        return {
            "sampled_characters": self.characters,
            "lost": self.lost / max(1, self.characters),
            "changed": self.changed / max(1, self.characters),
            "most_lost": list(self.examples)[:8],
            "unknown_tokens": self.unknown,
            "unknown": self.unknown / max(1, self.tokens),
        }

    def _add_examples(self, missing: Counter[str]) -> None:
        self.examples = dict((Counter(self.examples) + missing).most_common(_EXAMPLES))


def sampled(texts: Sequence[str], tokenizer: str) -> list[str]:
    """Return the beginnings of some documents, spread evenly over a block; `word` takes whole words only."""
    held = sum(min(len(text), _CHARACTERS) for text in texts)
    return [_beginning(text, tokenizer == "word") for text in texts[:: max(1, held // _SAMPLE)]]


def round_trip(tokenizer: Tokenizer, texts: Sequence[str], tokens: np.ndarray, lengths: np.ndarray) -> RoundTrip:
    """Compare texts with what decoding their tokens gives; tokens and lengths as `Tokenizer.encode` returns them."""
    found = RoundTrip()
    end = 0
    for text, length in zip(texts, lengths.tolist(), strict=True):
        ids = tokens[end : end + length - 1].tolist()
        found.compare(text, tokenizer.decode([i for i in ids if i != tokenizer.unknown_token]))
        end += length
    return found


def sample_loss(corpus: Corpus) -> dict[str, Any] | None:
    """Return the facts of a `RoundTrip` over the beginning of a corpus in files that no store is made of yet.

    Returns:
        None where the corpus is not here, and for tokenizers that are made from it.

    Raises:
        InputError: more is lost than `corpus.lost_text` allows.
    """
    if corpus.tokenizer in ("word", "byte", "bpe"):
        return None
    try:
        if not corpus.content():
            return None
    except InputError:  # its files are elsewhere
        return None
    tokenizer, found = make_tokenizer(corpus), RoundTrip()
    written = ([text for text in texts if not is_empty(text)] for texts, _ in document_blocks(corpus))
    if chosen := sampled(next(filter(None, written), []), corpus.tokenizer):
        tokens, lengths = tokenizer.encode(chosen)
        found = round_trip(tokenizer, chosen, tokens, lengths)
        found.count_unknown(tokenizer, tokens, len(lengths))
    check_loss(found.facts(), corpus.tokenizer, corpus.lost_text)
    return found.facts()


def check_loss(facts: dict[str, Any], tokenizer: str, allowed: float, times: int = 1) -> None:
    """Raise InputError if a tokenizer loses more text than allowed.

    Args:
        facts: of a `RoundTrip`.
        tokenizer: the setting `data.tokenizer`.
        allowed: the setting `data.lost_text`.
        times: how often as much is taken.
    """
    if max(facts["lost"], facts["unknown"]) > times * allowed:
        raise InputError(
            f"data.tokenizer: {tokenizer} cannot hold the text: {describe_loss(facts)}; data.lost_text allows "
            f"{_percent(allowed)}: give bpe, byte or a tokenizer that knows every character, or raise data.lost_text"
        )


def describe_loss(facts: dict[str, Any]) -> str:
    """Return a phrase that says which share of a text a tokenizer loses."""
    most = ", ".join(map(repr, facts["most_lost"]))
    lost = f"{_percent(facts['lost'])} of {format_size(facts['sampled_characters'])} sampled characters lost"
    changed = f", {_percent(facts['changed'])} changed in case, accents or white space" if facts["changed"] else ""
    examples = f" (most often {most})" if most else ""
    return f"{lost}{changed}{examples}, {_percent(facts['unknown'])} of the tokens unknown"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _beginning(text: str, whole_words: bool) -> str:
    """Return the first characters of a text, cut where white space lets no word be cut."""
    if len(text) <= _CHARACTERS:
        return text
    head = text[:_CHARACTERS].rsplit(None, 1)
    return head[0] if len(head) > 1 else text if whole_words else text[:_CHARACTERS]


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _letters(text: str) -> Counter[str]:
    """Count the characters but white space, without case and accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return Counter(c for c in plain if not (c.isspace() or unicodedata.combining(c)))
