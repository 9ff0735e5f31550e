"""Write the report of a sweep: one self-contained HTML page, and its figures as files.

examples:
  python -m amscale.report results/quick               writes results/quick/report.html
  python -m amscale.report s3://bucket/sweeps/quick

settings that matter: those of `fit` in the sweep's configuration, since the report shows the estimates of fit.json and
makes them anew where trials have changed.
"""


def report(sweep: str = "results/quick", output: str | None = None, json: bool = False) -> None:
    """Write `report.html`, and the figures as PNG and SVG in `figures/`.

    Args:
        sweep: the sweep's folder or URI, <storage>/<name>, or its archive.
        output: the folder to write to; by default the sweep's own; of an archive, one of its name beside it.
        json: print one JSON document on standard output instead of the page's path.
    """
    from amscale.cli import print_json
    from amscale.reporting.page import write_report
    from amscale.trials.sweep_store import open_sweep

    with open_sweep(str(sweep)) as path:
        page = write_report(path, output=None if output is None else str(output), address=str(sweep))
        if json:
            figures = sorted(str(file) for file in (page.parent / "figures").iterdir())
            print_json({"report": str(page), "figures": figures})
        else:
            print(page)


if __name__ == "__main__":
    from amscale.cli import run

    run(report)
