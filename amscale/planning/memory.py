"""Memory of one process of a trial under each ZeRO stage: the largest of what it holds at five moments of a step.

Model states per parameter follow Rajbhandari et al. 2020 (arXiv 1910.02054), table 1, with AdamW: the weights, the
gradients, and the optimiser's part, which ZeRO 1 to 3 shard over the processes in turn. What DeepSpeed holds beside
them was measured on DeepSpeed 0.19, by `benchmarks/memory.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from amscale import models
from amscale.cluster.environment import MMAP_THRESHOLD
from amscale.config import TrainSettings
from amscale.models import Shape
from amscale.trials.records import Placement, TrialResult

PROCESS_BYTES = {"cpu": 0.55e9, "cuda": 1.5e9}
"""What a process needs before it holds a model: interpreter, torch, DeepSpeed; on a GPU its context and workspaces."""
LARGE_LOGITS = 2**24
"""Logits from which on training takes the cross-entropy in pieces."""
_UNUSED = 0.02
"""Share of all tensors that a process on a CPU holds beside them, as measured. On a GPU the part that a plan may fill
leaves room for what the allocator holds."""
_UNUSED_HEAP = 0.5
"""The same for float32 activations that are too small to be mapped by themselves: the heap keeps pieces of what is
freed."""
_KERNELS_BF16 = 10e6
"""What oneDNN keeps for products of bfloat16 matrices on a CPU, as measured."""
BUCKET = 500_000_000
"""Most gradients that DeepSpeed reduces at once (its default); it allocates a buffer for so many."""
_LIVE = 1_000_000_000
"""Most parameters that ZeRO 3 keeps gathered (DeepSpeed's default)."""
_PREFETCHED = 50_000_000
"""Most parameters that ZeRO 3 gathers ahead (DeepSpeed's default)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process when it holds most."""

    states: float
    """Weights, gradients and AdamW's state."""
    activations: float
    """Kept for the backward pass, with the logits and their gradients."""
    buffers: float
    """Buckets of gradients, gathered parameters, copies that are reduced, updated from or written."""
    unused: float
    """Held by the allocator between tensors."""
    process: float
    """Before it holds a model."""

    @property
    def tensors(self) -> float:
        """What tensors take."""
        return self.states + self.activations + self.buffers

    @property
    def training(self) -> float:
        """What training adds to the process."""
        return self.tensors + self.unused

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.training + self.process

    def scaled(self, factor: float) -> "Memory":
        """Return it with every part of training multiplied by a factor."""
        return replace(
            self,
            states=self.states * factor,
            activations=self.activations * factor,
            buffers=self.buffers * factor,
            unused=self.unused * factor,
        )


def model_states(parameters: int, stage: int, world_size: int, precision: str) -> float:
    """Return the bytes of weights, gradients and AdamW's state that one process holds.

    fp32: 4 + 4 + 8 bytes a parameter; ZeRO 1 to 3 keep one more fp32 copy of the shard that they update.
    bf16: 2 + 2 + 12 (fp32 weights and two moments).
    """
    element = 2 if precision == "bf16" else 4
    weights = gradients = element
    share = 1 / world_size
    return parameters * (
        weights * (share if stage >= 3 else 1)
        + gradients * (share if stage >= 2 else 1)
        + _optimizer_bytes(stage, precision) * (share if stage >= 1 else 1)
    )


def _optimizer_bytes(stage: int, precision: str) -> int:
    return 12 if precision == "bf16" or stage > 0 else 8


def loss_copies(logits: int, settings: TrainSettings) -> int:
    """Return the float32 arrays of the logits' size that exist at once, when their gradient is made.

    Below LARGE_LOGITS these are the log-probabilities and two gradients; from there on, where the cross-entropy is
    taken in pieces, the logits and one gradient. The z-loss adds the logits that it keeps and their exponentials, label
    smoothing log-probabilities of its own.
    """
    z_loss, smoothing = bool(settings.z_loss), bool(settings.label_smoothing)
    if logits < LARGE_LOGITS:
        return 3 + 2 * z_loss + smoothing
    return 4 + z_loss if smoothing else 2 + 2 * z_loss


def estimate_memory(shape: Shape, placement: Placement, settings: TrainSettings) -> Memory:
    """Estimate the peak memory of one process of a trial.

    Args:
        shape: its model.
        placement: where it runs.
        settings: its training; what is added to the cross-entropy and needs the logits too counts.
    """
    stage, share, element = placement.zero_stage, 1 / placement.world_size, 2 if placement.precision == "bf16" else 4
    several, accumulates = placement.world_size > 1, placement.accumulation > 1
    total = shape.parameters.total
    gradients = total * element * (share if stage >= 2 else 1)
    kept = model_states(total, stage, placement.world_size, placement.precision) - gradients
    # Gradients that stay from one forward pass to the next; in bf16 they are summed in float32.
    sums = total * 4 * (share if stage >= 2 else 1)
    waiting = sums if accumulates or stage == 3 else 0.0
    bucket = min(total, BUCKET) * (4 if stage == 1 else element) if stage else 0.0
    live = min(total, _LIVE) * element if stage == 3 else 0.0
    ahead = 2 * min(total, _PREFETCHED) * element if stage == 3 and several else 0.0
    # The reduced copy of a bucket, and what is cut from it for the shard.
    reduced = 4 * min(total, BUCKET) if several else 4 * min(total, BUCKET) * share if stage else 0.0
    fresh = (min(total, BUCKET) if stage >= 2 else total) * element if placement.precision == "bf16" else 0.0
    embedding = (shape.parameters.embedding + shape.parameters.output_head) * element
    written = (total + (shape.vocabulary * shape.width if shape.parameters.tied else 0)) * element
    hidden, of_logits = _activations(shape, placement, settings)
    moments = (
        # While a forward pass ends and its backward pass begins, for which ZeRO 3 gathers the largest parameters.
        (kept + waiting, hidden + of_logits, bucket + live + ahead / 2),
        # While ZeRO 3 gathers parameters ahead.
        (kept + waiting, 0.0, bucket + live + ahead),
        # At the end of the last backward pass of a step: both gradients of a tied embedding, and what is reduced.
        (kept + sums, 0.0, bucket + live + max(2 * embedding, fresh) + reduced),
        # During the update, which ZeRO makes from a float32 copy of the shard's gradients.
        (kept + (sums if stage in (0, 3) else 2 * 4 * total * share), 0.0, bucket + live),
        # While the weights are written: rank 0 copies them, a tied output head twice.
        (kept, 0.0, bucket + live + written),
    )
    states, activations, buffers = max(moments, key=sum)
    unused = 0.0
    if placement.device == "cpu":
        in_heap = element == 4 and 4 * placement.micro_batch * shape.context * shape.width < MMAP_THRESHOLD
        unused = _UNUSED * (states + activations + buffers) + _UNUSED_HEAP * hidden * in_heap
        unused += _KERNELS_BF16 * (element == 2)
    return Memory(states, activations, buffers, unused, process=PROCESS_BYTES[placement.device])


def _activations(shape: Shape, placement: Placement, settings: TrainSettings) -> tuple[float, float]:
    """Return the bytes that are kept for the backward pass, and those of what has the logits' size."""
    element = 2 if placement.precision == "bf16" else 4
    logits = placement.micro_batch * shape.context * shape.vocabulary
    kept = models.activation_bytes(shape, placement.micro_batch, element, placement.device)
    model_precision = element if element != 4 else 0
    counted = 2 * 4 + model_precision  # bytes a logit in `activation_bytes`
    return kept - logits * counted, logits * (4 * loss_copies(logits, settings) + model_precision)


_LEAST_COMPARED = 50e6
"""Bytes of training below which a measurement says nothing of an estimate: libraries fill caches of their own."""


@dataclass(frozen=True)
class Comparison:
    """Peaks that trials had on one kind of device, against what is estimated for them now."""

    device: str
    ratios: tuple[float, ...]
    """Measured by estimated, of each trial."""
    factor: float
    """Sum of the measured by sum of the estimated: the large trials, which matter, weigh most."""

    def describe(self) -> str:
        """Return one sentence."""
        several = len(self.ratios) > 1
        low, high = min(self.ratios), max(self.ratios)
        found = f"{low:.2f} to {high:.2f} times" if several else f"{low:.2f} times"
        return (
            f"Memory: {len(self.ratios)} trial{'s' if several else ''} of this sweep took {found} what was estimated "
            f"({self.device}); the estimates are multiplied by {self.factor:.2f}."
        )


def compare_memory(trials: Iterable[tuple[Shape, TrainSettings, TrialResult]]) -> dict[str, Comparison]:
    """Hold estimates against the peaks in results; return a comparison for each kind of device that has any.

    Args:
        trials: shape, settings and result of each trial; results without a peak, and trials that took less than
            50 MB, are left out.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for shape, settings, result in trials:
        placement, measured = _placement_of(result), result.memory.training_bytes
        if placement is None or measured is None:
            continue
        estimated = estimate_memory(shape, placement, settings).training
        if min(estimated, measured) >= _LEAST_COMPARED:
            pairs.setdefault(placement.device, []).append((measured, estimated))
    return {
        device: Comparison(
            device,
            tuple(measured / estimated for measured, estimated in found),
            sum(measured for measured, _ in found) / sum(estimated for _, estimated in found),
        )
        for device, found in pairs.items()
    }


def _placement_of(result: TrialResult) -> Placement | None:
    """Return the placement that the engine reported; None where it is not recorded whole."""
    engine = result.engine
    numbers = (engine.zero_stage, engine.micro_batch, engine.accumulation)
    if None in numbers or not engine.device or engine.precision not in ("fp32", "bf16"):
        return None
    return Placement(
        machines=1,
        processes_per_machine=engine.world_size,
        cpus_per_process=1,
        device="cuda" if engine.device.startswith("cuda") else "cpu",
        zero_stage=int(engine.zero_stage or 0),
        precision="bf16" if engine.precision == "bf16" else "fp32",
        micro_batch=int(engine.micro_batch or 1),
        accumulation=int(engine.accumulation or 1),
    )
