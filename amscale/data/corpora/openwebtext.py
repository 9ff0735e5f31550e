"""OpenWebText (Gokaslan & Cohen 2019): 8 million pages, about 9 billion GPT-2 tokens."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from amscale.data.corpora.hub import hub_texts
from amscale.data.corpus import PublishedTextCorpus
from amscale.data.file_patterns import find_files
from amscale.data.readers import blocks, column_texts, fingerprint


class OpenWebText(PublishedTextCorpus):
    """OpenWebText from the Hugging Face hub, streamed, or from files; the last 5 % of the pages are held out."""

    corpus: Literal["openwebtext"] = "openwebtext"
    files: str | tuple[str, ...] | None = None
    """Paths or patterns of Parquet, Arrow or JSON Lines files of the data set. None: it is streamed from the hub."""
    name: str = "Skylion007/openwebtext"
    """The data set on the hub, where no files are given."""
    revision: str | None = None
    """Branch, tag or commit of the data set on the hub."""
    text_column: str = "text"
    """The column that holds the text."""

    enlarging_setting: ClassVar[str] = "data.files"

    def content(self) -> dict[str, Any]:
        if self.files is None:
            return {}
        return {"files": [fingerprint(path) for path in find_files(self.files)], "name": None, "revision": None}

    def texts(self) -> Iterator[list[str]]:
        if self.files is None:
            return blocks(hub_texts(self.name, None, "train", self.revision, self.text_column))
        return blocks(text for path in find_files(self.files) for text in column_texts(path, self.text_column))
