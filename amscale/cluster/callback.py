"""Tune's callbacks, turned into a listener's words."""

from pathlib import Path
from typing import Any

from ray import tune

from amscale.cluster.listener import Listener
from amscale.ledger import TrialFolder


class Callback(tune.Callback):  # type: ignore[misc]
    """Tells a listener what Tune does."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._failures: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its settings for a restore that amscale never asks for; a listener is not among them."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listener.started(_label(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._listener.progress(_label(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listener.ended(_label(trial))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=False)

    def _failed(self, trial: Any, again: bool) -> None:
        label = _label(trial)
        self._failures[label] = self._failures.get(label, 0) + 1
        recorded = TrialFolder(Path(trial.config["job"]["folder"])).failures()
        # An actor that was killed could record nothing; then Ray's last word has to do.
        if len(recorded) >= self._failures[label]:
            reason = recorded[-1]["reason"]
        else:
            reason = str(trial.get_error() or "its actor was lost").strip().splitlines()[-1]
        self._listener.failed(label, reason, again)


def _label(trial: Any) -> str:
    return str(trial.config["job"]["label"])
