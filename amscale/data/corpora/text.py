"""Any UTF-8 text files."""

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from amscale.data.settings import CorpusSettings, Packing
from amscale.errors import InputError

_BATCH = 1 << 22
"""Characters of text that are held and tokenised at once, unless a single document is longer."""


class Text(CorpusSettings):
    """Text files, cut into documents by file, line or paragraph; empty documents are left out."""

    corpus: Literal["text"]
    """Which corpus this is."""
    files: str | list[str]
    """Paths or patterns such as `books/**/*.txt`, relative to where the command runs; taken in sorted order."""
    document: Literal["file", "line", "paragraph"] = "file"
    """What one document is; paragraphs are separated by blank lines."""
    tokenizer: str = "bpe"
    """`word`: blank-separated words; `byte`: UTF-8 bytes; `bpe`: byte-level pairs trained on the whole corpus,
    held-out documents included; or a `tokenizer.json`, a folder, or a name on the Hugging Face hub."""
    packing: Packing = "stream"
    """`stream`: documents end to end, cut every `context` tokens; `document`: one document a sequence, padded."""
    context: int | None = Field(default=256, ge=1)
    """Tokens a sequence, at most. None: the longest document of the corpus with its end token."""

    more: ClassVar[str] = "data.files"

    def paths(self) -> list[Path]:
        """The files, sorted and each once.

        Raises:
            InputError: a pattern matches no file.
        """
        found: set[Path] = set()
        for pattern in [self.files] if isinstance(self.files, str) else self.files:
            matches = {Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)}
            matches = {path for path in matches if path.is_file()}
            if not matches:
                raise InputError(
                    f"data.files: {pattern!r} matches no file from {Path.cwd()}; give paths or patterns that do"
                )
            found |= matches
        if not found:
            raise InputError("data.files is empty; give at least one path or pattern of text files")
        return sorted(found)

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        identity["files"] = [_digest(path) for path in self.paths()]
        return identity

    def texts(self) -> Iterator[list[str]]:
        batch: list[str] = []
        held = 0
        for path in self.paths():
            for document in self._documents(path):
                batch.append(document)
                held += len(document)
                if held >= _BATCH:
                    yield batch
                    batch, held = [], 0
        if batch:
            yield batch

    def _documents(self, path: Path) -> Iterator[str]:
        if self.document == "file":
            yield "".join(_lines(path))
            return
        paragraph: list[str] = []
        for line in _lines(path):
            if self.document == "line":
                yield line.rstrip("\n")
            elif line.strip():
                paragraph.append(line)
            elif paragraph:
                yield "".join(paragraph).rstrip("\n")
                paragraph = []
        if paragraph:
            yield "".join(paragraph).rstrip("\n")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                if "\0" in line:
                    raise InputError(f"data.files: {path} is not text (it holds zero bytes); give UTF-8 text files")
                yield line
    except UnicodeDecodeError as error:
        raise InputError(f"data.files: {path} is not UTF-8 text ({error.reason}); give UTF-8 text files") from None
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None
    return digest.hexdigest()
