"""Lines on stderr about a build that takes long; a short one says nothing."""

import sys
import threading
import time

from amscale.settings import format_size

_EVERY = 10.0
"""Seconds between two lines."""


class News:
    """What a build is at, said every ten seconds from a thread of its own while the context lasts."""

    def __init__(self, corpus: str) -> None:
        self._corpus = corpus
        self._doing = ""
        self._counts = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "News":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def turn_to(self, doing: str) -> None:
        """Say what is done from now on."""
        self._doing, self._counts = doing, ""
        self._start: tuple[float, int] | None = None

    def count(self, documents: int, tokens: int) -> None:
        """Say how far it has come. Speed counts from the first call: a build may go on with what it finds."""
        now = time.monotonic()
        self._start = self._start or (now, tokens)
        seconds, made = now - self._start[0], tokens - self._start[1]
        speed = f", {format_size(made / seconds)} tokens a second" if seconds else ""
        self._counts = f": {format_size(documents)} documents, {format_size(tokens)} tokens{speed}"

    def _tell(self) -> None:
        while not self._done.wait(_EVERY):
            print(f"{self._corpus}: {self._doing}{self._counts}", file=sys.stderr, flush=True)
