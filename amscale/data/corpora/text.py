"""Any UTF-8 text files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from amscale.data.files import blocks, find_files, fingerprint, text_lines
from amscale.data.settings import TextSettings


class Text(TextSettings):
    """Text files, cut into documents by file, line or paragraph; empty documents are left out."""

    corpus: Literal["text"]
    """Which corpus this is."""
    files: str | list[str]
    """Paths or patterns such as `books/**/*.txt`, relative to where the command runs; taken in sorted order."""
    document: Literal["file", "line", "paragraph"] = "file"
    """What one document is; paragraphs are separated by blank lines."""

    more: ClassVar[str] = "data.files"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "files": [fingerprint(path) for path in find_files(self.files)]}

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
