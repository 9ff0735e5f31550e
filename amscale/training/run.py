"""Run one trial on one rank: from its spec, or a configuration that names one cell, to its result."""

import math
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from amscale import config, models
from amscale.cluster.cards import utilisation
from amscale.config import Experiment, validating
from amscale.config.validating import EARLIER_TOKENS
from amscale.data import Batches, Sequences, Subset, TokenStore, open_store
from amscale.errors import EXIT_PREEMPTED, InputError, one_line
from amscale.files import write_atomically
from amscale.models import Shape
from amscale.planning.placement import check_supported
from amscale.planning.plan import StepPlan, plan_steps
from amscale.probes.interface import Probe
from amscale.probes.registry import build_probes
from amscale.training import checkpoint, compiling, engine
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.branches import Branches
from amscale.training.checkpoint import Progress
from amscale.training.engine import EngineFacts
from amscale.training.loop import Run, train
from amscale.training.loss import Evaluation
from amscale.training.metrics_writer import MetricsWriter
from amscale.training.peak_memory import PeakMemory
from amscale.training.result import make_result
from amscale.trials.attempt import attempt_of_environment
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement, ResultLosses
from amscale.trials.trial_store import TrialStore


class GracefulShutdown:
    """Lets the ranks write a checkpoint together and end, once any of them gets SIGTERM or SIGUSR1.

    Args:
        accelerator: of this rank; the ranks agree through it.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._received = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def requested(self) -> bool:
        """Return whether any rank got a signal: all ranks must ask together, and all get the same answer."""
        if self._accelerator.num_processes == 1:
            return self._received
        received = torch.tensor([float(self._received)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(received, reduction="sum") > 0)


# Besides torch.OutOfMemoryError, an allocation that fails raises these: torch's CPU allocator, CUDA outside of torch's
# caching allocator (NCCL's buffers), and cuBLAS's workspace.
_MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that this process's memory or its device's did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


_COMPILER = re.compile("Ninja is required|Error building extension|Unable to find (nvcc|a C)|CUDA_HOME .* not set")


def refusal(error: BaseException) -> str | None:
    """Return, in one line, why no other attempt would do better after an exception; None where one might."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ImportError):
        return one_line(f"{error}; install what is missing in the environment of every machine", most=300)
    if isinstance(error, RuntimeError) and _COMPILER.search(str(error)):
        return one_line(f"a compiler is missing ({error}); install it on every machine", most=300)
    return None


def report_out_of_memory(store: TrialStore, error: BaseException) -> None:
    """Leave the marker by which the trial's runner knows that a smaller micro-batch may help.

    Raises:
        AttemptReplaced: a newer attempt has begun.
    """
    store.check_attempt()
    lines = str(error).strip().splitlines() or [type(error).__name__]
    write_atomically(store.out_of_memory_marker, lines[0] + "\n")


_WAIT_SECONDS = 600.0


def resolve(spec: str, overrides: list[str]) -> tuple[TrialStore, Experiment, Placement, TokenStore | None]:
    """Return the trial's store on this machine, settings, placement and tokens (None where its script reads data).

    Raises:
        InputError: a spec of another version, or a configuration that names several cells.
    """
    path = Path(spec)
    if path.name == "spec.yaml":
        if overrides:
            raise InputError(f"{overrides[0]!r}: a spec is complete; overrides go with a configuration")
        return _from_spec(path.parent)
    return _from_spec(_prepare_by_hand(spec, overrides))


def _from_spec(folder: Path) -> tuple[TrialStore, Experiment, Placement, TokenStore | None]:
    spec = TrialStore(folder).read_spec()
    cell = config.parse(spec.settings)
    machine, first_here = _machine()
    location = TrialLocation(cell.storage, cell.launch.scratch, cell.name, spec.label, cell.launch.visible_after)
    store = location.store(machine, spec.placement.machines, attempt=attempt_of_environment(), path=folder)
    tokens = _open_tokens(store, spec.store) if cell.data.has_tokens else None
    if first_here and not store.attempt:
        store.resume_records()
    return store, cell, spec.placement, tokens


def _open_tokens(store: TrialStore, path: str) -> TokenStore:
    # Of the path of the token store its name counts: a spec cannot point out of its storage, and results may be moved.
    name = Path(path).name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"{store.spec}: store={path!r} names no token store")
    return open_store(store.token_store(name))


def _machine() -> tuple[int, bool]:
    """Return the index of this rank's machine, and whether the rank is the first of that machine."""
    rank, ranks_here = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return rank // ranks_here, rank % ranks_here == 0


def _prepare_by_hand(path: str, overrides: list[str]) -> Path:
    """Make the trial's folder on this machine as a sweep would; return it.

    One rank writes it and the others wait: rank 0, and the first of every machine that has its own folder.
    """
    from amscale.planning.single_trial import plan_single_trial

    trial = plan_single_trial(path, overrides)
    machine, first_here = _machine()
    store = trial.sweep.location(trial.plan.label).store(machine)
    if first_here and store.writes_checkpoints:
        trial.write(store)
        if machine == 0:
            trial.sweep.push_trials({trial.plan.label: store}, [trial.tokens.folder] if trial.tokens else [])
        return store.path
    deadline = time.monotonic() + _WAIT_SECONDS
    while not store.spec.is_file():
        if time.monotonic() > deadline:
            raise InputError(
                f"{store.spec}: not written by rank 0 within {_WAIT_SECONDS:.0f} s; give storage a folder that all "
                "machines share, or a URI such as s3://bucket/prefix"
            )
        time.sleep(0.1)
    return store.path


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
    subset = tokens.training(cell.data.size, cell.data.packing, cell.data.copies)
    steps = plan_steps(cell, tokens, subset)
    shape = models.solve(cell.model, tokens.vocabulary_size, steps.context)
    torch.manual_seed(cell.seed)
    model = models.build(shape)
    peak_memory = PeakMemory(accelerator, model)
    prepared, optimizer = engine.prepare(accelerator, model, cell.train, placement.micro_batch)
    facts = engine.check(accelerator, prepared, placement, cell.train)
    progress = _restored_progress(books, prepared, store, facts)
    _compile(accelerator, cell, prepared, shape, steps, placement, progress)
    validation, held_out = validating(cell, steps.steps), tokens.validation(cell.data.packing)
    evaluation = partial(
        _evaluation, context=steps.context, micro_batch=placement.micro_batch, vocabulary=shape.vocabulary
    )
    if cell.train.validation_tokens == "auto" and (progress.validation_tokens or EARLIER_TOKENS) != validation.tokens:
        progress.validation_least = math.inf  # of an earlier version's sample, to which this one's is not compared
    progress.validation_tokens = validation.tokens
    records = None
    probes = build_probes(cell.probes)
    if accelerator.is_main_process:
        charts = [chart for probe in probes for chart in probe.charts]
        measure = utilisation(models.flops_per_token(shape), facts.world_size, facts.device, facts.precision)
        records = MetricsWriter(store, progress.step, tokens.entropy_per_token, charts, measure)
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
        validation=evaluation(held_out, validation.tokens),
        validate_every=validation.every,
        micro_batch=placement.micro_batch,
        accumulation=placement.accumulation,
        probe=_probe(cell, probes, prepared, shape, subset, tokens, placement.micro_batch, accelerator.device),
        probe_every=cell.probes.every,
        store=store,
        checkpoint_every=cell.launch.checkpoint_every,
        keep_checkpoints=cell.launch.keep_checkpoints,
        records=records,
        measures_grace=cell.launch.grace == "auto",
        preemption_requested=GracefulShutdown(accelerator).requested,
        branches=_branches(books, prepared, store, cell, placement, probes),
    )
    outcome = train(run, progress)
    if outcome.state == "preempted":
        if records:
            records.close()
            store.preempted.touch()
        accelerator.end_training()
        _say(accelerator, f"preempted at step {progress.step}: a checkpoint is written, and the trial can go on")
        return EXIT_PREEMPTED
    train_evaluated = whole = None
    if outcome.state == "finished":
        train_evaluated = evaluation(subset, validation.tokens).loss(accelerator, prepared)
        last = evaluation(held_out, validation.last_tokens)
        whole = last.measure(accelerator, prepared) if last.count > run.validation.count else None
    shards = _shards(accelerator, optimizer)
    store.check_attempt()
    _save_weights(accelerator, prepared, store.weights)
    if accelerator.is_local_main_process and not accelerator.is_main_process:
        store.push_records()
    books.wait()
    memory = peak_memory.record()
    if records:
        records.flush()
        result = make_result(
            store,
            cell,
            shape,
            tokens,
            subset,
            progress,
            outcome,
            facts,
            shards,
            memory,
            train_evaluated,
            whole,
            wall_seconds=time.time() - began,
        )
        records.hyper_parameters(_hyper_parameters(cell, shape, subset), _finite(result.losses))
        records.close()
        store.publish(result)
    if accelerator.is_local_main_process:
        store.remove_checkpoints()
    books.wait()
    accelerator.end_training()
    _say(accelerator, f"{outcome.state} at step {progress.step}{f': {outcome.reason}' if outcome.reason else ''}")
    return 0


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


def _compile(
    accelerator: Accelerator,
    cell: Experiment,
    prepared: Any,
    shape: Shape,
    steps: StepPlan,
    placement: Placement,
    progress: Progress,
) -> None:
    """Compile the network where the settings, or else the length of the run, say so."""
    flops = models.flops_per_token(shape) * steps.steps * steps.sequences * steps.mean_tokens
    card = torch.cuda.get_device_name(accelerator.device) if placement.device == "cuda" else ""
    before = progress.compiled if progress.step else None
    choice = compiling.choose(cell.train.compile, before, flops, placement, card)
    progress.compiled = choice.compiled
    if choice.compiled:
        compiling.compile_network(prepared.module, placement, suppress=cell.train.compile == "auto")
    _say(accelerator, f"{'compiled' if choice.compiled else 'not compiled'}: {choice.reason}")


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


def _evaluation(part: Subset, tokens: int, context: int, micro_batch: int, vocabulary: int) -> Evaluation:
    """Return the evaluation on the first sequences of a part of the corpus, of about so many tokens."""
    sequences = Sequences(part, context)
    count = math.ceil(tokens / sequences.mean_targets_per_sequence)
    return Evaluation(sequences, min(count, sequences.sequences_total), micro_batch, vocabulary)


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
