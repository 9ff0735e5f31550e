"""Write the report of a sweep: one self-contained HTML page, and its figures as files."""


def report(sweep: str = "results/quick") -> None:
    """Write `<sweep>/report.html`, and the figures as PNG and SVG in `<sweep>/figures/`.

    Args:
        sweep: the sweep's folder or URI, <storage>/<name>.
    """
    from amscale.reporting.report import write_report
    from amscale.trials.sweep_store import open_sweep

    with open_sweep(str(sweep)) as store:
        print(write_report(store.path))


if __name__ == "__main__":
    from amscale.cli import run

    run(report)
