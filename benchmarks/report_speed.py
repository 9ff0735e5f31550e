"""Processor time, files and points of a report as trials and steps grow, on sweep folders that a formula fills.

python benchmarks/report_speed.py [--trials 12 48] [--steps 1000 10000]

The estimates are at hand, so no fit is timed: reading the folder, charts, page and pictures are.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.made_fit import EXPONENT, FLOOR, fit_of, surfaces
from helpers.made_sweep import write_sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[12, 48], help="multiples of 12")
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10000])
    options = parser.parse_args()
    columns = ("trials", "steps", "read", "page", "pictures", "files", "points", "page size")
    print("".join(f"{name:>10}" for name in columns))
    for trials in options.trials:
        for steps in options.steps:
            with tempfile.TemporaryDirectory() as folder:
                print(_row(Path(folder) / "made", trials, steps), flush=True)


def _row(folder: Path, trials: int, steps: int) -> str:
    from amscale.reporting.chart import palette_of
    from amscale.reporting.figures import report_charts
    from amscale.reporting.page import render_page
    from amscale.reporting.report_data import read_report_data
    from amscale.reporting.static import write_charts

    write_sweep(folder, seeds=tuple(range(trials // 12)), steps=steps)
    fit = fit_of(folder, EXPONENT, *surfaces(), FLOOR)
    times = [time.process_time()]
    report = read_report_data(folder, fit)
    times.append(time.process_time())
    charts = report_charts(report)
    palette = palette_of(charts)
    page = render_page(report, charts, palette)
    times.append(time.process_time())
    files = write_charts(charts, palette, folder / "figures")
    times.append(time.process_time())
    panels = [panel for chart in charts for _, panels in chart.options for panel in panels]
    points = sum(len(series.x) for panel in panels for series in panel.series)
    read, rendered, drawn = (end - start for start, end in itertools.pairwise(times))
    seconds = "".join(f"{value:>8.2f} s" for value in (read, rendered, drawn))
    return f"{trials:>10}{steps:>10}{seconds}{len(files):>10}{points:>10}{len(page) / 1e6:>7.2f} MB"


if __name__ == "__main__":
    main()
