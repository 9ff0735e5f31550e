"""Compare two sweeps: settings, the cells that both have, and what is estimated from them.

examples:
  python -m amscale.compare results/quick results/quick_wide
  python -m amscale.compare s3://bucket/sweeps/a results/b --json

settings that matter: none; estimates are those of each sweep's fit.json, so run `fit` where trials have come since.
"""


def compare(first: str, second: str, json: bool = False) -> None:
    """Print the settings that differ, the losses of common cells side by side, and the estimates that changed.

    Cells are common by model family, N, D and seed, and by every setting of both grids that both sweeps have.

    Args:
        first: a sweep's folder or URI, <storage>/<name>.
        second: another's.
        json: print one JSON document on standard output instead.
    """
    from dataclasses import asdict

    from amscale.api import Sweep
    from amscale.cli import print_json
    from amscale.reporting.comparison_table import print_comparison
    from amscale.reporting.terminal import make_console

    found = Sweep.started(first).compare(Sweep.started(second))
    if json:
        print_json(asdict(found))
    else:
        print_comparison(found, make_console())


if __name__ == "__main__":
    from amscale.cli import run

    run(compare)
