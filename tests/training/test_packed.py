"""Packs: trials of one shape in one process, with stacked parameters, against the same trials alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.ranks import only_rank

from amscale import models
from amscale.models.families.gpt2 import GPT2Settings
from amscale.planning.single_trial import plan_single_trial
from amscale.training.packed.stack import PackError, StackedAdamW, StackedNetwork, flat
from amscale.trials.metrics import ProbeRecord, TrainRecord, ValidationRecord

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import json, os, signal, sys
import amscale.training.packed.run as packed, deepspeed, transformers.integrations.deepspeed, torch.utils.tensorboard
import amscale.probes.suite
from amscale.training.resolve import resolve
from amscale.training.run import run_trial

for specs, kill_at in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        try:
            after_step = packed.after_step
            def killed(run, progress, outcome, step):
                if step.number == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return after_step(run, progress, outcome, step)
            packed.after_step = killed
            opened = [resolve(spec, []) for spec in specs]
            status = packed.run_pack(opened) if len(specs) > 1 else run_trial(*opened[0])
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 70
        os._exit(status)
    print("STATUS", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Processes that are forked from one that has imported all, one after the other: (specs, step to be killed at)."""

FAMILIES = {
    "vanilla": "{family: vanilla, layers: 2, width: 16, heads: 2, dropout: 0.0}",
    "gpt2": "{family: gpt2, layers: 2, width: 16, heads: 2, dropout: 0.0}",
    "llama": "{family: hub, architecture: llama, layers: 2, width: 16, heads: 2}",
}
CELLS = (
    ["data.size=4k", "seed=0"],
    ["data.size=10k", "seed=1", "train.steps=20", "train.weight_decay=0.1"],
    ["data.size=20k", "seed=2", "train.learning_rate=2e-3", "train.z_loss=1e-3"],
)
DIVERGES = ["data.size=4k", "seed=3", "train.learning_rate=1e30", "train.warmup=0"]


def write(folder, family, name, cells):
    """Return the stores of trials that are ready to start, of a sweep of that name."""
    config = folder / f"{family}.yaml"
    config.write_text(
        f"model: {FAMILIES[family]}\n"
        "data: {corpus: question_formation, documents: 2k, validation: 100}\n"
        "train: {steps: 30, batch_tokens: 300, learning_rate: 5e-3, validate_every: 10, validation_tokens: 2k}\n"
        "probes: {every: 15, sequences: 32}\nlaunch: {device: cpu, checkpoint_every: 12}\n"
    )
    stores = []
    for cell in cells:
        trial = plan_single_trial(str(config), [f"name={name}", f"storage={folder}", *cell])
        stores.append(trial.sweep.trial(trial.plan.label))
        trial.write(stores[-1])
    return stores


def run(*processes):
    """Run processes one after the other; return their exit statuses, negative where a signal ended one."""
    jobs = json.dumps([[[str(store.spec) for store in stores], kill_at] for stores, kill_at in processes])
    done = subprocess.run(
        [sys.executable, "-c", RUN, jobs], capture_output=True, text=True, timeout=1200, env=os.environ | only_rank()
    )
    statuses = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("STATUS ")]
    assert len(statuses) == len(processes), done.stderr[-3000:]
    return statuses, done.stderr


def measured(store):
    """Return everything that a trial has recorded, as one vector, and the kinds and steps of its records."""
    numbers, kinds = [], []
    for record in store.read_metrics(TrainRecord):
        numbers += [record.loss, record.gradient_norm, record.learning_rate, record.tokens]
        kinds.append(("train", record.step))
    for record in store.read_metrics(ValidationRecord):
        numbers.append(record.loss)
        kinds.append(("validation", record.step))
    for record in store.read_metrics(ProbeRecord):
        numbers += [value for name, value in sorted(record.values.items()) if name.endswith("/g_mean")]
        kinds.append(("probe", record.step))
    return torch.tensor(numbers, dtype=torch.float64), kinds


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The stores of trials by name: of each family alone and together; killed, and resumed together or alone."""
    folder, stores, jobs = tmp_path_factory.mktemp("t"), {}, []
    cells = {family: [*CELLS, DIVERGES] if family == "vanilla" else CELLS for family in FAMILIES}
    for family in FAMILIES:
        for way in ("alone", "together"):
            stores[f"{family} {way}"] = write(folder, family, f"{family}_{way}", cells[family])
        jobs += [(stores[f"{family} together"], None), *(([store], None) for store in stores[f"{family} alone"])]
    stores["killed"] = write(folder, "vanilla", "killed", cells["vanilla"])
    stores["apart"] = write(folder, "vanilla", "apart", CELLS[:2])
    jobs += [(stores["killed"], 16), (stores["killed"], None), (stores["apart"], 16), (stores["apart"][:1], None)]
    statuses, errors = run(*jobs)
    assert statuses == [-9 if kill_at else 0 for _, kill_at in jobs], errors[-3000:]
    return stores


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_trains_as_each_of_its_trials_alone(ran, family):
    """In float32 a product of stacked matrices rounds differently, by 1e-7 of a loss; thirty steps enlarge that.

    One member ends earlier and one diverges; every other member is as if neither had been there.
    """
    expected, found = ran[f"{family} alone"], ran[f"{family} together"]
    for one, other in zip(expected, found, strict=True):
        result, packed = one.read_result(), other.read_result()
        assert (packed.state, packed.steps, packed.reason) == (result.state, result.steps, result.reason)
        assert packed.packed.largest == len(found)
        assert packed.packed.members == [store.path.name for store in found]
        assert result.packed is None
        assert packed.engine.engine == "DeepSpeedEngine"
        assert packed.engine.optimizer_elements == result.engine.optimizer_elements
        (theirs, kinds), (ours, our_kinds) = measured(one), measured(other)
        assert our_kinds == kinds
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        assert not other.checkpoints.exists()
    if family == "vanilla":
        assert found[-1].read_result().state == "diverged"


@pytest.mark.slow
def test_a_pack_that_is_killed_goes_on_bit_for_bit_and_its_members_alone(ran):
    """A checkpoint of a member does not tell whether it was written in a pack: DeepSpeed's files of its own model."""
    for one, resumed in zip(ran["vanilla together"], ran["killed"], strict=True):
        expected, kinds = measured(one)
        found, found_kinds = measured(resumed)
        assert found_kinds == kinds
        assert torch.equal(found, expected)
    (expected, kinds), (found, found_kinds) = measured(ran["vanilla alone"][0]), measured(ran["apart"][0])
    assert found_kinds == kinds
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def networks():
    shape = models.solve(GPT2Settings(layers=1, width=8, heads=2, dropout=0.0), 11, 6)
    return [models.build(shape) for _ in range(4)]


def test_each_member_has_its_own_learning_rate_decay_and_count(networks):
    """Against torch's AdamW on each network alone; a member that is skipped stays as it is."""
    *members, template = networks
    stack = StackedNetwork(members, template)
    rates, decays = [1e-2, 3e-3, 5e-2], [0.1, 0.0, 0.3]
    moments = torch.zeros_like(stack.rows.data), torch.zeros_like(stack.rows.data)
    stacked = StackedAdamW(stack, (0.9, 0.95), 1e-8, decays, [0, 0, 0], moments)
    optimisers = [
        torch.optim.AdamW(
            [
                {"params": [p for p in member.parameters() if (p.dim() >= 2) == large], "weight_decay": decay * large}
                for large in (True, False)
            ],
            lr=rate,
            betas=(0.9, 0.95),
        )
        for member, rate, decay in zip(members, rates, decays, strict=True)
    ]
    for step in range(5):
        tokens = torch.randint(0, 11, (3, 2, 6), generator=torch.Generator().manual_seed(step))
        logits = [member(part) for member, part in zip(members, tokens, strict=True)]
        torch.testing.assert_close(stack(tokens.flatten(0, 1)), torch.cat(logits), rtol=1e-4, atol=1e-5)
        stack.rows.grad = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(step))
        stacked.rates, stacked.skipped = rates, {1} if step == 2 else set()
        for m, (member, optimiser) in enumerate(zip(members, optimisers, strict=True)):
            for p, part in zip(member.parameters(), stack.rows.grad[m].split(stack.sizes), strict=True):
                p.grad = part.view(p.shape).clone()
            if m not in stacked.skipped:
                optimiser.step()
        if step == 2:
            stack.rows.grad[1] = torch.nan
        stacked.step()
        expected = torch.stack([flat([*member.parameters()]) for member in members])
        torch.testing.assert_close(stack.rows.data, expected, rtol=1e-5, atol=1e-7)
    assert stacked.counts == [5, 4, 5]


def test_what_cannot_be_stacked_is_refused(networks):
    dropped = models.build(models.solve(GPT2Settings(layers=1, width=8, heads=2, dropout=0.1), 11, 6))
    with pytest.raises(PackError, match="dropout"):
        StackedNetwork(networks[:2], dropped)
    networks[2].own = torch.nn.Bilinear(2, 2, 2)
    with pytest.raises(PackError, match=r"own \(Bilinear\) has parameters that cannot be stacked"):
        StackedNetwork(networks[:2], networks[2])
