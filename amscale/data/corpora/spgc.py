"""The Standardized Project Gutenberg Corpus (Gerlach & Font-Clos 2020, arXiv 1812.08092)."""

import ast
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from amscale.data.corpus import PublishedTextCorpus
from amscale.data.file_patterns import expand_home
from amscale.data.readers import blocks, fingerprint, text_lines
from amscale.errors import InputError
from amscale.settings import Size

_BOOK = re.compile(r"PG(\d+)_tokens\.txt")


class Gutenberg(PublishedTextCorpus):
    """The books of the corpus, files `PG<id>_tokens.txt` with one word a line, in the order of their ids.

    One document is one book, its words joined by blanks. The last 5 % of the books are held out.
    """

    corpus: Literal["spgc"] = "spgc"
    folder: str
    """Folder with the `PG<id>_tokens.txt` files."""
    metadata: str | None = None
    """The corpus's table of books, `SPGC-metadata-2018-07-18.csv` or `metadata.csv`; needed for the next two."""
    language: str | None = None
    """Only books in this language and no other, as its two-letter code: `en`. None: all."""
    type: str | None = None
    """Only books of this type, such as `Text`. None: all, with the words of sound and pictures."""
    words: Size | None = Field(default=None, ge=1)
    """Number of words to take, in the order of ids; the last book is cut. None: all."""

    enlarging_setting: ClassVar[str] = "data.words"

    @model_validator(mode="after")
    def _choice_needs_metadata(self) -> "Gutenberg":
        if self.metadata is None and (self.language is not None or self.type is not None):
            raise ValueError("choosing by language or type needs the corpus's metadata.csv; give its path as metadata")
        return self

    def books(self) -> list[Path]:
        """Return the files of the chosen books, in the order of their ids.

        Raises:
            InputError: the folder holds no books, the metadata cannot be read, or no book is chosen.
        """
        folder = expand_home(self.folder)
        found = {}
        if folder.is_dir():
            found = {int(m[1]): path for path in folder.iterdir() if (m := _BOOK.fullmatch(path.name))}
        if not found:
            raise InputError(
                f"data.folder: {folder} holds no PG<id>_tokens.txt; give the folder of the corpus's tokens "
                "(SPGC-tokens-2018-07-18, DOI 10.5281/zenodo.2422560)"
            )
        if self.metadata is None or (self.language is None and self.type is None):
            return [found[number] for number in sorted(found)]
        chosen = sorted(found.keys() & self._chosen(self.metadata))
        if not chosen:
            raise InputError(
                f"data.language, data.type: none of the {len(found)} books in {folder} is of language "
                f"{self.language or 'any'} and type {self.type or 'any'} in {self.metadata}; choose others"
            )
        return [found[number] for number in chosen]

    def content(self) -> dict[str, Any]:
        """Return name and size of each book, since reading tens of thousands would delay every plan."""
        found: dict[str, Any] = {"folder": [(path.name, path.stat().st_size) for path in self.books()]}
        if self.metadata:
            found["metadata"] = fingerprint(expand_home(self.metadata))
        return found

    def identity(self) -> dict[str, Any]:
        """Add the times of change: a book edited at equal size makes a new store, but no trial is run again."""
        return super().identity() | {"changed": [path.stat().st_mtime_ns for path in self.books()]}

    def texts(self) -> Iterator[list[str]]:
        return blocks(self._documents())

    def _documents(self) -> Iterator[str]:
        left = self.words
        for path in self.books():
            words = [word for line in text_lines(path) if (word := line.strip())][:left]
            yield " ".join(words)
            if left is not None:
                left -= len(words)
                if left == 0:
                    return

    def _chosen(self, metadata: str) -> set[int]:
        path = expand_home(metadata)
        if not path.is_file():
            raise InputError(f"data.metadata: {path} is not a file; give the corpus's metadata.csv")
        numbers = set()
        line = 1
        try:
            rows = csv.DictReader(text_lines(path))
            missing = {"id", "language", "type"} - set(rows.fieldnames or ())
            if missing:
                raise InputError(f"data.metadata: {path} has no column {', '.join(sorted(missing))}; give metadata.csv")
            for row in rows:
                line = rows.line_num
                number = row["id"].removeprefix("PG")
                if number.isdigit() and self._wanted(row):
                    numbers.add(int(number))
        except (csv.Error, ValueError, SyntaxError, AttributeError, TypeError):  # of a torn row
            raise InputError(
                f"data.metadata: {path}, line {line} is not a row with id, language and type; mend it"
            ) from None
        return numbers

    def _wanted(self, row: dict[str, str]) -> bool:
        return self.type in (None, row["type"]) and (
            self.language is None or _codes(row["language"]) == [self.language]
        )


def _codes(cell: str) -> list[str]:
    """Return the language codes of a cell: `['en']`, as the table writes it, or a bare `en`."""
    return list(ast.literal_eval(cell)) if cell.startswith("[") else [cell]
