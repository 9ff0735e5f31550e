"""Parquet files, and the Arrow files that `datasets` writes."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from amscale.data.files import blocks, find_files, fingerprint
from amscale.data.settings import TextSettings
from amscale.data.tables import column_texts


class Parquet(TextSettings):
    """Parquet or Arrow files, one document a row."""

    corpus: Literal["parquet"]
    """Which corpus this is."""
    files: str | list[str]
    """Paths or patterns such as `crawl/*.parquet`, relative to where the command runs; taken in sorted order."""
    text_column: str = "text"
    """The column that holds the text."""

    more: ClassVar[str] = "data.files"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "files": [fingerprint(path) for path in find_files(self.files)]}

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in column_texts(path, self.text_column))
