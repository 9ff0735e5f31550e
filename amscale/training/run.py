"""Run one trial on one rank, from its newest checkpoint to its result."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from amscale import models
from amscale.cluster.cards import utilisation
from amscale.config import Experiment, validating
from amscale.config.validating import EARLIER_TOKENS, Validating
from amscale.data import Batches, Sequences, Subset, TokenStore
from amscale.errors import EXIT_PREEMPTED, InputError
from amscale.models import Shape
from amscale.planning.placement import check_supported
from amscale.planning.trial_plan import plan_steps
from amscale.probes.interface import Probe
from amscale.probes.registry import build_probes
from amscale.training import checkpoint, compiling, engine
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.branches import Branches
from amscale.training.checkpoint import Progress
from amscale.training.electricity import SHARED, Electricity, uuid_of
from amscale.training.engine import EngineFacts
from amscale.training.loop import LoopOutcome, Run, train
from amscale.training.loss import Evaluation
from amscale.training.metrics_writer import MetricsWriter
from amscale.training.peak_memory import PeakMemory
from amscale.training.report_to import outcome_of, report_to
from amscale.training.result import make_result
from amscale.training.shutdown import GracefulShutdown
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement, ResultElectricity, ResultLosses, ResultMemory, ResultPacked
from amscale.trials.trial_store import TrialStore


def run_trial(store: TrialStore, cell: Experiment, placement: Placement, tokens: TokenStore | None) -> int:
    """Train from the newest whole checkpoint on, and leave weights and `result.json` in the trial's store.

    Returns:
        0 with a result; EXIT_PREEMPTED after a checkpoint, when the run was asked to end.

    Raises:
        EngineError: DeepSpeed does not run as the placement says.
        AttemptReplaced: a newer attempt of the trial has begun.
    """
    if tokens is None:
        raise InputError(f"data.corpus={cell.data.corpus} has no tokens; give train.script, or another corpus")
    began = time.time()
    check_supported(placement)
    torch.set_num_threads(placement.cpus_per_process)
    accelerator = engine.start_accelerator(placement, cell.launch.collective_timeout)
    books = Bookkeeping(cell.launch.files_timeout)
    requested = GracefulShutdown(accelerator).requested
    trial = OpenTrial.begin(accelerator, books, store, cell, placement, tokens, requested, began)
    trial.compile(placement)
    outcome = train(trial.run, trial.progress)
    status = trial.end(outcome)
    accelerator.end_training()
    trial.say(outcome)
    return status


@dataclass(frozen=True)
class OpenTrial:
    """A trial of which this process is a rank: everything that its steps need, and what its result is made of."""

    cell: Experiment
    tokens: TokenStore
    subset: Subset
    shape: Shape
    facts: EngineFacts
    run: Run
    progress: Progress
    validation: Validating
    memory: PeakMemory
    began: float
    """Seconds since the epoch."""

    @classmethod
    def begin(
        cls,
        accelerator: Accelerator,
        books: Bookkeeping,
        store: TrialStore,
        cell: Experiment,
        placement: Placement,
        tokens: TokenStore,
        preemption_requested: Callable[[], bool],
        began: float,
    ) -> "OpenTrial":
        """Make the model and its engine, and load the newest whole checkpoint.

        Raises:
            EngineError: DeepSpeed does not run as the placement says.
            AttemptReplaced: a newer attempt of the trial has begun.
        """
        subset = tokens.training(cell.data.size, cell.data.packing, cell.data.copies)
        steps = plan_steps(cell, tokens, subset)
        shape = models.solve(cell.model, tokens.vocabulary_size, steps.context)
        torch.manual_seed(cell.seed)
        model = models.build(shape)
        memory = PeakMemory(accelerator, model)
        prepared, optimizer = engine.prepare(accelerator, model, cell.train, placement.micro_batch)
        facts = engine.check(accelerator, prepared, placement, cell.train)
        progress = _restored_progress(books, prepared, store, facts)
        validation = validating(cell, steps.steps)
        sample = progress.validation_tokens or EARLIER_TOKENS
        if cell.train.validation_tokens == "auto" and sample != validation.tokens:
            progress.validation_least = math.inf  # of an earlier version's sample, to which this one's is not compared
        progress.validation_tokens = validation.tokens
        records = None
        probes = build_probes(cell.probes)
        if accelerator.is_main_process:
            charts = [chart for probe in probes for chart in probe.charts]
            measure = utilisation(models.flops_per_token(shape), facts.world_size, facts.device, facts.precision)
            reporting = report_to(cell, store, shape, subset.unique_tokens, progress.step)
            most = cell.probes.histogram_layers
            records = MetricsWriter(store, progress.step, charts, shape.layers, most, measure, reporting)
        if cell.launch.grace != "auto":
            store.grace_file.unlink(missing_ok=True)
        run = Run(
            accelerator=accelerator,
            books=books,
            engine=prepared,
            optimizer=optimizer,
            settings=cell.train,
            steps=steps.steps,
            seed=cell.seed,
            batches=Batches(subset, steps.context, steps.sequences, cell.seed, cell.block_growth),
            validation=_evaluation(
                tokens.validation(cell.data.packing), validation.tokens, validation.spaced, shape, placement.micro_batch
            ),
            validate_every=validation.every,
            micro_batch=placement.micro_batch,
            accumulation=placement.accumulation,
            probe=_probe(cell, probes, prepared, shape, subset, tokens, placement.micro_batch, accelerator.device),
            probe_every=cell.probes.planned_every,
            store=store,
            checkpoint_every=cell.launch.checkpoint_every,
            keep_checkpoints=cell.launch.keep_checkpoints,
            records=records,
            measures_grace=cell.launch.grace == "auto",
            preemption_requested=preemption_requested,
            branches=_branches(books, prepared, store, cell, placement, probes),
            electricity=Electricity(books, uuid_of(accelerator.device)),
        )
        return cls(cell, tokens, subset, shape, facts, run, progress, validation, memory, began)

    def compile(self, placement: Placement) -> None:
        """Compile the network where the settings, or else the length of the run, say so."""
        run, accelerator = self.run, self.run.accelerator
        tokens = run.steps * run.batches.sequences * run.batches.mean_targets_per_sequence
        card = torch.cuda.get_device_name(accelerator.device) if placement.device == "cuda" else ""
        before = self.progress.compiled if self.progress.step else None
        setting = self.cell.train.compile
        choice = compiling.choose(setting, before, models.flops_per_token(self.shape) * tokens, placement, card)
        self.progress.compiled = choice.compiled
        if choice.compiled:
            compiling.compile_network(run.engine.module, placement, suppress=setting == "auto")
        _say(accelerator, f"{'compiled' if choice.compiled else 'not compiled'}: {choice.reason}")

    def end(self, outcome: LoopOutcome, packed: ResultPacked | None = None) -> int:
        """Leave weights and result, or the mark of a trial that was preempted; return the exit status.

        Args:
            outcome: how the loop ended.
            packed: the trials that this process trained with it, where it did.
        """
        run, accelerator, prepared, store = self.run, self.run.accelerator, self.run.engine, self.run.store
        records, books = run.records, run.books
        if outcome.state == "preempted":
            if records:
                records.close()
                store.preempted.touch()
                records.finish_reports(None)
            return EXIT_PREEMPTED
        train_evaluated = whole = None
        if outcome.state == "finished":
            validation = self.validation
            part = _evaluation(self.subset, validation.tokens, validation.spaced, self.shape, run.micro_batch)
            train_evaluated = part.loss(accelerator, prepared)
            held_out = self.tokens.validation(self.cell.data.packing)
            last = _evaluation(held_out, validation.last_tokens, validation.spaced, self.shape, run.micro_batch)
            whole = last.measure(accelerator, prepared) if last.count > run.validation.count else None
        shards = _shards(accelerator, run.optimizer)
        store.check_attempt()
        _save_weights(accelerator, prepared, store.weights)
        if accelerator.is_local_main_process and not accelerator.is_main_process:
            store.push_records()
        books.wait()
        # The peaks of a process that trains several trials are those of none of them.
        memory = ResultMemory() if packed else self.memory.record()
        if run.electricity:
            run.electricity.settle(self.progress)
        if records:
            records.flush()
            result = make_result(
                store,
                self.cell,
                self.shape,
                self.tokens,
                self.subset,
                self.progress,
                outcome,
                self.facts,
                shards,
                memory,
                train_evaluated,
                whole,
                wall_seconds=time.time() - self.began,
            )
            if packed:
                update = {"packed": packed, "electricity": ResultElectricity(reasons=SHARED)}
                result = result.model_copy(update=update)
            records.hyper_parameters(_hyper_parameters(self.cell, self.shape, self.subset), _finite(result.losses))
            records.close()
            store.publish(result)
            records.finish_reports(outcome_of(result))
        if accelerator.is_local_main_process:
            store.remove_checkpoints()
        books.wait()
        return 0

    def say(self, outcome: LoopOutcome, whose: str = "") -> None:
        """Write how the trial ended into its process's log, from rank 0, behind the words `whose`."""
        step, accelerator = self.progress.step, self.run.accelerator
        if outcome.state == "preempted":
            _say(accelerator, f"{whose}preempted at step {step}: a checkpoint is written, and the trial can go on")
        else:
            reason = f": {outcome.reason}" if outcome.reason else ""
            _say(accelerator, f"{whose}{outcome.state} at step {step}{reason}")


def _say(accelerator: Accelerator, line: str) -> None:
    """Write one line into the trial's log, from rank 0."""
    if accelerator.is_main_process:
        with suppress(OSError):  # the log is on a disk that may be full
            print(line, file=sys.stderr, flush=True)


def _restored_progress(books: Bookkeeping, prepared: Any, store: TrialStore, facts: EngineFacts) -> Progress:
    """Load the newest whole checkpoint into the engine and return its progress; without one, that of a new run."""
    newest = checkpoint.newest_whole(books, store)
    written = facts.to_dict() | {"model": engine.tensors(prepared)}
    if newest is None:
        return Progress(engine=written)
    progress = checkpoint.restore(prepared, newest, written)
    books.wait()
    return progress


def _branches(
    books: Bookkeeping, prepared: Any, store: TrialStore, cell: Experiment, placement: Placement, probes: list[Probe]
) -> Branches:
    """Return the trials that branch off this one, by its spec."""

    def store_of(label: str) -> TrialStore:
        location = TrialLocation(cell.storage, cell.launch.scratch, cell.name, label, cell.launch.visible_after)
        # Where each machine has a folder of its own, the branch's may be in use by a run of it on this machine.
        path = store.path.parent / label if store.is_shared else store.path.with_name(f"{store.path.name}-{label}")
        return location.store(store.machine, placement.machines, path=path)

    of_tokens = [tag for probe in probes for tag in probe.of_tokens]
    return Branches(books, prepared, store, store.read_spec(), store_of, cell.launch.keep_checkpoints, of_tokens)


def _evaluation(part: Subset, tokens: int, spaced: bool, shape: Shape, micro_batch: int) -> Evaluation:
    """Return the evaluation on sequences of a part of the corpus, of about so many tokens: the first, or spaced."""
    sequences = Sequences(part, shape.context)
    count = math.ceil(tokens / sequences.mean_targets_per_sequence)
    return Evaluation(sequences, min(count, sequences.sequences_total), micro_batch, shape.vocabulary, spaced)


def _probe(
    cell: Experiment,
    probes: Sequence[Probe],
    prepared: Any,
    shape: Shape,
    subset: Subset,
    tokens: TokenStore,
    micro_batch: int,
    device: torch.device,
) -> Any:
    """Return the measurement of the fixed probe sequences, or None where `probes.sequences` is 0."""
    from amscale.probes.interface import CorpusFacts, ProbeContext
    from amscale.probes.patterns import ProbeBatch
    from amscale.probes.suite import ProbeSuite

    if not cell.probes.sequences:
        return None

    def chosen(part: Subset) -> ProbeBatch:
        sequences = Sequences(part, shape.context)
        first = range(min(cell.probes.sequences, sequences.sequences_total))
        inputs, targets = sequences.batch(np.array(first))
        return ProbeBatch.of_batch(torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device))

    context = ProbeContext(
        model=prepared,
        layers=models.residual_names(prepared.module),
        stored=chosen(subset),
        queries=chosen(tokens.validation(cell.data.packing)),
        attention=models.attention_names(prepared.module),
        pattern=cell.probes.pattern,
        micro_batch=micro_batch,
        corpus=CorpusFacts(tokens.entropy_per_token, subset.unique_tokens, shape.parameters.total),
    )
    return ProbeSuite(context, probes).measure


def _shards(accelerator: Accelerator, optimizer: Any) -> list[int]:
    """Return the number of elements of AdamW's first moment on each rank."""
    held = torch.tensor([engine.optimizer_elements(optimizer)], device=accelerator.device)
    return [int(count) for count in accelerator.gather(held)]


def _save_weights(accelerator: Accelerator, prepared: Any, path: Path) -> None:
    """Write the whole model as safetensors, under another name first; gather it from the shards under ZeRO-3."""
    from safetensors.torch import save_file

    state = accelerator.get_state_dict(prepared)
    if accelerator.is_main_process:
        beside = path.with_suffix(".partial")
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            here = tensor.detach().cpu().contiguous()
            shared = any(here.data_ptr() == other.data_ptr() for other in tensors.values())
            tensors[name] = here.clone() if shared else here  # the file's format has no two names for one tensor
        save_file(tensors, beside)
        beside.rename(path)


def _hyper_parameters(cell: Experiment, shape: Shape, subset: Subset) -> dict[str, Any]:
    return {
        "N": shape.parameters.under("non_embedding"),
        "D": subset.unique_tokens,
        "seed": cell.seed,
        "family": shape.family,
        "layers": shape.layers,
        "width": shape.width,
        "learning_rate": cell.train.learning_rate,
        "batch_tokens": cell.train.batch_tokens,
    }


def _finite(losses: ResultLosses) -> dict[str, float]:
    return {f"outcome/{k}": v for k, v in losses.to_tree().items() if isinstance(v, float) and math.isfinite(v)}
