"""Measure what a sweep costs its driver and readers per trial as a grid grows: trials that only report, no training.

    python benchmarks/sweep_scale.py [--trials 10 100 1000] [--machines 4] [--slots 2] [--records 200]
    python benchmarks/sweep_scale.py --plan                 # a plan of 10 000 trials instead

Every trial reports twice, publishes a result with a loss curve of --records steps, and ends. Everything else is the
product: trial folders, `run_jobs`, its callbacks and the progress that a sweep shows. The machines are Ray raylets on
this one. Each number of trials runs in a separate process, of which are printed

    driver CPU    seconds on the processor, threads included, from the first job to the last result, per trial
    wall          seconds per trial; most of it is Ray starting one worker process after the other on this machine
    memory        what the process grew by at its peak while the trials ran
    status, fit   seconds of `python -m amscale.status` and `.fit` on the folder that the trials left

The driver's cost per trial does not grow where the first column stays level.
"""

import argparse
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_SIDE = 100
"""Number of N, and of D, of the planned grid."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--machines", type=int, default=4)
    parser.add_argument("--slots", type=int, default=2, help="trials at a time on each machine")
    parser.add_argument("--records", type=int, default=200, help="training records of each trial")
    parser.add_argument("--folder", type=Path, help="where to leave the sweeps; by default nowhere")
    parser.add_argument("--plan", action="store_true", help="time a plan of 10 000 trials")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        _plan()
    elif options.one:
        print(json.dumps(_sweep(options.folder, options.one, options.machines, options.slots, options.records)))
    else:
        print(f"{'trials':>7} {'driver CPU':>12} {'wall':>8} {'memory':>9} {'status':>8} {'fit':>8}")
        for trials in options.trials:
            with tempfile.TemporaryDirectory() as temporary:
                _row(trials, (options.folder or Path(temporary)) / f"scale_{trials}", options)


def _row(trials: int, folder: Path, options: argparse.Namespace) -> None:
    arguments = ["--one", trials, "--folder", folder, "--machines", options.machines]
    arguments += ["--slots", options.slots, "--records", options.records]
    ran = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    cost = json.loads(ran.stdout.splitlines()[-1])
    status, fit = (_seconds(name, str(folder)) for name in ("status", "fit"))
    print(
        f"{trials:>7} {1e3 * cost['cpu'] / trials:>9.1f} ms {cost['wall'] / trials:>6.2f} s {cost['memory']:>6.0f} MB "
        f"{status:>6.1f} s {fit:>6.1f} s",
        flush=True,
    )


def _seconds(command: str, *arguments: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", f"amscale.{command}", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def _sweep(folder: Path, trials: int, machines: int, slots: int, records: int) -> dict[str, float]:
    """Run `trials` trials through the product's driver; return seconds of processor and wall, and memory in MB."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray.cluster_utils import Cluster
    from rich.console import Console

    from amscale.cluster import tune
    from amscale.cluster.ray_cluster import ray_cluster
    from amscale.reporting.progress import LiveProgress

    jobs, said = _jobs(folder, trials, records), io.StringIO()
    # Where Ray keeps its sockets, and the address by which other programs would find this cluster.
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="scale")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": slots, "include_dashboard": False})
    for _ in range(machines - 1):
        cluster.add_node(num_cpus=slots)
    try:
        with ray_cluster(cluster.address, cpus=0) as head:
            assert len(ray.nodes()) == machines
            console = Console(file=said)
            before, began, cpu = _peak(), time.monotonic(), time.process_time()
            with LiveProgress(console, {job.label: 2 for job in jobs}, done={}) as progress:
                tune.run_jobs(
                    jobs,
                    progress,
                    retries=0,
                    concurrent=None,
                    state=folder / "ray",
                    head=head,
                    trainable=_reporting_trial(),
                )
            cost = {"cpu": time.process_time() - cpu, "wall": time.monotonic() - began, "memory": _peak() - before}
    finally:
        cluster.shutdown()
    done = sum(job.location.store().done() for job in jobs)
    assert done == trials, f"{done} of {trials} trials have a result:\n{said.getvalue()[-2000:]}"
    return cost


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _jobs(folder: Path, trials: int, records: int) -> list[Any]:
    """Make a job and a trial folder for each cell of a square grid."""
    from amscale import config
    from amscale.cluster.tune import Job
    from amscale.trials.identity import trial_label
    from amscale.trials.records import Placement
    from amscale.trials.sweep_store import SweepStore

    side = math.ceil(math.sqrt(trials))
    cell = config.expand(config.load("quick.yaml", ["model.size=25k", "data.size=8k"]))[0]
    sweep = SweepStore(folder)
    sweep.create(cell)
    placement = Placement(1, 1, 1, "cpu", 0, "fp32", 1, 1)
    jobs = []
    for index in range(trials):
        N, D = round(1e4 * 1.2 ** (index % side)), round(1e4 * 1.2 ** (index // side))
        trial = sweep.trial(trial_label(cell, N, D, f"{index:012x}"))
        trial.write_spec(cell, placement, folder / "tokens", f"{index:012x}")
        (trial.path / "wanted.json").write_text(json.dumps({"N": N, "D": D, "records": records}))
        label = trial.path.name
        jobs.append(Job(label, sweep.location(label), placement, grace=5, stalled_after=1800))
    return jobs


def _reporting_trial() -> Any:
    """Return a trainable that reports and does not train."""
    from ray import tune

    from amscale.trials.location import TrialLocation

    class Reports(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self._folder = TrialLocation(**config["job"]["location"]).store()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            if self.iteration < 1:
                return {"state": "training", "step": 1, "loss": 3.0, "tokens": 1500, "seconds": 1.0}
            wanted = json.loads((self._folder.path / "wanted.json").read_text())
            _publish(self._folder, **wanted)
            return {"state": "training", "step": 2, "loss": 2.0, "tokens": 3000, "seconds": 2.0, "done": True}

    return Reports


def _publish(folder: Any, N: int, D: int, records: int) -> None:
    """Write the records and the result of a run of N parameters on D tokens, by a formula."""
    from amscale.trials.records import TrialResult

    floor = 1 + 0.3 * (N / 1e5) ** -0.3 + 0.3 * (D / 1e5) ** -0.4
    train = [floor + 2 * math.exp(-5 * step / records) - N / D / 1e3 for step in range(1, records + 1)]
    lines = [{"kind": "train", "step": s, "tokens": s, "loss": x, "time": s / 10} for s, x in enumerate(train, start=1)]
    lines += [{"kind": "validation", "step": records, "loss": floor}]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    parameters = {"embedding": 0, "output_head": 0, "attention": N // 3, "feed_forward": N - N // 3}
    losses = {"train_last": train[-1], "train_least": train[-1], "train_least_step": records, "train_window": 10}
    folder.publish(
        TrialResult.model_validate(
            {
                "format": 1,
                "state": "finished",
                "reason": None,
                "seed": 0,
                "steps": records,
                "shape": {"family": "vanilla"},
                "parameters": parameters | {"norms_and_rest": 0, "total": N},
                "flops": {"formula": "6ND", "per_token": 6.0 * N, "total": 6.0 * N * records},
                "data": {"unique_tokens": D, "documents": D, "tokens_seen": records, "entropy_per_token": None},
                "losses": losses
                | {"validation_last": floor, "validation_least": floor, "validation_least_step": records},
                "time": {"wall_seconds": 1.0, "device_seconds": 1.0},
                "engine": {"world_size": 1},
            }
        )
    )


def _plan() -> None:
    """Time `python -m amscale.plan` of 10 000 trials, from the start of the interpreter to the last line."""
    grid = {"model.size": [round(1e5 * 1.08**i) for i in range(_SIDE)]}
    grid |= {"data.size": [round(2e4 * 1.07**i) for i in range(_SIDE)]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        tree: dict[str, Any] = {"name": "plan", "grid": grid, "storage": folder, "model": {"family": "vanilla"}}
        tree |= {"data": {"corpus": "question_formation"}, "train": {"steps": 1000}, "launch": {"device_memory": "80G"}}
        path.write_text(json.dumps(tree))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = _seconds("plan", str(path))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"plan of {_SIDE * _SIDE} trials: {wall:.2f} s of wall time, {cpu:.2f} s of processor time")


if __name__ == "__main__":
    main()
