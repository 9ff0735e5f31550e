"""JSON Lines files."""

from collections.abc import Iterator
from typing import Literal

from amscale.data.corpora.files import FileSettings
from amscale.data.files import blocks, find_files
from amscale.data.tables import json_lines_texts


class JsonLines(FileSettings):
    """JSON Lines files, one document a line; `.gz`, `.bz2`, `.zst` and `.lz4` files are read as they are."""

    corpus: Literal["jsonl"]
    """Which corpus this is."""
    text_column: str = "text"
    """Name under which each object holds its text."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in json_lines_texts(path, self.text_column))
