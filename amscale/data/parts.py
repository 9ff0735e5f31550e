"""The documents of a corpus as they are tokenised; a document that is alone is cut into parts.

With one document nothing could be held out without holding out all. Its parts are consecutive pieces of about a
hundredth of it, of 100 to 4000 characters, cut at a blank line where there is one, else at a line's end, else at a
blank. Put together again they are the document.
"""

from collections.abc import Iterator
from itertools import chain

from amscale.data.corpus import Corpus
from amscale.data.readers import blocks, unusable
from amscale.errors import InputError

_LEAST, _MOST = 100, 4000
"""Characters of a part."""
_SHARE = 100
"""A document is cut into about so many parts, if these bounds allow it."""


def document_blocks(corpus: Corpus) -> Iterator[tuple[list[str], bool]]:
    """Yield the documents of a corpus in lists, and whether they are parts of the only one that is not empty."""
    texts = _checked(corpus)
    if not corpus.cuts_single_document:
        yield from ((block, False) for block in texts)
        return
    held: list[list[str]] = []
    filled: list[str] = []
    for block in texts:
        held.append(block)
        filled += [text for text in block if not is_empty(text)][: 2 - len(filled)]
        if len(filled) > 1:
            break
    if len(filled) != 1:
        yield from ((block, False) for block in chain(held, texts))
        return
    yield from (([text for text in block if is_empty(text)], False) for block in held)
    yield from ((block, True) for block in blocks(cut_into_parts(filled[0])))


def _checked(corpus: Corpus) -> Iterator[list[str]]:
    """Yield the texts of a corpus; readers name file and row of what is not text, and any other corpus is named here.

    Raises:
        InputError: a document holds what no text file can.
    """
    documents = 0
    for block in corpus.texts():
        for number, text in enumerate(block, documents + 1):
            if reason := unusable(text):
                raise InputError(
                    f"data: document {number} of the {corpus.corpus} corpus holds {reason}; leave it out, or mend it"
                )
        yield block
        documents += len(block)


def is_empty(document: str) -> bool:
    """Return whether a document has nothing but white space; such documents are left out."""
    return not document or document.isspace()


def cut_into_parts(document: str) -> Iterator[str]:
    """Yield consecutive pieces of a document; joined they are the document."""
    most = min(_MOST, max(_LEAST, len(document) // _SHARE))
    start = 0
    while len(document) - start > most:
        stop = start + most
        for separator in ("\n\n", "\n", " "):
            found = document.rfind(separator, start + most // 2, stop)
            if found >= 0:
                stop = found + len(separator)
                break
        yield document[start:stop]
        start = stop
    yield document[start:]
