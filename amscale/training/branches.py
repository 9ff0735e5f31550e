"""Leave the state of a run to the trials that branch off it: those of less data that share its stable phase.

Each gets a checkpoint of its own, and the records up to there, in its own folder. From then on it depends on nothing
else: it goes on from its newest checkpoint as any trial does.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from amscale.files import write_atomically
from amscale.training import checkpoint
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.checkpoint import Progress
from amscale.training.metrics_writer import MetricsWriter
from amscale.trials.metrics import MetricsRecord, ProbeRecord
from amscale.trials.records import TrialSpec
from amscale.trials.trial_store import TrialStore


class Branches:
    """The trials that branch off a run, as all of its ranks see them.

    Args:
        books: of the ranks.
        engine: DeepSpeed's.
        store: of the trial that runs.
        spec: its spec, which names the branches.
        store_of: gives the store of another trial of the sweep on this machine, for its checkpoints and records.
        keep: checkpoints that a trial keeps.
        of_tokens: tags of probes that are about D, which a branch has another of.
    """

    def __init__(
        self,
        books: Bookkeeping,
        engine: Any,
        store: TrialStore,
        spec: TrialSpec,
        store_of: Callable[[str], TrialStore],
        keep: int,
        of_tokens: Sequence[str] = (),
    ) -> None:
        self._books, self._engine, self._store, self._spec = books, engine, store, spec
        self._store_of, self._keep, self._of_tokens = store_of, keep, frozenset(of_tokens)

    def has(self, step: int) -> bool:
        """Return whether any trial branches off after a step."""
        return any(branch.step == step for branch in self._spec.branches)

    def leave(self, progress: Progress, records: MetricsWriter | None) -> None:
        """Give the trials that branch off after this step what they go on from; all ranks must call together.

        A trial that has begun by itself, or has a state already, is left alone.

        Args:
            progress: of this run.
            records: its writer on rank 0.

        Raises:
            AttemptReplaced: a newer attempt of this run has begun.
            StorageError: the disk is full, read-only or the like.
        """
        for branch in self._spec.branches:
            if branch.step == progress.step:
                self._leave(branch.label, progress, records)

    def _leave(self, label: str, progress: Progress, records: MetricsWriter | None) -> None:
        store = self._store_of(label)
        if not self._books.gather(store.can_branch() if self._books.is_first else None)[0]:
            return
        if records:
            records.flush()
            store.path.mkdir(parents=True, exist_ok=True)
            write_atomically(store.metrics, self._records(progress.step))
        origin = {
            "trial": self._spec.trial,
            "label": self._spec.label,
            "step": progress.step,
            "tokens": progress.tokens,
            "device_seconds": progress.device_seconds * self._books.world,
        }
        checkpoint.save(
            self._books, self._engine, store, replace(progress, branch=origin), self._keep, writer=self._store
        )
        if not store.is_shared and self._books.is_first_of_machine:
            shutil.rmtree(store.path, ignore_errors=True)

    def _records(self, step: int) -> str:
        """Return the records up to a step as the branch would have written them."""
        lines = []
        for record in self._store.read_metrics(MetricsRecord):
            if record.step > step:
                break
            tree = record.model_dump(exclude_unset=True)
            if isinstance(record, ProbeRecord) and (left := self._of_tokens & set(record.values)):
                tree["values"] = {tag: value for tag, value in record.values.items() if tag not in left}
                reason = f"measured in {self._spec.label}, whose D is another"
                tree["reasons"] = record.reasons | dict.fromkeys(sorted(left), reason)
            lines.append(json.dumps(tree) + "\n")
        return "".join(lines)
