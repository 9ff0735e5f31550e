"""JSON Lines files."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from amscale.data.files import blocks, find_files, fingerprint
from amscale.data.settings import TextSettings
from amscale.data.tables import json_lines_texts


class JsonLines(TextSettings):
    """JSON Lines files, one document a line; `.gz`, `.bz2`, `.zst` and `.lz4` files are read as they are."""

    corpus: Literal["jsonl"]
    """Which corpus this is."""
    files: str | list[str]
    """Paths or patterns such as `crawl/*.jsonl.gz`, relative to where the command runs; taken in sorted order."""
    text_column: str = "text"
    """Name under which each object holds its text."""

    more: ClassVar[str] = "data.files"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "files": [fingerprint(path) for path in find_files(self.files)]}

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in json_lines_texts(path, self.text_column))
