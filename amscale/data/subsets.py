"""Part of a store: documents that lie end to end."""

from dataclasses import dataclass

import numpy as np

from amscale.data.settings import Packing


@dataclass(frozen=True)
class Subset:
    """Some documents of a store, memory-mapped, and how they are to be packed into sequences."""

    tokens: np.ndarray
    """Token ids of the documents end to end [unique_tokens]; each document closes with the end token, unless its
    corpus stores none."""
    offsets: np.ndarray
    """Where each document starts, and where the last one ends, before it is cut [documents + 1]."""
    end_token: int
    packing: Packing
    copies: int = 1
    """How often each sequence stands in one epoch."""

    @property
    def unique_tokens(self) -> int:
        """D: tokens, end tokens counted. A document that the corpus repeats counts each time, `copies` do not."""
        return len(self.tokens)

    @property
    def documents(self) -> int:
        """Documents; under `stream` packing the last one may be cut short."""
        return len(self.offsets) - 1

    def document(self, index: int) -> np.ndarray:
        """Token ids of one document, the end token included unless it was cut off."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]
