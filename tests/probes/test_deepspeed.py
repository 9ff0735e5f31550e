"""The probes under DeepSpeed on two CPU processes: every ZeRO stage, accumulation and bfloat16, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

SCRIPT = """
import math
import deepspeed, torch
from torch.nn import functional as F
from amscale import models
from amscale.models.families.vanilla import VanillaSettings
from amscale.probes.patterns import ProbeBatch
from amscale.probes.interface import CorpusFacts, ProbeContext
from amscale.probes.registry import build_probes
from amscale.probes.registry import ProbeSettings
from amscale.probes.suite import ProbeSuite
from amscale.streams import end_rank

deepspeed.init_distributed(dist_backend="gloo")
rank = deepspeed.comm.get_rank()
tokens = torch.randint(20, (32, 20), generator=torch.Generator().manual_seed(1))
SETTINGS = VanillaSettings(layers=2, width=16, heads=2, dropout=0.2)

def network():
    torch.manual_seed(0)
    return models.build(models.solve(SETTINGS, 20, 20))

def config(stage, bf16):
    return {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "bf16": {"enabled": bf16},
    }

def suite_of(model, inner):
    stored, queries = (ProbeBatch.of_batch(part, part) for part in (tokens[:8], tokens[8:16]))
    attention = models.attention_names(inner)
    corpus = CorpusFacts(math.log(20), 160, 3000)
    context = ProbeContext(model, models.residual_names(inner), stored, queries, attention=attention, corpus=corpus)
    return ProbeSuite(context, build_probes(ProbeSettings()))

def train(stage, bf16, probed):
    engine, *_ = deepspeed.initialize(
        model=(model := network()), model_parameters=model.parameters(), config=config(stage, bf16)
    )
    suite, losses, found = suite_of(engine, engine.module), [], []
    torch.manual_seed(rank)
    for micro in range(6):
        if probed and micro % 3 == 0:  # at the start, and in the middle of an accumulation
            found.append(suite.measure())
        batch = tokens[2 * (2 * micro + rank) :][:2]
        loss = F.cross_entropy(engine(batch).flatten(0, 1), batch.roll(-1, 1).flatten())
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses, found, all(parameter.numel() == 0 for parameter in engine.module.parameters())

plain_model = network()
plain = suite_of(plain_model, plain_model).measure()
assert any(name.startswith("attention/layer_01/energy_change") for name in plain.scalars)
assert "memorisation/bits_per_parameter" in plain.scalars
for stage, bf16 in ((0, False), (1, False), (2, False), (3, False), (1, True), (3, True)):
    losses, found, partitioned = train(stage, bf16, True)
    assert losses == train(stage, bf16, False)[0], (stage, bf16, losses)
    assert partitioned == (stage == 3)
    assert set(plain.scalars) == set(found[0].scalars), (stage, bf16, found[0].reasons)
    if not bf16:
        values = found[0].scalars
        bad = [n for n, v in plain.scalars.items() if abs(values[n] - v) > 1e-4 * (1 + abs(v))]
        assert not bad, (stage, bad)
    assert found[0].scalars != found[-1].scalars
print(f"rank {rank} has passed", flush=True)
deepspeed.comm.barrier()
end_rank(0)
"""


@pytest.mark.slow
def test_every_stage_on_two_processes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rank 0 has passed" in done.stdout
    assert "rank 1 has passed" in done.stdout
