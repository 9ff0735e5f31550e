"""What corpora in local files have in common.

Any UTF-8 text files.

JSON Lines files.

Parquet files, and the Arrow files that `datasets` writes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from amscale.data.corpus import TextSettings
from amscale.data.readers import blocks, column_texts, find_files, fingerprint, json_lines_texts, text_lines


class FileSettings(TextSettings):
    """Natural text in local files, told by what they hold and not by where they lie."""

    files: str | tuple[str, ...]
    """Paths or patterns such as `crawl/*.jsonl.gz` or `books/**/*.txt`, relative to where the command runs; taken in
    sorted order."""

    more: ClassVar[str] = "data.files"

    def content(self) -> dict[str, Any]:
        return {"files": [fingerprint(path) for path in find_files(self.files)]}


class Text(FileSettings):
    """Text files, cut into documents by file, line or paragraph; empty documents are left out."""

    corpus: Literal["text"]
    """Which corpus this is."""
    document: Literal["file", "line", "paragraph"] = "file"
    """What one document is; paragraphs are separated by blank lines."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(document for path in find_files(self.files) for document in self._documents(path))

    def _documents(self, path: Path) -> Iterator[str]:
        if self.document == "file":
            yield "".join(text_lines(path))
            return
        paragraph: list[str] = []
        for line in text_lines(path):
            if self.document == "line":
                yield line.rstrip("\n")
            elif line.strip():
                paragraph.append(line)
            elif paragraph:
                yield "".join(paragraph).rstrip("\n")
                paragraph = []
        if paragraph:
            yield "".join(paragraph).rstrip("\n")


class JsonLines(FileSettings):
    """JSON Lines files, one document a line; `.gz`, `.bz2`, `.zst` and `.lz4` files are read as they are."""

    corpus: Literal["jsonl"]
    """Which corpus this is."""
    text_column: str = "text"
    """Name under which each object holds its text."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in json_lines_texts(path, self.text_column))


class Parquet(FileSettings):
    """Parquet or Arrow files, one document a row."""

    corpus: Literal["parquet"]
    """Which corpus this is."""
    text_column: str = "text"
    """The column that holds the text."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in column_texts(path, self.text_column))
