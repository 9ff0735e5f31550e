"""The jobs of a sweep as Tune asks for them: one at a time, in order."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher


class Queue(Searcher):  # type: ignore[misc]
    """Hands over a trial's config when Tune has room for it.

    A grid search would copy the whole list of jobs for every trial, which makes each dearer the more there are.

    Args:
        configs: of the trials, in the order in which they shall start.
    """

    def __init__(self, configs: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._configs = deque(configs)

    def suggest(self, trial_id: str) -> Any:
        """The next config; FINISHED when there is none."""
        return self._configs.popleft() if self._configs else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learned from a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: what is left to do is in the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""
