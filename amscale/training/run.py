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
from amscale.training.spec import stored_objects
from amscale.trials.attempt import AttemptGuard
from amscale.trials.folder import TrialFolder
from amscale.trials.records import ResultLosses
from amscale.trials.stored import StoredTrial


def run_trial(folder: TrialFolder, cell: Experiment, placement: Placement, store: TokenStore) -> int:
    """Train, continuing from the newest whole checkpoint, and leave weights and `result.json` in the folder.

    Returns:
        0 with a result; EXIT_PREEMPTED when told to end, after a checkpoint.

    Raises:
        EngineError: DeepSpeed does not run as the placement says.
    """
    began = time.time()
    torch.set_num_threads(placement.cpus_per_process)
    accelerator = engine.start_accelerator(placement.device, placement.accumulation)
    subset = store.training(cell.data.size, cell.data.packing, cell.data.copies)
    steps = plan_steps(cell, store, subset)
    shape = models.solve(cell.model, store.vocabulary_size, steps.context)
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
    objects = stored_objects(folder, cell)
    fence = AttemptGuard(folder, objects)
    stored = None
    if objects is not None:
        machine = accelerator.process_index // placement.processes_per_machine
        stored = StoredTrial(objects, folder, machine, placement.machines, fence.check_objects)
        if accelerator.is_local_main_process and not fence.start:  # otherwise whoever started this rank has done so
            stored.fetch_records()
    progress = _continue(accelerator, prepared, folder, facts, stored)
    records = None
    probes = build_probes(cell.probes)
    if accelerator.is_main_process:
        charts = [chart for probe in probes for chart in probe.charts]
        records = MetricsWriter(
            folder.metrics, folder.tensorboard, fence, progress.step, store.entropy_per_token, charts
        )
    run = Run(
        accelerator=accelerator,
        engine=prepared,
        optimizer=optimizer,
        settings=cell.train,
        steps=steps.steps,
        seed=cell.seed,
        batches=Batches(subset, steps.context, steps.sequences, cell.seed),
        validation=_evaluated(cell, store.validation(cell.data.packing), steps.context, placement.micro_batch),
        micro_batch=placement.micro_batch,
        probe=_probe(cell, probes, prepared, shape, subset, store, placement.micro_batch, accelerator.device),
        probe_every=cell.probes.every,
        checkpoints=folder.checkpoints,
        checkpoint_every=cell.launch.checkpoint_every,
        keep_checkpoints=cell.launch.keep_checkpoints,
        records=records,
        attempt=fence,
        stored=stored,
        preemption_requested=GracefulShutdown(accelerator).told,
    )
    outcome = train(run, progress)
    if outcome.state == "preempted":
        if records:
            records.close()
            folder.preempted.touch()
        accelerator.end_training()
        return EXIT_PREEMPTED
    training_part = _evaluated(cell, subset, steps.context, placement.micro_batch)
    train_evaluated = training_part.loss(accelerator, prepared) if outcome.state == "finished" else None
    shards = _shards(accelerator, optimizer)
    fence.check()
    _save_weights(accelerator, prepared, folder.weights)
    if stored and accelerator.is_local_main_process and not records:
        stored.push_records()
    accelerator.wait_for_everyone()
    if records:
        records.flush()
        result = make_result(
            folder,
            cell,
            shape,
            store,
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
        fence.check()
        if stored:
            stored.push_records()
            stored.publish(result)
        folder.publish(result)
    if records or (stored and accelerator.is_local_main_process):
        checkpoint.remove_all(folder.checkpoints)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def _continue(
    accelerator: Accelerator, prepared: Any, folder: TrialFolder, facts: EngineFacts, stored: StoredTrial | None
) -> Progress:
    newest = checkpoint.newest_whole(accelerator, folder.checkpoints, stored)
    if newest is None:
        return Progress(engine=facts.to_dict())
    progress = checkpoint.restore(prepared, newest, facts.to_dict())
    accelerator.wait_for_everyone()
    return progress


def _evaluated(cell: Experiment, part: Subset, context: int, micro_batch: int) -> Evaluation:
    """The first sequences of the held-out or of the training documents, as many as `validation_tokens` bounds."""
    sequences = Sequences(part, context)
    count = math.ceil(cell.train.validation_tokens / sequences.mean_targets_per_sequence)
    return Evaluation(sequences, min(count, sequences.sequences_total), micro_batch)


def _probe(
    cell: Experiment,
    probes: Sequence[Probe],
    prepared: Any,
    shape: Shape,
    subset: Subset,
    store: TokenStore,
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
        tokens, targets = sequences.batch(np.array(first))
        return ProbeBatch.of_batch(torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device))

    context = ProbeContext(
        model=prepared,
        layers=models.residual_names(prepared.module),
        stored=chosen(subset),
        queries=chosen(store.validation(cell.data.packing)),
        attention=models.attention_names(prepared.module),
        pattern=cell.probes.pattern,
        micro_batch=micro_batch,
        corpus=CorpusFacts(store.entropy_per_token, subset.unique_tokens, shape.parameters.total),
    )
    return ProbeSuite(context, probes).measure


def _shards(accelerator: Accelerator, optimizer: Any) -> list[int]:
    """Elements of AdamW's first moment on each rank."""
    held = torch.tensor([engine.optimizer_elements(optimizer)], device=accelerator.device)
    return [int(count) for count in accelerator.gather(held)]


def _save_weights(accelerator: Accelerator, prepared: Any, path: Path) -> None:
    """The whole model as safetensors, written beside its place and renamed; gathered from the shards under ZeRO-3."""
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
