"""OpenWebText (Gokaslan & Cohen 2019): 8 million pages, about 9 billion GPT-2 tokens."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from amscale.data.files import blocks, find_files, fingerprint
from amscale.data.hub import hub_texts
from amscale.data.settings import HeldOut, Split, TextSettings
from amscale.data.tables import column_texts


class OpenWebText(TextSettings):
    """OpenWebText from the Hugging Face hub, streamed, or from files; the last 5 % of the pages are held out."""

    corpus: Literal["openwebtext"]
    """Which corpus this is."""
    files: str | list[str] | None = None
    """Paths or patterns of Parquet, Arrow or JSON Lines files of the data set. None: it is streamed from the hub."""
    name: str = "Skylion007/openwebtext"
    """The data set on the hub, where no files are given."""
    revision: str | None = None
    """Branch, tag or commit of the data set on the hub."""
    text_column: str = "text"
    """The column that holds the text."""
    tokenizer: str = "gpt2"
    """A name on the Hugging Face hub, a folder, a `tokenizer.json`; or `word`, `byte`, `bpe`."""
    context: int | None = Field(default=1024, ge=1)
    """Tokens a sequence, at most."""
    validation: HeldOut = 0.05
    """Held out for validation: a share of the documents if below 1, else their count."""
    split: Split = "last"
    """Which documents are held out. `last`: the last of the corpus in its own order; copies can stand on both sides.
    `content`: chosen by a hash of what they say, so that no held-out document has a copy among the training ones."""

    more: ClassVar[str] = "data.files"

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        if self.files is not None:
            identity["files"] = [fingerprint(path) for path in find_files(self.files)]
            del identity["name"], identity["revision"]
        return identity

    def texts(self) -> Iterator[list[str]]:
        if self.files is None:
            return blocks(hub_texts(self.name, None, "train", self.revision, self.text_column))
        return blocks(text for path in find_files(self.files) for text in column_texts(path, self.text_column))
