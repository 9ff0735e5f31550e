"""Train one step of a tiny model through the engine of a placement, and hold it against plain AdamW.

    python -m amscale.training.self_check machine [launch.precision=bf16 …]   as plans place trials on this machine
    accelerate launch … --module amscale.training.self_check PLACEMENT        (as `check_placement` starts it)

The first prints JSON: `wrong` is what is wrong, in one line, or null. PLACEMENT is JSON. A rank ends with status 0, or
with 2 and one line that begins with REFUSED_MARK.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from amscale import config, models
from amscale.cluster.environment import rank_environment
from amscale.cluster.machine import launch_command
from amscale.cluster.network import LOOPBACK
from amscale.cluster.resources import this_machine
from amscale.config import TrainSettings
from amscale.errors import InputError
from amscale.planning.placement import check_supported, choose_placement
from amscale.streams import end_rank
from amscale.trials.attempt import REFUSED_MARK, refusal_in_log
from amscale.trials.records import Placement

_SECONDS = 600.0
_SEQUENCES = 4
"""Of a global batch."""
_VOCABULARY, _WIDTH, _CONTEXT = 11, 8, 5


def check_placement(placement: Placement) -> str | None:
    """Start this machine's ranks of a placement for one step, without Ray; return what is wrong, in one line, or None.

    Args:
        placement: its machines count as one.
    """
    here = replace(placement, machines=1)
    try:
        check_supported(here)
    except InputError as error:
        return str(error)
    command = launch_command(
        here, [json.dumps(here.to_dict())], rank=0, address=LOOPBACK, port=0, module="amscale.training.self_check"
    )
    try:
        ran = subprocess.run(
            command,
            env=rank_environment(here),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"one step of a tiny model is not done after {_SECONDS:.0f} s"
    if ran.returncode == 0:
        return None
    written = ran.stdout + ran.stderr
    return refusal_in_log(written) or f"exit status {ran.returncode}: {written.strip()[-300:]}"


def check_machine(overrides: Sequence[str]) -> dict[str, str | None]:
    """Check this machine's ranks under the placement that a plan gives a small trial here.

    Args:
        overrides: settings of `launch`.

    Returns:
        `wrong`, what is wrong, in one line, or None; `engine`, the precision and stage that were checked.
    """
    settings = config.load("quick.yaml", [*overrides, "launch.machines=1"])
    cell = config.expand(settings)[0]
    try:
        shape = models.solve(cell.model, _VOCABULARY, _CONTEXT)
        choice = choose_placement(cell, shape, _SEQUENCES, this_machine(settings.launch.device))
    except InputError as error:
        return {"wrong": str(error), "engine": ""}
    placement = replace(choice.placement, micro_batch=2, accumulation=2)
    engine = f" ({placement.device}, {placement.precision}, ZeRO stage {placement.zero_stage})"
    return {"wrong": check_placement(placement), "engine": engine}


def check_engine(placement: Placement) -> float:
    """Train one step on this rank; return how far it is from AdamW's, as a share of the learning rate.

    Raises:
        EngineError: DeepSpeed does not run as asked, or its first update is not AdamW's.
    """
    import torch
    from torch import nn

    from amscale.training import engine
    from amscale.training.first_update import FirstUpdate

    settings = TrainSettings(steps=1, learning_rate=1e-2, weight_decay=0.1)
    accelerator = engine.start_accelerator(placement)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(_VOCABULARY, _WIDTH), nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _VOCABULARY))
    prepared, _ = engine.prepare(accelerator, model, settings, placement.micro_batch)
    engine.check(accelerator, prepared, placement, settings)
    for micro in range(placement.accumulation):
        torch.manual_seed(1 + micro * accelerator.num_processes + accelerator.process_index)
        tokens_BT = torch.randint(_VOCABULARY, (placement.micro_batch, _CONTEXT + 1), device=accelerator.device)
        logits_BTV = prepared(tokens_BT[:, :-1])
        loss = nn.functional.cross_entropy(logits_BTV.float().flatten(0, 1), tokens_BT[:, 1:].flatten())
        prepared.set_gradient_accumulation_boundary(is_boundary=micro == placement.accumulation - 1)
        prepared.backward(loss)
    first = FirstUpdate(prepared, settings, settings.learning_rate)
    norm = engine.clip_gradients(prepared, [*model.parameters()]) if engine.clips_here(prepared) else None
    prepared.step()
    return first.check(float(prepared.get_global_grad_norm()) if norm is None else norm)


def main(words: Sequence[str]) -> int:
    """Check this machine, or this rank's engine; return the exit status."""
    if words[0] == "machine":
        answer = check_machine(words[1:])
        print(json.dumps(answer), flush=True)
        return int(answer["wrong"] is not None)
    (placement,) = words
    try:
        difference = check_engine(Placement(**json.loads(placement)))
    except InputError as error:
        print(f"{REFUSED_MARK}{error}", file=sys.stderr, flush=True)
        return 2
    from torch import distributed

    distributed.destroy_process_group()
    print(f"the first update differs from AdamW's by {difference:.2%} of the learning rate", flush=True)
    return 0


if __name__ == "__main__":
    end_rank(main(sys.argv[1:]))
