"""Parquet files, and the Arrow files that `datasets` writes."""

from collections.abc import Iterator
from typing import Literal

from amscale.data.corpora.files import FileSettings
from amscale.data.files import blocks, find_files
from amscale.data.tables import column_texts


class Parquet(FileSettings):
    """Parquet or Arrow files, one document a row."""

    corpus: Literal["parquet"]
    """Which corpus this is."""
    text_column: str = "text"
    """The column that holds the text."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in column_texts(path, self.text_column))
