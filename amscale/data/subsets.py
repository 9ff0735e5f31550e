"""Part of a store: documents that lie end to end."""

from dataclasses import dataclass

import numpy as np

from amscale.data.settings import Packing


@dataclass(frozen=True)
class Subset:
    """Some documents of a store, memory-mapped, and how they are to be packed into sequences."""

    tokens: np.ndarray
    """Token ids of the documents end to end [unique_tokens]; each document closes with the end token."""
    offsets: np.ndarray
    """Where each document starts, and where the last one ends [documents + 1]."""
    end_token: int
    packing: Packing

    @property
    def unique_tokens(self) -> int:
        """Tokens, end tokens counted, copies of a document each counted."""
        return len(self.tokens)

    @property
    def documents(self) -> int:
        """Documents; under `stream` packing the last one may be cut short."""
        return len(self.offsets) - 1

    def document(self, index: int) -> np.ndarray:
        """Token ids of one document, the end token included unless it was cut off."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]
