"""Show a running or finished sweep at a glance, from its folder alone.

examples:
  python -m amscale.status results/quick
  python -m amscale.status results/quick --watch      the map of the grid while it runs
  python -m amscale.status s3://bucket/sweeps/quick --json

states: finished and diverged have a result; running, failed, stopped and waiting have none yet.
"""

import sys


def status(sweep: str = "results/quick", watch: bool = False, json: bool = False) -> int:
    """Print one row a trial: state, step, losses, tokens per second; of a URI also where its curves are, fetched here.

    Args:
        sweep: the sweep's folder or URI.
        watch: show the map of the grid instead, cell by cell, until every trial is done; without a terminal, a line for
            each change.
        json: print one JSON document on standard output instead.
    """
    from amscale.cli import print_json
    from amscale.errors import InputError, no_sweep
    from amscale.reporting.terminal import make_console, print_results, status_rows
    from amscale.reporting.watch import watch as show_map
    from amscale.trials.objects import is_uri
    from amscale.trials.sweep_store import SweepStore, open_sweep

    with open_sweep(str(sweep)) as path:
        if not (path / "sweep.yaml").is_file():
            raise no_sweep(sweep)
        if watch:
            if json or is_uri(str(sweep)):
                raise InputError(
                    "--watch shows a folder on a terminal; leave --json out, and watch where the sweep runs"
                )
            show_map(SweepStore(path), make_console())
            return 0
        trials = SweepStore(path).all_trials()
        if json:
            print_json({"sweep": str(sweep), "trials": status_rows(trials)})
            return 0
        print_results(trials, make_console())
        if is_uri(str(sweep)):
            from amscale.reporting.tensorboard import SweepBoard, curves_line
            from amscale.reporting.terminal import print_line

            SweepBoard(SweepStore(path), {trial.path.name: "" for trial in trials}, {}).link()
            print_line(make_console(), curves_line(path))
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(status, sys.argv[1:])
