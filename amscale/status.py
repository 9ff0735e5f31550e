"""Show a running or finished sweep at a glance, from its folder alone."""

import sys


def status(sweep: str = "results/quick") -> int:
    """Print one row a trial: state, step, losses, tokens per second.

    Args:
        sweep: the sweep's folder or URI.
    """
    from amscale.errors import InputError
    from amscale.reporting.terminal import make_console, print_results
    from amscale.trials.sweep_store import open_sweep

    with open_sweep(str(sweep)) as store:
        if not (store.path / "sweep.yaml").is_file():
            raise InputError(f"{sweep}: not a sweep folder; give <storage>/<name> of a sweep")
        print_results(store.all_trials(), make_console())
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(status, sys.argv[1:])
