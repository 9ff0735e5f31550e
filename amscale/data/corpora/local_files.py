"""Corpora in local files: text, JSON Lines, Parquet and Arrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from amscale.data.corpus import TextCorpus
from amscale.data.file_patterns import find_files
from amscale.data.readers import blocks, column_texts, fingerprint, json_lines_texts, text_lines


class FileCorpus(TextCorpus):
    """Natural text in local files; a corpus is identified by what the files hold, not by where they are."""

    files: str | tuple[str, ...]
    """Paths or patterns such as `crawl/*.jsonl.gz` or `books/**/*.txt`, relative to where the command runs; read in
    sorted order."""

    enlarging_setting: ClassVar[str] = "data.files"

    def content(self) -> dict[str, Any]:
        return {"files": [fingerprint(path) for path in find_files(self.files)]}


class Text(FileCorpus):
    """Text files, cut into documents by file, line or paragraph; empty documents are left out."""

    corpus: Literal["text"] = "text"
    document: Literal["file", "line", "paragraph"] = "file"
    """One document: a file, a line, or a paragraph; blank lines separate paragraphs."""

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


class JsonLines(FileCorpus):
    """JSON Lines files, one document a line; compressed or not (`.gz`, `.bz2`, `.zst`, `.lz4`)."""

    corpus: Literal["jsonl"] = "jsonl"
    text_column: str = "text"
    """Key of each object that holds its text."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in json_lines_texts(path, self.text_column))


class Parquet(FileCorpus):
    """Parquet or Arrow files, one document a row."""

    corpus: Literal["parquet"] = "parquet"
    text_column: str = "text"
    """The column that holds the text."""

    def texts(self) -> Iterator[list[str]]:
        return blocks(text for path in find_files(self.files) for text in column_texts(path, self.text_column))
