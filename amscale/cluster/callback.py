"""Tune's callbacks, turned into a listener's words."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import cloudpickle as pickle
from ray import tune
from ray.exceptions import RayActorError

from amscale.cluster.listener import Listener
from amscale.storage import TrialPlace


class Callback(tune.Callback):  # type: ignore[misc]
    """Tells a listener what Tune does."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reasons: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its settings for a restore that amscale never asks for; a listener is not among them."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listener.started(_label(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "failure" in result:
            self._reasons[_label(trial)] = result["failure"]
            return
        self._listener.progress(_label(trial), result)
        if "note" in result:
            self._listener.noted(_label(trial), result["note"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # A failure that another start would only repeat is reported as an end, since Tune would start the trial again.
        if trial.last_result.get("failed"):
            self._listener.failed(_label(trial), trial.last_result["failed"], again=False)
        else:
            self._listener.ended(_label(trial))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=False)

    def _failed(self, trial: Any, again: bool) -> None:
        reason = self._reasons.pop(_label(trial), None)
        if reason is None:  # the actor ended before it could say anything
            reason = _found(trial)
        self._listener.failed(_label(trial), reason, again)


def _found(trial: Any) -> str:
    """Why a trial's actor ended without a word: from Ray's error, and the last lines of the trial's log.

    Recorded in the trial's folder, where this machine has it.
    """
    path = trial.pickled_error_file  # `get_error` would read a copy that Tune makes later
    error = pickle.loads(Path(path).read_bytes()) if path and Path(path).is_file() else None
    if error is None or isinstance(error, RayActorError):
        reason = "the trial's actor was lost: it was killed, or its machine was lost or cut off"
    else:
        reason = str(error).strip().splitlines()[-1]
    folder = TrialPlace(**trial.config["job"]["place"]).folder(0)
    with suppress(OSError):
        reason = f"{reason}\n{folder.reason()}".strip()
        if folder.path.is_dir():
            folder.add_failure(reason)
    return reason


def _label(trial: Any) -> str:
    return str(trial.config["job"]["label"])
