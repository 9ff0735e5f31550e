"""The probe under DeepSpeed ZeRO-3 on two CPU processes: it gathers the parameters and leaves training as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

SCRIPT = """
import sys
import deepspeed, torch
from torch import nn
from amscale.probes.patterns import Sequences
from amscale.probes.probe import TrainingProbe

deepspeed.init_distributed(dist_backend="gloo")
rank = deepspeed.comm.get_rank()
tokens = torch.randint(20, (32, 6), generator=torch.Generator().manual_seed(1))
NAMES, CONFIG = ["0", "1"], {
    "train_micro_batch_size_per_gpu": 4,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
}

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 16), nn.Dropout(0.2), nn.Linear(16, 20))

def probe_of(model):
    stored, queries = (Sequences.of_batch(part, part) for part in (tokens[:8], tokens[8:16]))
    return TrainingProbe(model, NAMES, stored, queries)

def train(probed):
    engine, *_ = deepspeed.initialize(model=(model := network()), model_parameters=model.parameters(), config=CONFIG)
    probe, losses, scalars = probe_of(engine), [], []
    torch.manual_seed(rank)
    for step in range(4):
        if probed:
            scalars.append(probe.measure().scalars)
        batch = tokens[4 * (2 * step + rank) :][:4]
        loss = nn.functional.cross_entropy(engine(batch).flatten(0, 1), batch.roll(-1, 1).flatten())
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    partitioned = all(parameter.numel() == 0 for parameter in engine.module.parameters())
    return losses, scalars, partitioned

losses, scalars, partitioned = train(True)
assert losses == train(False)[0], losses
assert partitioned
plain = probe_of(network()).measure().scalars
assert set(plain) == set(scalars[0])
assert all(abs(scalars[0][name] - plain[name]) <= 1e-4 * (1 + abs(plain[name])) for name in plain)
assert scalars[0] != scalars[-1]
print(f"rank {rank} is content", flush=True)
# Left open, the group's threads can outlive the interpreter and abort it at exit.
deepspeed.comm.barrier()
deepspeed.comm.destroy_process_group()
"""


def test_zero_3_on_two_processes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rank 0 is content" in done.stdout
    assert "rank 1 is content" in done.stdout
