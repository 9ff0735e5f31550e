"""Measure what the probes cost: steps per second with and without them, in alternation, at their default settings.

    OMP_NUM_THREADS=1 python benchmarks/probe_cost.py [--size 1M] [--batch_tokens 2048] [--context 32] [--rounds 2]

Each round trains for `--every` steps without probes and for as many with one probe, on uniformly random tokens,
ten of the one kind after ten of the other, so that whatever else the machine does affects both. Wall time and this
process's processor time are both given: on a shared machine read the second.

The loop is plain PyTorch: DeepSpeed's longer steps would make the share look smaller. The batch is small on purpose: a
probe costs the same whatever the batch, so its share falls as 1/batch (train.batch_tokens is 16384 by default).
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from amscale import models
from amscale.models.families.vanilla import VanillaSettings
from amscale.probes.interface import CorpusFacts, ProbeContext
from amscale.probes.patterns import ProbeBatch
from amscale.probes.registry import ProbeSettings, build_probes
from amscale.probes.suite import ProbeSuite
from amscale.settings import format_size, parse_size

VOCABULARY = 69
_BLOCK = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default="1M", help="attention and feed-forward parameters")
    parser.add_argument("--batch_tokens", type=parse_size, default="2048")
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    settings = ProbeSettings()
    torch.manual_seed(0)
    shape = models.solve(VanillaSettings(size=options.size), VOCABULARY, options.context)
    model = models.build(shape)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stored, queries = (_sequences(settings.sequences, options.context) for _ in range(2))
    context = ProbeContext(
        model,
        models.residual_names(model),
        stored,
        queries,
        attention=models.attention_names(model),
        pattern=settings.pattern,
        micro_batch=64,
        corpus=CorpusFacts(None, 10**6, shape.parameters.total),
    )
    suite = ProbeSuite(context, build_probes(settings))
    print(
        f"N = {format_size(shape.parameters.under('non_embedding'))}: {shape.layers} layers of {shape.width}, "
        f"context {options.context}, {options.batch_tokens} tokens a step, {torch.get_num_threads()} threads; "
        f"{settings.sequences} + {settings.sequences} sequences every {options.every} steps"
    )
    batch = _sequences(max(1, options.batch_tokens // options.context), options.context)
    for _ in range(3):
        _step(model, optimiser, batch)
    suite.measure()  # imports and warms up
    ratios = []
    for round_ in range(options.rounds):
        without, with_probe, cost = _round(model, optimiser, batch, options.every, suite)
        ratio, share = without / with_probe, cost / without
        speed = options.every / without
        ratios.append(ratio[1])
        print(
            f"round {round_ + 1}: {speed[0]:.2f} steps/s without; with/without {ratio[0]:.4f} by the wall, "
            f"{ratio[1]:.4f} by the processor; the probe took {cost[1]:.3f} s of it, {share[1]:.2%} of the steps' time",
            flush=True,
        )
    print(f"median ratio of steps/s, with/without, by the processor: {statistics.median(ratios):.4f}")


def _sequences(count: int, context: int) -> ProbeBatch:
    tokens = torch.randint(VOCABULARY, (count, context))
    return ProbeBatch.of_batch(tokens, tokens.roll(-1, 1))


def _step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, batch: ProbeBatch) -> None:
    loss = F.cross_entropy(model(batch.tokens_BT).flatten(0, 1), batch.targets_BT.flatten())
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _round(
    model: torch.nn.Module, optimiser: torch.optim.Optimizer, batch: ProbeBatch, steps: int, suite: ProbeSuite
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return seconds (wall, processor) of `steps` steps without probes, of as many with one, and of the probe."""
    spent = [np.zeros(2), np.zeros(2)]
    for start in range(0, steps, _BLOCK):
        for kind in spent:
            began = _now()
            for _ in range(min(_BLOCK, steps - start)):
                _step(model, optimiser, batch)
            kind += _now() - began
    began = _now()
    suite.measure()
    cost = _now() - began
    return spent[0], spent[1] + cost, cost


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    main()
