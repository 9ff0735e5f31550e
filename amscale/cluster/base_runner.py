"""What the runners of a trial and of a pack share: their machines, their reports, and the reasons of their failures."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from amscale.trials.attempt import Diagnosis
from amscale.trials.metrics import MetricsTail
from amscale.trials.records import Placement
from amscale.trials.storage_errors import OutOfReach, StorageError
from amscale.trials.trial_store import TrialStore

POLL_SECONDS = 0.2
REPORT_SECONDS = 1.0
FIRST_RECORD_SECONDS = 300.0
"""How much longer than between records ranks may take to the first one: imports, and extensions compiled."""


class TrialFailed(RuntimeError):
    """A trial's processes ended, or stopped answering, without a result."""


class MachineLost(RuntimeError):
    """A machine of the trial does not answer; the message is the reason."""


class Machines(Protocol):
    """The machines of one trial, in order.

    Every method but `stop` and `release` raises MachineLost where a machine does not answer, and StorageError where a
    machine finds that storage does not serve.
    """

    def reserve(self, placement: Placement) -> None:
        """Get hold of every machine of the trial."""

    def start(self, placement: Placement, attempt: str) -> None:
        """Let every machine join the attempt and start its ranks."""

    def poll(self) -> list[int | None]:
        """Return the exit status of each machine's launcher, None while it runs."""

    def diagnose(self) -> list[Diagnosis]:
        """Return what each machine knows of why the attempt ended."""

    def remark(self) -> str | None:
        """Return what the trial's user should know of how the ranks were started, or None."""

    def stop(self) -> None:
        """End the ranks on every machine; they may be started again.

        Raises:
            MachineLost: a machine does not answer.
        """

    def release(self) -> None:
        """End the ranks on every machine that answers, for good."""


@dataclass(frozen=True)
class Report:
    """What is new of a trial."""

    latest: dict[str, Any]
    """Its newest numbers: `state`, and `step`, `loss`, `tokens`, `seconds`, `validation_loss` and `checkpoint` (the
    step of the newest) where they are known."""
    done: bool = False
    """Whether the trial has ended, by its result or by a `failure` that another attempt would only repeat."""
    failure: str | None = None
    note: str | None = None
    """Something that the trial's user should know."""


def newest_numbers(store: TrialStore, metrics: MetricsTail) -> dict[str, Any]:
    """Return the newest numbers of a trial on this machine, with the step of its newest checkpoint."""
    checkpoints = store.local_checkpoints()
    reached = {"checkpoint": int(checkpoints[-1].name.removeprefix("step_"))} if checkpoints else {}
    return {**metrics.latest, **reached}


class Runner(ABC):
    """Begins attempts on machines, asks the machines, and keeps the reason of every failure."""

    subject: ClassVar[str]
    """What runs, in words."""
    placement: Placement
    machines: Machines
    _storage_failure: str = ""
    """Why storage does not serve; the next step reports it."""

    @abstractmethod
    def done(self) -> bool:
        """Return whether every trial has its result."""

    @abstractmethod
    def _unfinished(self) -> Sequence[TrialStore]:
        """Return the stores of the trials that a failure concerns."""

    @abstractmethod
    def _open(self) -> None:
        """Open what has to be read before the first attempt.

        Raises:
            StorageError: storage does not serve.
        """

    @abstractmethod
    def _begin_attempt(self) -> None:
        """Begin an attempt on the machines.

        Raises:
            StorageError: storage does not serve.
            MachineLost: a machine was lost.
        """

    def start(self) -> None:
        """Begin the first attempt, unless there is nothing left to do.

        Raises:
            TrialFailed: a machine was lost or the store is out of reach; another attempt may do better.
        """
        with self._starting():
            self._open()
            if not self.done():
                self.machines.reserve(self.placement)
                self._begin_attempt()

    def _begin_next_attempt(self) -> None:
        """Go on from the newest checkpoint on the same machines."""
        self._ask(self.machines.stop)
        with self._starting():
            self._begin_attempt()

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Let the next step report that storage does not serve.

        Raises:
            TrialFailed: the store was out of reach or a machine was lost, and another attempt may do better.
        """
        try:
            yield
        except OutOfReach as error:
            raise self._failed(str(error)) from None
        except StorageError as error:
            self._storage_failure = str(error)
        except MachineLost as error:
            raise self._failed(f"{error} while the {self.subject} started") from None

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Return the machines' answers.

        Raises:
            TrialFailed: a machine does not answer.
        """
        try:
            return question()
        except (MachineLost, StorageError) as error:
            raise self._failed(str(error)) from None

    def _failed(self, reason: str) -> TrialFailed:
        self._record(reason)
        return TrialFailed(reason)

    def _record(self, reason: str) -> None:
        for store in self._unfinished():
            with suppress(OSError):  # where the disk is full, the driver still gets the reason
                store.add_failure(reason)
            store.push_last_records()
