"""One trial on one rank, from its spec to its result."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from amscale import models
from amscale.cluster.launcher import Placement
from amscale.config import Experiment
from amscale.data import Batches, Sequences, Subset, TokenStore
from amscale.errors import EXIT_PREEMPTED
from amscale.models import Shape
from amscale.planning.plan import plan_steps
from amscale.probes.probe import Probe
from amscale.probes.registry import build_probes
from amscale.training import checkpoint, engine
from amscale.training.checkpoint import Progress
from amscale.training.engine import EngineFacts
from amscale.training.interruptions import GracefulShutdown
from amscale.training.loop import Run, train
from amscale.training.loss import Evaluation
from amscale.training.metrics import MetricsWriter
from amscale.training.result import make_result
from amscale.trials.records import ResultLosses
from amscale.trials.store import TrialStore


def run_trial(store: TrialStore, cell: Experiment, placement: Placement, tokens: TokenStore) -> int:
    """Train from the newest whole checkpoint on, and leave weights and `result.json` in the trial's store.

    Returns:
        0 with a result; EXIT_PREEMPTED after a checkpoint, when the run was asked to end.

    Raises:
        EngineError: DeepSpeed does not run as the placement says.
        AttemptReplaced: a newer attempt of the trial has begun.
    """
    began = time.time()
    torch.set_num_threads(placement.cpus_per_process)
    accelerator = engine.start_accelerator(placement.device, placement.accumulation)
    subset = tokens.training(cell.data.size, cell.data.packing, cell.data.copies)
    steps = plan_steps(cell, tokens, subset)
    shape = models.solve(cell.model, tokens.vocabulary_size, steps.context)
    torch.manual_seed(cell.seed)
    model = models.build(shape)
    prepared, optimizer = engine.prepare(accelerator, model, cell.train, placement.micro_batch)
    facts = engine.check(
        accelerator,
        prepared,
        world_size=placement.world_size,
        zero_stage=placement.zero_stage,
        precision=placement.precision,
        micro_batch=placement.micro_batch,
    )
    progress = _restored_progress(accelerator, prepared, store, facts)
    records = None
    probes = build_probes(cell.probes)
    if accelerator.is_main_process:
        charts = [chart for probe in probes for chart in probe.charts]
        records = MetricsWriter(store, progress.step, tokens.entropy_per_token, charts)
    run = Run(
        accelerator=accelerator,
        engine=prepared,
        optimizer=optimizer,
        settings=cell.train,
        steps=steps.steps,
        seed=cell.seed,
        batches=Batches(subset, steps.context, steps.sequences, cell.seed),
        validation=_evaluation(cell, tokens.validation(cell.data.packing), steps.context, placement.micro_batch),
        micro_batch=placement.micro_batch,
        probe=_probe(cell, probes, prepared, shape, subset, tokens, placement.micro_batch, accelerator.device),
        probe_every=cell.probes.every,
        store=store,
        checkpoint_every=cell.launch.checkpoint_every,
        keep_checkpoints=cell.launch.keep_checkpoints,
        records=records,
        preemption_requested=GracefulShutdown(accelerator).requested,
    )
    outcome = train(run, progress)
    if outcome.state == "preempted":
        if records:
            records.close()
            store.preempted.touch()
        accelerator.end_training()
        return EXIT_PREEMPTED
    training_part = _evaluation(cell, subset, steps.context, placement.micro_batch)
    train_evaluated = training_part.loss(accelerator, prepared) if outcome.state == "finished" else None
    shards = _shards(accelerator, optimizer)
    store.check_attempt()
    _save_weights(accelerator, prepared, store.weights)
    if accelerator.is_local_main_process and not accelerator.is_main_process:
        store.push_records()
    accelerator.wait_for_everyone()
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
            train_evaluated,
            wall_seconds=time.time() - began,
        )
        records.hyper_parameters(_hyper_parameters(cell, shape, subset), _finite(result.losses))
        records.close()
        store.publish(result)
    if accelerator.is_local_main_process:
        store.remove_checkpoints()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def _restored_progress(accelerator: Accelerator, prepared: Any, store: TrialStore, facts: EngineFacts) -> Progress:
    """Load the newest whole checkpoint into the engine and return its progress; without one, that of a new run."""
    newest = checkpoint.newest_whole(accelerator, store)
    if newest is None:
        return Progress(engine=facts.to_dict())
    progress = checkpoint.restore(prepared, newest, facts.to_dict())
    accelerator.wait_for_everyone()
    return progress


def _evaluation(cell: Experiment, part: Subset, context: int, micro_batch: int) -> Evaluation:
    """Return the evaluation on the first sequences of a part of the corpus, as many as `validation_tokens` allows."""
    sequences = Sequences(part, context)
    count = math.ceil(cell.train.validation_tokens / sequences.mean_targets_per_sequence)
    return Evaluation(sequences, min(count, sequences.sequences_total), micro_batch)


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
    from amscale.probes.patterns import ProbeBatch
    from amscale.probes.probe import CorpusFacts, ProbeContext
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
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}, beside)
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
