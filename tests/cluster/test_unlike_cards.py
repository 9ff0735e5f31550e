"""Machines with unlike GPUs, pretended: a trial gets those that it was planned for, and small ones share them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray import tune

from amscale import config
from amscale.cluster.environment import rank_environment
from amscale.cluster.ray_cluster import ray_cluster
from amscale.cluster.resources import cluster
from amscale.cluster.tune import run_jobs
from amscale.planning.jobs import make_job
from amscale.planning.plan import plan_sweep
from amscale.trials.records import Placement
from amscale.trials.sweep_store import sweep_store

CARDS = {
    "small": ["NVIDIA RTX A4000, 16376, 8.6, [N/A]"] * 2,
    "large": ["NVIDIA H100 80GB HBM3, 81559, 9.0, Disabled"],
}
TRIALS = 5


class Looking(tune.Trainable):
    """A trial that writes down what its ranks would see, and ends when all trials have been started."""

    def setup(self, config):
        job = config["job"]
        seen = rank_environment(Placement(**job["placement"]))["CUDA_VISIBLE_DEVICES"]
        self.folder = Path(os.environ["SEEN"])
        (self.folder / job["label"]).write_text(json.dumps([os.environ["NODE"], seen]))

    def step(self):
        time.sleep(0.1)
        return {"done": len(list(self.folder.iterdir())) == TRIALS}


class Silent:
    """A listener that fails where a trial does."""

    def started(self, label):
        """Pass."""

    def progress(self, label, report):
        """Pass."""

    def noted(self, label, note):
        raise AssertionError(note)

    def ended(self, label):
        """Pass."""

    def failed(self, label, reason, again):
        raise AssertionError(reason)

    def lost(self, reason):
        raise AssertionError(reason)


def run_on_two_nodes(folder: Path) -> None:
    """Start two Ray nodes with GPUs of their own, plan for them, run the trials, and print what they saw."""
    from ray.cluster_utils import Cluster

    seen = folder / "seen"
    seen.mkdir()
    made = Cluster()
    for name, cards in CARDS.items():
        program = folder / name / "nvidia-smi"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n" + "".join(f"echo 'GPU-{i}, {card}'\n" for i, card in enumerate(cards)))
        program.chmod(0o755)
        variables = {"PATH": f"{program.parent}:{os.environ['PATH']}", "SEEN": str(seen), "NODE": name}
        made.add_node(num_cpus=8, num_gpus=len(cards), env_vars=variables, include_dashboard=False)
    try:
        with ray_cluster(made.address, cpus=0) as head:
            grid = ["grid.model.size=[25k, 1B]", "grid.data.size=[8k]", "grid.seed=[0,1,2,3]"]
            few = ["data.documents=2k", "data.validation=100", f"storage={folder}"]
            settings = config.load("grammar.yaml", [*grid, *few])
            plan = plan_sweep(settings, folder, cluster())
            assert [trial.placement.gpu_fraction for trial in plan.trials] == [0.3333] * 4 + [1.0] * 4
            trials = [plan.trials[-1], *plan.trials[:4]]
            sweep = sweep_store(settings)
            jobs = [make_job(trial, sweep, plan) for trial in trials]
            run_jobs(jobs, Silent(), retries=0, concurrent=None, state=folder / "ray", head=head, trainable=Looking)
    finally:
        made.shutdown()
    saw = {path.name: json.loads(path.read_text()) for path in seen.iterdir()}
    trackers = sorted({"mlflow", "wandb"} & sys.modules.keys())
    told = {"resources": plan.resources.describe(), "trackers": trackers}
    print(json.dumps({**told, "saw": [saw[trial.label] for trial in trials]}))


@pytest.mark.slow
def test_trials_get_the_gpus_that_they_were_planned_for():
    with tempfile.TemporaryDirectory(prefix="cards") as folder:
        ran = subprocess.run(
            [sys.executable, __file__, folder],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CUDA_"))},
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                "RAY_AUTH_MODE": "disabled",
                "RAY_TMPDIR": folder,
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["resources"] == (
        "2 machines, 16 CPU cores, 3 GPUs (1 NVIDIA H100 80GB HBM3 of 86 GB, 2 NVIDIA RTX A4000 of 17 GB)"
    )
    assert found["trackers"] == []  # Ray imports those that are installed, where they are not kept from it
    first, *others = found["saw"]
    assert first == ["large", "0"]
    # Four trials at a time on the two GPUs of the other node: the device that they share is one for each.
    assert {node for node, _ in others} == {"small"}
    assert {device for _, device in others} <= {"0", "1"}
    assert max(others.count(["small", device]) for device in "01") == 3


if __name__ == "__main__":
    run_on_two_nodes(Path(sys.argv[1]))
