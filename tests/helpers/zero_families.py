"""Train tiny models of named families on two processes under DeepSpeed, and check resume and the named modules.

    python zero_families.py STAGE PRECISION NAME …

Prints one line per model and process. Names are those of MODELS below. Both processes are forks of this one, since
importing DeepSpeed and transformers takes far longer than the training.
"""

import json
import multiprocessing
import os
import socket
import sys
import tempfile

import deepspeed
import deepspeed.runtime.superoffload
import deepspeed.runtime.zero.stage3
import torch
import torch._dynamo
import torch.distributed
from transformers.integrations import HfDeepSpeedConfig

from amscale.config import TrainSettings
from amscale.files import packaged
from amscale.models import attention_names, build, final_norm_name, residual_names, solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.openelm import OpenELMSettings
from amscale.models.families.vanilla import VanillaSettings
from amscale.models.hub_settings import HubSettings
from amscale.probes.capture import capture
from amscale.training.engine import optimizer_for
from amscale.training.loss import objective

VOCABULARY, CONTEXT, WIDTH = 50, 12, 32
PROCESSES = 2
MODELS = {
    "vanilla": VanillaSettings(layers=2, width=WIDTH, dropout=0.1),
    "gpt2": GPT2Settings(layers=2, width=WIDTH, dropout=0.1),
    "openelm": OpenELMSettings(layers=2, width=WIDTH, head_dimension=8, feed_forward_divisor=8),
    "llama": HubSettings(architecture="llama", layers=2, width=WIDTH, options={"num_key_value_heads": 1}),
    "mistral": HubSettings(architecture="mistral", layers=2, width=WIDTH, options={"sliding_window": 4}),
    "mixtral": HubSettings(architecture="mixtral", layers=2, width=WIDTH, options={"num_local_experts": 4}),
}


def configuration(stage, precision):
    config = json.loads((packaged("launch") / f"zero{stage}.json").read_text(encoding="utf-8"))
    config |= {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 1, "gradient_clipping": 1.0}
    config["bf16"] = {"enabled": precision == "bf16"}
    config["zero_optimization"] |= {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    return config


def engine_of(settings, config):
    torch.manual_seed(0)
    model = build(solve(settings, VOCABULARY, CONTEXT))
    optimizer = optimizer_for(model, TrainSettings(steps=4, learning_rate=1e-2))
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)[0]


def step(engine, index, rank):
    tokens = torch.randint(VOCABULARY, (2, CONTEXT + 1), generator=torch.Generator().manual_seed(10 * index + rank))
    torch.manual_seed(1000 * index + rank)  # dropout, as the training loop seeds it
    minimised, plain = objective(engine(tokens[:, :-1]), tokens[:, 1:], z_loss=1e-4, label_smoothing=0.0)
    engine.backward(minimised / tokens[:, 1:].numel())
    engine.step()
    return plain.item()


def check(settings, config, rank):
    engine = engine_of(settings, config)
    engine.train()
    losses = [step(engine, index, rank) for index in range(2)]
    folder = [tempfile.mkdtemp() if rank == 0 else None]
    torch.distributed.broadcast_object_list(folder)
    engine.save_checkpoint(folder[0], tag="engine")
    losses += [step(engine, index, rank) for index in (2, 3)]
    resumed = engine_of(settings, config)
    resumed.train()
    resumed.load_checkpoint(folder[0], tag="engine")
    again = [step(resumed, index, rank) for index in (2, 3)]
    assert again == losses[2:], (again, losses)
    model = engine.module
    names = [*residual_names(model), *attention_names(model), *filter(None, [final_norm_name(model)])]
    assert len(residual_names(model)) == len(attention_names(model)) == 2
    with torch.no_grad(), capture(engine, names) as seen:
        engine.eval()
        engine(torch.zeros(2, CONTEXT, dtype=torch.long))
    assert all(tuple(x.shape) == (2, CONTEXT, WIDTH) for (x,) in seen.values())
    if config["zero_optimization"]["stage"] == 3:  # each of the two processes owns half of every parameter
        assert all(p.ds_tensor.numel() == (p.ds_numel + 1) // 2 for p in model.parameters())
    return losses


def run(rank, port, stage, precision, names):
    """Check the named models on one rank."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "MASTER_PORT": str(port)}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # as in training: it would be compiled first
    deepspeed.init_distributed(dist_backend="gloo")
    config = configuration(int(stage), precision)
    kept = HfDeepSpeedConfig(config)  # as Accelerate does it: transformers then knows of ZeRO-3
    for name in names:
        losses = check(MODELS[name], config, rank)
        print(f"rank {rank} {name} ZeRO-{stage} {precision} resumes exactly, losses {losses}", flush=True)
    del kept
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def main():
    for name in sys.argv[3:]:
        build(solve(MODELS[name], VOCABULARY, CONTEXT))  # what this imports need not be imported by each rank
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=run, args=(rank, port, *sys.argv[1:3], sys.argv[3:])) for rank in range(PROCESSES)]
    for rank in ranks:
        rank.start()
    while any(rank.is_alive() for rank in ranks):
        for rank in ranks:
            rank.join(timeout=0.1)
        if any(rank.exitcode for rank in ranks):  # the other one would wait for it
            for rank in ranks:
                rank.kill()
    sys.exit(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    main()
