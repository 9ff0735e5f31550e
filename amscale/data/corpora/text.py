"""Any UTF-8 text files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from amscale.data.corpora.files import FileSettings
from amscale.data.files import blocks, find_files, text_lines


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
