"""Run a sweep: plan, prepare data, train what the ledger lacks, fit."""

import sys


def sweep(*arguments: str, dry_run: bool = False) -> int:
    """Plan a grid of trials, train those that have no result yet, and say what the results imply.

    Args:
        arguments: [CONFIG] [key=value …]. CONFIG is a YAML file, or the name of one that comes with the package
            (quick.yaml if none is given); settings go on top of it, and an axis of the grid is narrowed by its key.
        dry_run: stop after the plan.

    Returns:
        0 when every trial has a result, 1 when some failed.
    """
    from amscale.config import load, split_arguments
    from amscale.sweeping import run_sweep

    return run_sweep(load(*split_arguments(arguments)), dry_run)


if __name__ == "__main__":
    from amscale.cli import run

    run(sweep, sys.argv[1:])
