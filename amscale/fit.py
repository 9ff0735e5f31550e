"""Estimates and fits from a sweep folder, or from any CSV or Parquet file with N, D and loss.

python -m amscale.fit results/quick
python -m amscale.fit results/quick --next 3
python -m amscale.fit points.csv --n_column "Model Size" --flops_column "Training FLOP" --drop_highest 5
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError

if TYPE_CHECKING:
    from amscale.scaling.fit import Fit


def fit(
    source: str,
    output: str | None = None,
    count: str | None = None,
    window: float | None = None,
    threshold: float | None = None,
    hypotheses: Sequence[float] | None = None,
    resamples: int = 400,
    where: str | None = None,
    next: int | None = None,
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
) -> None:
    """Fits `source`, prints tables of estimates and of laws, and writes fit.json and figures/.

    Args:
        source: a sweep's folder or URI, or a CSV or Parquet file.
        output: the folder for fit.json and figures/; by default the sweep's own, and nothing is written for a file or
            for the trials that --where chooses.
        count: the convention for N of a sweep: non_embedding, non_embedding_with_norms, with_head, total or active; by
            default, as for the next three, what its configuration says under `fit`.
        window: iterations of the D* criterion, in steps or as a share of the run (sweeps).
        threshold: threshold of the D* criterion, nats² (sweeps).
        hypotheses: exponents k of N ∝ D^k to test; 1, 1.35, 2 and 4 for a file.
        resamples: bootstrap refits.
        where: fit only the trials with these settings, key=value or several joined by commas (sweeps).
        next: instead of the fit, print as YAML this many cells that would narrow the interval of k the most.
        drop_highest: the number of highest losses to leave out (files).
        sample: fit this many rows, drawn at random (files).
        n_column: column of N.
        d_column: column of D, unique tokens; where it is absent, D is the tokens seen, or else FLOPs / (6 N).
        loss_column: column of the loss.
        flops_column: column of training FLOPs.
        seed_column: column of the seed.
        tokens_column: column of the tokens seen, where they differ from the unique ones.
        loss_unit: nats or bits, both per token, or bits_per_byte.
        bytes_per_token: mean bytes of a token, for a loss in bits_per_byte.
    """
    arguments = locals()
    if "://" in str(source):
        from amscale.trials.sweep_store import open_sweep

        with open_sweep(str(source)) as store:
            return fit(**arguments | {"source": str(store.path)})
    path = Path(str(source))
    columns = {
        "n_column": n_column,
        "d_column": d_column,
        "loss_column": loss_column,
        "flops_column": flops_column,
        "seed_column": seed_column,
        "tokens_column": tokens_column,
        "loss_unit": loss_unit,
        "bytes_per_token": bytes_per_token,
    }
    given = columns | {"count": count, "window": window, "threshold": threshold, "where": where}
    given |= {"drop_highest": drop_highest, "sample": sample}
    if path.exists():
        _refuse_misplaced(given, of_a_sweep=path.is_dir())
    settings = _settings(path, count=count, window=window, threshold=threshold, hypotheses=hypotheses)
    if next is not None:
        del settings["hypotheses"]
        _print_next(path, next, output, where, settings, drop_highest, columns)
        return
    from amscale.scaling.fit import fit_sweep, fit_table

    folder = _output_folder(output, path, whole=where is None)
    if path.is_dir():
        result = fit_sweep(path, **settings, resamples=resamples, where=where)
    else:
        result = fit_table(path, settings["hypotheses"], resamples, drop_highest, sample, **columns)
    _show(result, folder)


_OF_A_SWEEP = ("count", "window", "threshold", "where")


def _refuse_misplaced(given: dict[str, Any], of_a_sweep: bool) -> None:
    """Raises InputError for a setting that this kind of source does not know."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(fit).parameters.items()}
    for name, value in given.items():
        if value != defaults[name] and (name in _OF_A_SWEEP) != of_a_sweep:
            kind = "a table of points" if of_a_sweep else "a sweep's folder"
            raise InputError(f"{name}={value!r} is for {kind}, and the source is none; leave --{name} out")


def _settings(source: Path, **given: Any) -> dict[str, Any]:
    """What was given; where nothing was, what the configuration of the sweep says, or the default."""
    from amscale.trials.sweep_store import SweepStore

    if isinstance(given["hypotheses"], int | float):
        given["hypotheses"] = (given["hypotheses"],)
    own = SweepStore(source).fit_settings()
    return {name: getattr(own, name) if value is None else value for name, value in given.items()}


def _show(result: "Fit", folder: Path | None) -> None:
    """Print what was found, and write it and its figures into `folder`, if any."""
    from amscale.reporting.estimates_table import print_fit
    from amscale.reporting.report import write_figures
    from amscale.reporting.terminal import make_console

    console = make_console()
    print_fit(result, console)
    if folder is None:
        text = "nothing is written: --output FOLDER writes fit.json, with all that was found, and the figures"
    else:
        result.write(folder / "fit.json")
        figures = write_figures(result, folder)
        text = f"written: {folder / 'fit.json'}, and {len(figures)} pictures in {folder / 'figures'}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _output_folder(output: str | None, source: Path, whole: bool) -> Path | None:
    """Where to write, made if it is missing; the sweep's folder by default, None for a table or a part of a sweep.

    Raises:
        InputError: it is a file, or cannot be made.
    """
    if output is None:
        return source if source.is_dir() and whole else None
    folder = Path(str(output))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={output!r}: no folder can be made there ({error.strerror})") from None
    return folder


def _print_next(
    path: Path,
    number: int,
    output: str | None,
    where: str | None,
    settings: dict[str, Any],
    drop_highest: int,
    columns: dict[str, Any],
) -> None:
    from amscale.planning.next_grid import next_grid_of_sweep, next_grid_of_table

    if where is not None:
        raise InputError(f"where={where!r} is for the fit; --next proposes cells for a sweep of one corpus")
    if output is not None:
        raise InputError("output is for the fit; --next prints a configuration: write it to a file with > next.yaml")
    if path.is_dir():
        print(next_grid_of_sweep(path, number, **settings), end="")
    else:
        print(next_grid_of_table(path, number, drop_highest, **columns), end="")


if __name__ == "__main__":
    from amscale.cli import run

    run(fit)
