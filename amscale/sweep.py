"""Run a sweep: plan, prepare data, train every trial without a result, fit.

examples:
  python -m amscale.sweep                                 quick.yaml: twelve small trials, about 4 minutes
  python -m amscale.sweep my.yaml --dry_run               only the plan
  python -m amscale.sweep my.yaml grid.seed=[0,1,2]       two more seeds; what has a result is not run again
  python -m amscale.sweep my.yaml launch.address=auto     on a running Ray cluster

settings that matter (docs/configuration.md has all):
  name, storage                     results go to <storage>/<name>, which may be a URI such as s3://bucket/sweeps
  grid.model.size, grid.data.size   lists of N and D, such as [400k,1M]; any setting can be an axis of the grid
  model.family, data.corpus         what is trained, and on what
  train.steps or train.epochs       how long; train.batch_tokens and train.learning_rate how
  launch.machines, launch.processes_per_machine, launch.device    what a trial gets; chosen where it is auto
"""

import sys


def sweep(*arguments: str, dry_run: bool = False, json: bool = False) -> int:
    """Plan a grid of trials, train those that have no result yet, and say what the results imply.

    Args:
        arguments: CONFIG is a YAML file, or the name of one that comes with the package (quick.yaml if none is given);
            settings go on top of it, and an axis of the grid is narrowed by its key.
        dry_run: stop after the plan.
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
    found = run_sweep(load(*split_arguments(arguments)), make_console(), lost)
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


if __name__ == "__main__":
    from amscale.cli import run

    run(sweep, sys.argv[1:])
