"""Measure the share of a run's processor time that its validations and its probes take, at their default settings.

    python benchmarks/evaluation_share.py [--size 6.4k] [--steps 1000] [--batches 512,2048]

A whole trial in this process, with DeepSpeed's engine, as a rank of a sweep has it; what is measured at its end counts.
Processor time of the process, so that what else the machine does matters little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import Row
from step_speed import set_rank_environment

_CONFIGURATION = """
name: share
model: {{family: vanilla, layers: 2, size: {size}}}
data: {{corpus: question_formation, documents: 4k, validation: 2k, size: 20k}}
train: {{steps: {steps}, batch_tokens: {batch}}}
"""


def main() -> None:
    """Train, and print a row for validations and one for probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="6.4k")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batches", default="512,2048", help="tokens of a step")
    given = parser.parse_args()
    set_rank_environment()
    import scipy.special  # noqa: F401 - as in the process that ranks are forked from

    from amscale.probes.suite import ProbeSuite
    from amscale.training.loss import Evaluation

    spent = {"validation": 0.0, "probes": 0.0}
    for of_class, method, what in (
        (Evaluation, "loss", "validation"),
        (Evaluation, "measure", "validation"),
        (ProbeSuite, "measure", "probes"),
    ):
        setattr(of_class, method, _timed(getattr(of_class, method), spent, what))
    with tempfile.TemporaryDirectory() as name:
        for batch in map(int, given.batches.split(",")):
            spent |= dict.fromkeys(spent, 0.0)
            seconds = _train(Path(name) / str(batch), given.size, given.steps, batch)
            steps = seconds - sum(spent.values())
            for what, goal in (("validation", "0.02"), ("probes", "0.01")):
                row = f"{what} of a run of {given.steps} steps of {batch} tokens, last included"
                ours, theirs = f"{spent[what]:.2f} s", f"{steps:.1f} s of steps"
                Row(row, ours, theirs, [spent[what] / steps], goal, "").print()


def _timed(measure: Callable[..., Any], spent: dict[str, float], what: str) -> Callable[..., Any]:
    def measured(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return measure(*arguments, **options)
        finally:
            spent[what] += time.process_time() - began

    return measured


_accelerators: list[Any] = []


def _train(folder: Path, size: str, steps: int, batch: int) -> float:
    """Run one trial to its result; return the processor seconds of its loop and its end."""
    import torch

    from amscale.planning.single_trial import plan_single_trial
    from amscale.training import engine
    from amscale.training.bookkeeping import Bookkeeping
    from amscale.training.loop import train
    from amscale.training.resolve import resolve
    from amscale.training.run import OpenTrial

    folder.mkdir()
    configuration = folder / "share.yaml"
    configuration.write_text(_CONFIGURATION.format(size=size, steps=steps, batch=batch), encoding="utf-8")
    single = plan_single_trial(str(configuration), [f"storage={folder}"])
    made = single.sweep.trial(single.plan.label)
    single.write(made)
    store, cell, placement, tokens = resolve(str(made.spec), [])
    assert tokens is not None
    torch.set_num_threads(placement.cpus_per_process)
    if not _accelerators:
        _accelerators.append(engine.start_accelerator(placement, cell.launch.collective_timeout))
    books = Bookkeeping(cell.launch.files_timeout)
    trial = OpenTrial.begin(_accelerators[0], books, store, cell, placement, tokens, lambda: False, time.time())
    began = time.process_time()
    outcome = train(trial.run, trial.progress)
    trial.end(outcome)
    return time.process_time() - began


if __name__ == "__main__":
    main()
