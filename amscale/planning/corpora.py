"""The corpora of a grid, as a plan needs them: their tokens, or what is known of them without."""

from pathlib import Path
from typing import Any

from amscale.data import (
    Corpus,
    TokenStatistics,
    TokenStore,
    corpus_content,
    describe_sample,
    predict_statistics,
    prepare,
    statistics_without_tokens,
    store_name,
)
from amscale.errors import InputError


class Corpora:
    """The corpora of a grid, each looked at once: a grid has many cells of one corpus.

    Args:
        folder: of the token stores.
        build: whether to build stores that are not there yet even where a plan can do without.
    """

    def __init__(self, folder: Path, build: bool) -> None:
        self._folder, self._build = folder, build
        self._stores: dict[Corpus, TokenStore | None] = {}
        self._contents: dict[Corpus, dict[str, Any]] = {}
        self._facts: dict[Corpus, TokenStatistics] = {}
        self._texts: dict[str, None] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """A sentence on each text that was looked at."""
        return tuple(self._texts)

    def tokens(self, settings: Corpus) -> TokenStore | TokenStatistics:
        """Return the token store, or what is known of the corpus without one where that is enough."""
        if not settings.has_tokens:
            return statistics_without_tokens(settings)
        corpus = _whole(settings)
        # A D that is given needs no tokens; a later cell may want all that there are.
        if corpus not in self._stores or (self._stores[corpus] is None and settings.size is None):
            store = self._stores[corpus] = self._store(settings)
            if text := describe_sample(settings) if store is None else store.describe_text():
                self._texts[text] = None
        return self._stores[corpus] or self._known(settings)

    def content(self, settings: Corpus) -> dict[str, Any]:
        """Return what identifies the content of the corpus's files; empty in the plan of a corpus that is not here."""
        corpus = _whole(settings)
        if corpus not in self._contents:
            try:
                self._contents[corpus] = corpus_content(settings)
            except InputError as error:
                self._contents[corpus] = {}
                self._texts[f"The text is not here, and is planned by what is known without it: {error}."] = None
        return self._contents[corpus]

    def _store(self, settings: Corpus) -> TokenStore | None:
        """Return the corpus's store; None where a plan needs none."""
        optional = not self._build and settings.size is not None and not self._is_prepared(settings)
        return None if optional and predict_statistics(settings) is not None else prepare(settings, self._folder)

    def _known(self, settings: Corpus) -> TokenStatistics:
        unsized = settings.model_copy(update={"size": None})
        if unsized not in self._facts:
            found = predict_statistics(unsized)
            assert found is not None
            self._facts[unsized] = found
        return self._facts[unsized]

    def _is_prepared(self, settings: Corpus) -> bool:
        try:
            return (self._folder / store_name(settings)).is_dir()
        except InputError:  # the corpus itself is not here, so nothing can have been made of it here
            return False


def _whole(settings: Corpus) -> Corpus:
    """Return the settings that one token store serves: how much of it is used, and how it is cut, left out."""
    return settings.model_copy(update={"size": None, "packing": "document", "context": None})
