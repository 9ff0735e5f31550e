"""Write the results and records of a sweep as tables: CSV or Parquet.

examples:
  python -m amscale.export results/quick                                writes results.csv, train.csv … into exports/
  python -m amscale.export results/quick --format parquet --output tables
  python -m amscale.export results/quick --format archive --output .    quick.parquet, which fit and report read
  python -m amscale.export s3://bucket/sweeps/quick --json

settings that matter: `fit.count` in the sweep's configuration, the convention for N.
"""

from amscale.errors import InputError

FORMATS = ("csv", "parquet", "archive")


def export(
    sweep: str = "results/quick",
    output: str | None = None,
    format: str = "csv",
    probes: str = "all",
    json: bool = False,
) -> None:
    """Write one table of results, a row a trial, and one each of training, validation and probe records; or an archive.

    Losses are in nats per token. A table without rows is not written. An archive is one small Parquet file, a row a
    trial, from which fit and report make every number again.

    Args:
        sweep: the sweep's folder or URI, <storage>/<name>, or its archive.
        output: the folder to write to; by default `exports` in the sweep's own.
        format: csv, parquet or archive.
        probes: of an archive: all records of the probes, only the last of each trial, or none.
        json: print one JSON document on standard output instead of the files' paths.
    """
    from amscale.api import Sweep
    from amscale.cli import print_json

    if format not in FORMATS:
        raise InputError(f"--format={format}: allowed are {', '.join(FORMATS)}")
    written = Sweep.started(sweep).export(output, format, probes)
    if json:
        print_json({"files": {name: str(file) for name, file in written.items()}})
    else:
        for file in written.values():
            print(file)


if __name__ == "__main__":
    from amscale.cli import run

    run(export)
