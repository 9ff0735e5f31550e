"""Run a sweep: plan, prepare data, train every trial without a result, fit.

examples:
  python -m amscale.sweep                                 quick.yaml: 25 small trials, about 4 minutes
  python -m amscale.sweep my.yaml --dry_run               only the plan
  python -m amscale.sweep my.yaml grid.seed=[0,1,2]       two more seeds; what has a result is not run again
  python -m amscale.sweep my.yaml --budget 8 --tensorboard    ask before more than 8 machine hours; show curves
  python -m amscale.sweep my.yaml launch.address=auto     on a running Ray cluster

settings that matter (docs/configuration.md has all):
  name, storage                     results go to <storage>/<name>, which may be a URI such as s3://bucket/sweeps
  grid.model.size, grid.data.size   lists of N and D, such as [400k,1M]; any setting can be an axis of the grid
  model.family, data.corpus         what is trained, and on what
  train.steps or train.epochs       how long; train.batch_tokens and train.learning_rate how
  launch.machines, launch.processes_per_machine, launch.device    what a trial gets; chosen where it is auto
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def sweep(
    *arguments: str,
    dry_run: bool = False,
    budget: float | None = None,
    yes: bool = False,
    tensorboard: bool = False,
    json: bool = False,
) -> int:
    """Plan a grid of trials, train those that have no result yet, and say what the results imply.

    Args:
        arguments: CONFIG is a YAML file, or the name of one that comes with the package (quick.yaml if none is given);
            settings go on top of it, and an axis of the grid is narrowed by its key.
        dry_run: stop after the plan.
        budget: machine hours (wall time times machines) that may be spent; before more the sweep asks, or ends where
            nobody can answer.
        yes: spend more than the budget without asking.
        tensorboard: serve the curves in TensorBoard on loopback, and print its address; it ends with the sweep.
        json: print one JSON document on standard output; everything else goes to standard error.

    Returns:
        0 when every trial has a result, 1 when some failed.
    """
    from amscale.cli import print_json
    from amscale.config import load, split_arguments
    from amscale.driver import run_sweep
    from amscale.reporting.terminal import make_console, status_rows

    if dry_run:
        from amscale.plan import plan

        return plan(*arguments, json=json)
    lost = (lambda reason: print_json({"error": reason, "lost": True})) if json else None
    experiment = load(*split_arguments(arguments))
    found = run_sweep(experiment, make_console(), lost, _approval(budget, yes), tensorboard)
    if json:
        fit = found.fit and found.fit.to_dict()
        print_json(
            {
                "verdict": fit and fit["verdict"],
                "sweep": found.address,
                "trials": status_rows(found.trials),
                "failed": found.failed,
                "fit": fit,
                "no_estimates": found.no_fit,
                "report": found.report and str(found.report),
            }
        )
    return found.exit_status


def _approval(budget: float | None, yes: bool) -> "Callable[[float], None] | None":
    """Return what asks before more machine hours than the budget are spent; None where there is none.

    Raises:
        InputError: the budget is negative.
    """
    from amscale.errors import InputError

    if budget is None:
        return None
    if budget < 0:
        raise InputError(f"budget={budget!r} must be a number of machine hours, such as 8 or 0.5")

    def approve(hours: float) -> None:
        if yes or hours <= budget:
            return
        text = f"the plan takes about {hours:.2g} machine hours, and --budget is {budget:g}"
        if sys.stdin is None or not sys.stdin.isatty():
            raise InputError(f"{text}; give --yes to run it all the same, a larger budget, or a smaller grid")
        if input(f"{text}. Run it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise InputError("not run")

    return approve


if __name__ == "__main__":
    from amscale.cli import run

    run(sweep, sys.argv[1:])
