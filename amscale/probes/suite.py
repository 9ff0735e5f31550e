"""Run fixed sequences through a model while it trains, and have every probe measure.

    suite = ProbeSuite(context, build_probes(settings))
    measurement = suite.measure()        # between optimiser steps, on every rank, with equal sequences

The model is what the training loop calls: under DeepSpeed the engine, whose forward applies the engine's own precision
while the hooks of its modules gather the parameters that ZeRO-3 has partitioned. Gathering is collective, hence every
rank.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from amscale.errors import InputError
from amscale.probes.capture import capture, capture_input, find_modules, preserved
from amscale.probes.interface import Activations, LayerPatterns, Probe, ProbeContext, Wanted
from amscale.probes.measurement import Measurement
from amscale.probes.patterns import ProbeBatch, to_patterns
from amscale.probes.queries_keys import read_attention


class ProbeSuite:
    """Probes that measure one model on the same fixed sequences, from the same forward passes."""

    def __init__(self, context: ProbeContext, probes: Sequence[Probe]) -> None:
        """Check the context, and that every tag can come from one probe only.

        Raises:
            InputError: a module that the model does not have, fewer than one sequence per forward pass, or two probes
                with the same first part of their tags.
        """
        if context.micro_batch < 1:
            raise InputError(f"micro_batch={context.micro_batch} of a probe must be at least 1")
        find_modules(context.model, [*context.layers, *context.attention])
        owners: dict[str, Probe] = {}
        for probe in probes:
            for group in probe.tag_groups():
                other = owners.setdefault(group, probe)
                if other is not probe:
                    raise InputError(f"probes {other.name} and {probe.name} both have tags {group}/…; leave one out")
        self.context, self.probes = context, tuple(probes)

    def measure(self) -> Measurement:
        """Run the sequences through the model and measure; training is untouched, bit for bit.

        What cannot be measured (activations that are not finite, no two distinct patterns) is missing from the scalars
        and has its sentence under `reasons`.

        Raises:
            InputError: a probe returned a tag that is not its, or the model's modules are not residual streams.
        """
        device = self.context.stored.tokens_BT.device
        _synchronise(device)
        start = time.perf_counter()
        measurement = Measurement(pattern=self.context.pattern)
        with preserved(self.context.model):
            passes = self._run(self.context.stored), self._run(self.context.queries)
            layers, read = self._layers(*passes), self._read_attention()
            for layer in layers:
                for probe in self._wanting("patterns"):
                    _take(measurement, probe, _measure_layer(probe, self.context, layer))
            for probe in self.probes:
                activations = _activations(probe, layers, *passes, read)
                _take(measurement, probe, probe.measure(self.context, activations))
        _synchronise(device)
        measurement.seconds = time.perf_counter() - start
        return measurement

    def _wanting(self, wanted: Wanted) -> list[Probe]:
        return [probe for probe in self.probes if wanted in probe.wants]

    def _run(self, sequences: ProbeBatch) -> "_Pass":
        """Run the sequences through the model, keeping what the probes want; not at all where none wants anything."""
        context, found = self.context, _Pass()
        patterns, logits = self._wanting("patterns"), self._wanting("logits")
        if not patterns and not logits:
            return found
        for batch in sequences.split(context.micro_batch):
            with ExitStack() as stack:
                if patterns:
                    reduce = partial(
                        to_patterns, counted_BT=batch.counted_BT, pattern=context.pattern, context=context.length
                    )
                    records = stack.enter_context(capture(context.model, context.layers, reduce))
                    first = stack.enter_context(capture_input(context.model, context.layers[0], reduce))
                answer = context.model(batch.tokens_BT)
            if patterns:
                found.add_patterns(records, first)
            if logits:
                found.add_logits(answer, batch, logits)
        return found

    def _layers(self, stored: "_Pass", queries: "_Pass") -> list[LayerPatterns]:
        if not self._wanting("patterns"):
            return []
        layers = []
        for index, name in enumerate(self.context.layers):
            stored_PN, queries_QN = (torch.cat(found.patterns[name]) for found in (stored, queries))
            bad = sum(int((~patterns.isfinite().all(1)).sum()) for patterns in (stored_PN, queries_QN))
            total = stored_PN.shape[0] + queries_QN.shape[0]
            reason = f"{bad} of {total} probe sequences have activations of {name} that are not finite" if bad else None
            layers.append(LayerPatterns(index, name, stored_PN, queries_QN, reason))
        return layers

    def _read_attention(self) -> "_AttentionRead":
        """Have the probes reduce every layer's queries and keys, one micro-batch at a time."""
        read = _AttentionRead()
        probes = self._wanting("attention")
        if not probes or not self.context.attention:
            return read
        for index, found in read_attention(self.context):
            if isinstance(found, str):
                read.reasons[index] = found
                continue
            for probe in probes:
                kept = read.reduced.setdefault(probe.name, {}).setdefault(index, [])
                kept.append(probe.reduce_attention(found))
        return read


@dataclass
class _Pass:
    """What the forward passes over some sequences left."""

    patterns: dict[str, list[Tensor]] = field(default_factory=dict)
    """Patterns (B, N) of each named module, a tensor per micro-batch."""
    inputs: list[Tensor] = field(default_factory=list)
    """Patterns of what enters the first named module; empty where that is no residual stream."""
    logits: dict[str, list[Any]] = field(default_factory=dict)
    """What each probe made of the logits, by its name."""
    logits_reason: str | None = None

    def add_patterns(self, records: dict[str, list[Tensor]], first: list[Tensor]) -> None:
        self.inputs += first
        for name, calls in records.items():
            if len(calls) != 1:
                raise InputError(f"module {name!r} ran {len(calls)} times in one forward pass; name one that runs once")
            self.patterns.setdefault(name, []).append(calls[0])

    def add_logits(self, answer: Any, batch: ProbeBatch, probes: Sequence[Probe]) -> None:
        shape = tuple(batch.tokens_BT.shape)
        if not isinstance(answer, Tensor) or answer.ndim != 3 or answer.shape[:2] != shape:
            self.logits_reason = f"the model does not return logits of shape {shape} and the vocabulary"
            return
        for probe in probes:
            self.logits.setdefault(probe.name, []).append(probe.reduce_logits(batch, answer))


@dataclass
class _AttentionRead:
    """What each probe made of the queries and keys, by its name and the layer's index; why a layer has none."""

    reduced: dict[str, dict[int, list[Any]]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


def _activations(
    probe: Probe, layers: Sequence[LayerPatterns], stored: _Pass, queries: _Pass, read: _AttentionRead
) -> Activations:
    """Return what one probe wants."""
    patterns, logits, attention = (wanted in probe.wants for wanted in ("patterns", "logits", "attention"))
    return Activations(
        layers=layers if patterns else (),
        first_input_QN=torch.cat(queries.inputs) if patterns and queries.inputs else None,
        stored_logits=stored.logits.get(probe.name, ()),
        query_logits=queries.logits.get(probe.name, ()),
        logits_reason=stored.logits_reason or queries.logits_reason if logits else None,
        attention=read.reduced.get(probe.name, {}),
        attention_reasons=read.reasons if attention else {},
    )


def _measure_layer(probe: Probe, context: ProbeContext, layer: LayerPatterns) -> Measurement:
    if layer.reason is None:
        return probe.measure_layer(context, layer)
    return Measurement(reasons={f"{group}/{layer.label}": layer.reason for group in probe.tag_groups()})


def _take(measurement: Measurement, probe: Probe, other: Measurement) -> None:
    """Merge what a probe measured.

    Raises:
        InputError: it returned a tag of another group.
    """
    groups = probe.tag_groups()
    for tag in (*other.scalars, *other.histograms, *other.reasons):
        if tag.split("/")[0] not in groups:
            allowed = ", ".join(f"{group}/…" for group in groups)
            raise InputError(f"probe {probe.name} returned the tag {tag!r}; its tags are {allowed}: mend the probe")
    measurement.merge(other)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
