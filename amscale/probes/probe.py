"""Measure a fixed probe set inside a network while it trains.

    probe = TrainingProbe(model, residual_names(model), Sequences.of_batch(*training), Sequences.of_batch(*validation))
    measurement = probe.measure()        # between optimiser steps, on every rank, with equal sequences

`model` is what the training loop calls: under DeepSpeed the engine, whose forward applies the engine's own precision
while the hooks of its modules gather the parameters that ZeRO-3 has partitioned. Gathering is collective, hence every
rank.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from amscale.config.schema import Pattern
from amscale.errors import InputError
from amscale.probes.associative import measure_energy, measure_global_energy, measure_radius_and_partition
from amscale.probes.attention import measure_attention
from amscale.probes.capture import capture, capture_input, find_modules, preserved
from amscale.probes.measurement import Measurement
from amscale.probes.memorisation import Corpus, Recall, measure_memorisation
from amscale.probes.patterns import Sequences, to_patterns


class TrainingProbe:
    """Energies, radii, partition functions, retrieval and memorisation of a fixed set of sequences, while training."""

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        stored: Sequences,
        queries: Sequences,
        pattern: Pattern = "last_token",
        micro_batch: int = 8,
        *,
        attention: Sequence[str] = (),
        corpus: Corpus | None = None,
        prefix: int = 8,
        continuation: int = 8,
    ) -> None:
        """Choose what is measured.

        Args:
            model: called as model(tokens_BT); any wrapper around the model that has the named modules.
            names: modules whose output is the residual stream (B, T, C) after each layer, in order.
            stored: training sequences, whose patterns are the stored ones.
            queries: validation sequences, whose patterns are the queries.
            pattern: what one sequence is; see `to_patterns`.
            micro_batch: sequences per forward pass.
            attention: attention modules, each inside the layer whose name begins its own.
            corpus: what memorised bits are counted against; None where they are not wanted.
            prefix: tokens given when an exact continuation is asked for.
            continuation: tokens that are to be reproduced.

        Raises:
            InputError: a name that the model does not have, or fewer than one sequence per forward pass.
        """
        if micro_batch < 1:
            raise InputError(f"micro_batch={micro_batch} of a probe must be at least 1")
        find_modules(model, [*names, *attention])
        self.model, self.names, self.attention = model, tuple(names), tuple(attention)
        self.stored, self.queries = stored, queries
        self.pattern, self.micro_batch = pattern, micro_batch
        self.context = max(stored.tokens_BT.shape[1], queries.tokens_BT.shape[1])
        self.corpus, self.prefix, self.continuation = corpus, prefix, continuation

    def measure(self) -> Measurement:
        """Run the probe set through the model and measure; training is untouched, bit for bit.

        What cannot be measured (activations that are not finite, no two distinct patterns) is missing from the scalars
        and has its sentence under `reasons`.
        """
        device = self.stored.tokens_BT.device
        _synchronise(device)
        start = time.perf_counter()
        measurement = Measurement(pattern=self.pattern)
        with preserved(self.model):
            stored = self._run(self.stored)
            queries = self._run(self.queries)
            self._measure_layers(measurement, stored.patterns_LPN, queries)
            measure_memorisation(measurement, stored.recall, queries.recall, self.corpus)
            if self.attention:
                measure_attention(measurement, self.model, self.names, self.attention, self.queries, self.micro_batch)
        _synchronise(device)
        measurement.seconds = time.perf_counter() - start
        return measurement

    def _run(self, sequences: Sequences) -> "_Answers":
        """The sequences through the model: their patterns at each named module, in order, and what it says to them."""
        pieces: dict[str, list[Tensor]] = {name: [] for name in self.names}
        starts: list[Tensor] = []
        recall = Recall(self.prefix, self.continuation)
        for batch in sequences.split(self.micro_batch):
            reduce = partial(to_patterns, counted_BT=batch.counted_BT, pattern=self.pattern, context=self.context)
            with (
                capture(self.model, self.names, reduce) as records,
                capture_input(self.model, self.names[0], reduce) as first,
            ):
                recall.add(self.model(batch.tokens_BT), batch)
            starts += first
            for name, calls in records.items():
                if len(calls) != 1:
                    raise InputError(
                        f"module {name!r} ran {len(calls)} times in one forward pass; name one that runs once"
                    )
                pieces[name].append(calls[0])
        return _Answers([torch.cat(pieces[name]) for name in self.names], torch.cat(starts) if starts else None, recall)

    def _measure_layers(self, measurement: Measurement, stored_LPN: list[Tensor], queries: "_Answers") -> None:
        queries_LQN, start_QN = queries.patterns_LPN, queries.start_PN
        labels = [f"layer_{t:02d}" for t in range(len(self.names))]
        broken = []
        for label, name, stored_PN, queries_QN in zip(labels, self.names, stored_LPN, queries_LQN, strict=True):
            bad = sum(int((~patterns.isfinite().all(1)).sum()) for patterns in (stored_PN, queries_QN))
            if bad:
                total = stored_PN.shape[0] + queries_QN.shape[0]
                broken.append(label)
                reason = f"{bad} of {total} probe sequences have activations of {name} that are not finite"
                for group in ("energy", "radius", "partition"):
                    measurement.reasons[f"{group}/{label}"] = reason
                continue
            measure_energy(measurement, label, queries_QN, stored_PN)
            measure_radius_and_partition(measurement, label, stored_PN)
        if start_QN is not None and not bool(start_QN.isfinite().all()):
            broken.append("the first layer's input")
        if broken:
            measurement.reasons["energy/global"] = f"activations of {', '.join(broken)} are not finite"
        else:
            measure_global_energy(measurement, labels, queries_LQN, stored_LPN, start_QN)


@dataclass(frozen=True)
class _Answers:
    """What one forward pass over some sequences left behind."""

    patterns_LPN: list[Tensor]
    """One (P, N) float32 matrix per named module."""
    start_PN: Tensor | None
    """The patterns of what enters the first named module, x^(0); None where that is no residual stream."""
    recall: Recall


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
