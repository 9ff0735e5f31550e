"""Show a running or finished sweep at a glance, from its folder alone.

examples:
  python -m amscale.status results/quick
  python -m amscale.status s3://bucket/sweeps/quick --json

states: finished and diverged have a result; running, failed, stopped and waiting have none yet.
"""

import sys


def status(sweep: str = "results/quick", json: bool = False) -> int:
    """Print one row a trial: state, step, losses, tokens per second.

    Args:
        sweep: the sweep's folder or URI.
        json: print one JSON document on standard output instead.
    """
    from amscale.cli import print_json
    from amscale.errors import no_sweep
    from amscale.reporting.terminal import make_console, print_results, status_rows
    from amscale.trials.sweep_store import SweepStore, open_sweep

    with open_sweep(str(sweep)) as path:
        if not (path / "sweep.yaml").is_file():
            raise no_sweep(sweep)
        trials = SweepStore(path).all_trials()
        if json:
            print_json({"sweep": str(sweep), "trials": status_rows(trials)})
        else:
            print_results(trials, make_console())
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(status, sys.argv[1:])
