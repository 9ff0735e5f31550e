"""Estimate and fit from a sweep folder, or from any table with N, D and loss.

examples:
  python -m amscale.fit results/quick
  python -m amscale.fit results/quick --next 3 > next.yaml
  python -m amscale.fit points.csv --n_column "Model Size" --flops_column "Training FLOP" --drop_highest 5
  python -m amscale.fit runs.csv --by corpus                          a fit for each corpus
  python -m amscale.fit runs.csv --fit_where 'flops<1e20' --predict_where 'flops>=1e20'
  python -m amscale.fit results/quick --forecast N=1M,D=2M --save later.json    later fits score it

settings that matter: `fit` in the sweep's configuration; the flags of the same names go before it.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError

if TYPE_CHECKING:
    from amscale.scaling.base_fit import BaseFit
    from amscale.scaling.laws.compare import Progress
    from amscale.scaling.points import PointTable
    from amscale.scaling.table import Columns
    from amscale.scaling.table_file import Cells


def fit(
    source: str,
    output: str | None = None,
    count: str | None = None,
    window: float | None = None,
    threshold: float | None = None,
    hypotheses: Sequence[float] | None = None,
    resamples: int = 400,
    where: str | None = None,
    by: str | None = None,
    fit_where: str | None = None,
    predict_where: str | None = None,
    forecast: str | None = None,
    law: str | None = None,
    save: str | None = None,
    score: str | None = None,
    tune: str | Sequence[str] | None = None,
    tuned_elsewhere: bool = False,
    next: int | None = None,
    grounds: bool = False,
    drop_highest: int = 0,
    sample: int | None = None,
    n_column: str = "N",
    d_column: str = "D",
    loss_column: str = "loss",
    flops_column: str = "flops",
    seed_column: str = "seed",
    tokens_column: str = "tokens",
    loss_unit: str = "nats",
    bytes_per_token: float | None = None,
    json: bool = False,
) -> None:
    """Fit `source`, print tables of estimates and of laws, and write fit.json and figures/.

    Args:
        source: a sweep's folder or URI, or its archive, or a CSV, TSV, JSON, JSON Lines or Parquet file.
        output: the folder for fit.json and figures/; by default the sweep's own, and nothing is written for a file, an
            archive or the trials that --where chooses.
        count: the convention for N of a sweep: non_embedding, non_embedding_with_norms, with_head, total or active; by
            default, as for the next three, what its configuration says under `fit`.
        window: iterations of the D* criterion, in steps or as a share of the run (sweeps).
        threshold: threshold of the D* criterion, nats² (sweeps).
        hypotheses: exponents k of N ∝ D^k to test; ½, 1, 1.35, 2 and 4 for a file.
        resamples: bootstrap refits.
        where: fit only the trials with these settings, or the rows of a table with these cells, key=value or several
            joined by commas; for numbers also <, <=, > and >=, such as 'N<10M'.
        by: fit each value of a column of a table, or of a setting of a sweep, separately, and compare them.
        fit_where: with --predict_where, instead of the fit: the rows or trials to fit.
        predict_where: the rows or trials to predict from them.
        forecast: instead of the fit, predict cells that have not been run: N=1B,D=20B, several joined by semicolons;
            tokens=80B where data repeat.
        law: the id of the law that predicts; by default the one that describes the points and predicts them best.
        save: write the forecast to this file; that of a sweep, where it is a bare name, into its folder forecasts/;
            an archive stays as it is.
        score: instead of the fit, compare the forecast in this file with the points.
        tune: settings of which each cell takes its best value, interpolated: columns of a table (lr,batch) or keys of a
            sweep (train.learning_rate), joined by commas; none tunes nothing. By default what the sweep's configuration
            has under `tune`, and the columns of a table that are named for a learning rate or a batch.
        tuned_elsewhere: every row of a table is of a tuned run, which no column tells: its exponents are tested by
            their own intervals, not by how far one learning rate or batch for all may have moved them (files).
        next: instead of the fit, print as YAML this many cells that would narrow the interval of k the most.
        grounds: print below the tables what each estimate rests on, and why others have no value.
        drop_highest: the number of highest losses to leave out (files).
        sample: fit this many rows, drawn at random (files).
        n_column: column of N.
        d_column: column of D, unique tokens; where it is absent, D is the tokens seen, or else FLOPs / (6 N).
        loss_column: column of the loss.
        flops_column: column of training FLOPs.
        seed_column: column of the seed.
        tokens_column: column of the tokens seen, where they differ from the unique ones.
        loss_unit: nats or bits, both per token, bits_per_byte or perplexity.
        bytes_per_token: mean bytes of a token, for a loss in bits_per_byte.
        json: print one JSON document on standard output instead of the tables.
    """
    given = dict(locals())

    from amscale.trials.archive import is_archive
    from amscale.trials.sweep_store import open_sweep

    with open_sweep(str(source)) as path:
        _refuse_misplaced(given, path)
        if next is not None:
            _propose_next(path, given)
            return
        if (by, forecast, score, fit_where, predict_where) != (None,) * 5:
            _other_than_one_fit(path, given)
            return
        _refuse_alone(given, "law", "save")
        with _output_folder(output, path, whole=where is None and not is_archive(str(source))) as folder:
            _show(_fitted_in_sight(path, given), folder, json, grounds)


_COLUMNS = ("n_column", "d_column", "loss_column", "flops_column", "seed_column", "tokens_column")
_UNIT = ("loss_unit", "bytes_per_token")
_OF_A_SWEEP = ("count", "window", "threshold")
_OF_A_TABLE = (*_COLUMNS, *_UNIT, "drop_highest", "sample", "tuned_elsewhere")


def _refuse_misplaced(given: dict[str, Any], source: Path) -> None:
    """Refuse a setting that this kind of source does not know.

    Raises:
        InputError: names it.
    """
    if not source.exists():
        return  # the reader says so
    parameters = inspect.signature(fit).parameters
    of_a_sweep = source.is_dir()
    for name in _OF_A_TABLE if of_a_sweep else _OF_A_SWEEP:
        if given[name] != parameters[name].default:
            kind = "a table of points" if of_a_sweep else "a sweep's folder"
            raise InputError(f"{name}={given[name]!r} is for {kind}, and {source} is not one; leave --{name} out")


def _fitted_in_sight(path: Path, given: dict[str, Any]) -> "BaseFit":
    """Return the fit; a terminal shows its first values until all intervals are there."""
    from amscale.reporting.first_values import first_values
    from amscale.reporting.terminal import make_console

    if given["json"]:
        return _fitted(path, given)
    with first_values(make_console()) as progress:
        return _fitted(path, given, progress=progress)


def _fitted(
    path: Path, given: dict[str, Any], cells: "Cells | None" = None, progress: "Progress | None" = None
) -> "BaseFit":
    from amscale.fitted import fit_folder, fit_settings
    from amscale.planning.next_grid import with_next_step
    from amscale.scaling.fit import fit_table

    if path.is_dir():
        names = ("count", "window", "threshold", "hypotheses", "resamples", "where")
        found = {name: given[name] for name in names}
        return fit_folder(path, **found, tune=_axes(given["tune"]), address=str(given["source"]), progress=progress)
    hypotheses = fit_settings(path, hypotheses=given["hypotheses"])["hypotheses"]
    given = given | {"tune": _axes(given["tune"])}
    kept = ("resamples", *_UNIT, "where", "tune", "tuned_elsewhere")
    chosen = {name: given[name] for name in kept} | {"highest": given["drop_highest"], "rows": given["sample"]}
    if cells is not None:
        return fit_table(cells, _columns(given), hypotheses, **chosen)
    return with_next_step(fit_table(path, _columns(given), hypotheses, **chosen, progress=progress))


_MODES = ("by", "forecast", "score", "predict_where")


def _other_than_one_fit(path: Path, given: dict[str, Any]) -> None:
    """Fit by a column, predict, forecast or score, as asked.

    Raises:
        InputError: two of these are asked for at once, or a setting of another one is given.
    """
    from amscale.cli import print_json
    from amscale.reporting.predictions import print_by, print_forecast, print_predictions, print_score
    from amscale.reporting.terminal import make_console

    asked = [name for name in _MODES if given[name] is not None]
    if len(asked) != 1:
        raise InputError(
            "--fit_where goes with --predict_where"
            if not asked
            else f"--{' and --'.join(asked)}: ask for one at a time"
        )
    if asked[0] != "predict_where":
        _refuse_alone(given, "fit_where")
    if asked[0] != "forecast":
        _refuse_alone(given, "save")
    if asked[0] in ("by", "score"):
        _refuse_alone(given, "law")
    if asked[0] != "by" and given["output"] is not None:
        raise InputError(f"output={given['output']!r} is for a fit; --{asked[0]} prints, and --save writes a forecast")
    found, show = {
        "by": (_by, print_by),
        "forecast": (_forecast, print_forecast),
        "score": (_score, print_score),
        "predict_where": (_predict, print_predictions),
    }[asked[0]]
    document = found(path, given)
    if given["json"]:
        print_json(document)
    else:
        show(document, make_console())


def _refuse_alone(given: dict[str, Any], *names: str) -> None:
    """Refuse settings that belong to another kind of call.

    Raises:
        InputError: names the first that is given.
    """
    goes_with = {"law": "--forecast or --predict_where", "save": "--forecast", "fit_where": "--predict_where"}
    for name in names:
        if given[name] is not None:
            raise InputError(f"{name}={given[name]!r} goes with {goes_with[name]}")


def _by(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fits by a column or setting; each is written into its folder of --output."""
    from amscale.scaling.by import fit_sweep_by, fit_table_by

    if path.is_dir():
        from amscale.fitted import fit_settings

        count = fit_settings(path, count=given["count"])["count"]
        found = fit_sweep_by(
            path, given["by"], lambda where: _fitted(path, {**given, "where": where}), count, given["where"]
        )
    else:
        found = fit_table_by(
            path, given["by"], lambda cells: _fitted(path, {**given, "where": None}, cells), given["where"]
        )
    written = []
    for kind, each in found.fits.items():
        if given["output"] is not None and not isinstance(each, str):
            place = Path(str(given["output"])) / re.sub(r"[^\w.=-]+", "_", f"{found.name}={kind}")
            with _output_folder(str(place), path, whole=False) as folder:
                written += _write(each, folder)
    return {**found.to_dict(), "written": written}


def _points(path: Path, given: dict[str, Any], where: str | None, least_sizes: int = 2) -> "PointTable":
    """Return the points of a sweep or a table that --where, or another option of its kind, selects."""
    from amscale.fitted import fit_settings
    from amscale.scaling.fit import tuned
    from amscale.scaling.kinds import unlike_rows
    from amscale.scaling.points import drop_highest, sample
    from amscale.scaling.reading import read_sweep
    from amscale.scaling.table import read_table
    from amscale.trials.archive import is_archive

    tune = _axes(given["tune"])
    if path.is_dir():
        table = read_sweep(path, fit_settings(path, count=given["count"])["count"], where, tune)
        if not table.points:
            raise InputError(f"{path} has no finished trial; the first must end before there is anything to fit")
        if is_archive(str(given["source"])):
            table.source = str(given["source"])
    else:
        unit = given["loss_unit"], given["bytes_per_token"]
        table = read_table(path, _columns(given), *unit, where, tune, least_sizes)
        table = sample(drop_highest(table, given["drop_highest"]), given["sample"])
    if reason := unlike_rows(table):
        raise InputError(reason)
    tuning = tuned(table, given["resamples"])
    return table if tuning is None else tuning.table


def _forecast(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    from amscale.scaling.forecast import FOLDER, forecast, parse_cells, save_forecast
    from amscale.trials.archive import is_archive

    cells = parse_cells(str(given["forecast"]))
    document = forecast(_points(path, given, given["where"]), cells, given["law"], given["resamples"])
    written = None
    if given["save"] is not None:
        place = Path(str(given["save"])).expanduser()
        into_sweep = place.parent == Path() and path.is_dir() and not is_archive(str(given["source"]))
        written = str(save_forecast(document, path / FOLDER / place if into_sweep else place))
    return {**document, "written": written}


def _score(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    from amscale.scaling.forecast import read_forecast, score_forecast

    file = Path(str(given["score"])).expanduser()
    return score_forecast(read_forecast(file), _points(path, given, given["where"], 1), file.name)


def _predict(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    from amscale.scaling.prediction import predict_points

    both = [",".join(filter(None, (given["where"], given[name]))) or None for name in ("fit_where", "predict_where")]
    fitted, wanted = _points(path, given, both[0]), _points(path, given, both[1], 1)
    return predict_points(fitted, wanted, given["law"], given["resamples"])


def _axes(tune: Any) -> tuple[str, ...] | None:
    """Return the names that --tune gives; None where it is not given."""
    if tune is None:
        return None
    names = [str(name).strip() for name in (tune.split(",") if isinstance(tune, str) else tune)]
    return () if names == ["none"] else tuple(name for name in names if name)


def _columns(given: dict[str, Any]) -> "Columns":
    from amscale.scaling.table import Columns

    return Columns(*(given[name] for name in _COLUMNS))


def _show(found: "BaseFit", folder: Path | None, json: bool, grounds: bool) -> None:
    """Print what was found, and write it and its figures into `folder`, if any."""
    from amscale.cli import print_json
    from amscale.reporting.estimates_table import print_fit
    from amscale.reporting.terminal import make_console

    if json:
        print_json({**found.to_dict(), "written": _write(found, folder)})
        return
    console = make_console()
    print_fit(found, console, grounds)
    # Written last: a disk that is full by now takes the files, not what was found.
    written = _write(found, folder)
    if folder is None:
        text = "nothing is written: --output FOLDER writes fit.json, with all that was found, and the figures"
    else:
        text = f"written: {written[0]}, and {len(written) - 1} pictures in {folder / 'figures'}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _write(found: "BaseFit", folder: Path | None) -> list[str]:
    from amscale.reporting.figures import write_figures
    from amscale.trials.storage_errors import storage_errors

    if folder is None:
        return []
    with storage_errors(folder):
        found.write(folder / "fit.json")
        return [str(folder / "fit.json"), *map(str, write_figures(found, folder))]


@contextmanager
def _output_folder(output: str | None, source: Path, whole: bool) -> Iterator[Path | None]:
    """Have the folder to write to: by default the sweep's, None for a table or a part of a sweep.

    Raises:
        InputError: it cannot be made or written; said before anything is fitted.
    """
    from amscale.trials.storage_errors import output_folder

    folder = Path(str(output)).expanduser() if output is not None else source if source.is_dir() and whole else None
    if folder is None:
        yield None
        return
    advice = "give --output FOLDER, another place for fit.json and figures/"
    with output_folder(folder, f"output={output!r}", ("fit.json",), ("figures",), advice):
        yield folder


def _propose_next(path: Path, given: dict[str, Any]) -> None:
    """Print the next cells as YAML, or as the document {"configuration": YAML}."""
    from amscale.cli import print_json
    from amscale.fitted import fit_settings
    from amscale.planning.next_grid import next_grid_of_sweep, next_grid_of_table

    if given["where"] is not None:
        raise InputError(f"where={given['where']!r} is for the fit; --next proposes cells for a sweep of one corpus")
    if given["output"] is not None:
        raise InputError("output is for the fit; --next prints a configuration: write it to a file with > next.yaml")
    if path.is_dir():
        settings = fit_settings(path, **{name: given[name] for name in ("count", "window", "threshold")})
        text = next_grid_of_sweep(path, given["next"], **settings)
    else:
        unit = (given[name] for name in _UNIT)
        chosen = {"tune": _axes(given["tune"]), "rows": given["sample"]}
        text = next_grid_of_table(path, given["next"], given["drop_highest"], _columns(given), *unit, **chosen)
    if given["json"]:
        print_json({"configuration": text})
    else:
        print(text, end="")


if __name__ == "__main__":
    from amscale.cli import run

    run(fit)
