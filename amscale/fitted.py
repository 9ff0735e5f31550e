"""Estimates as scripts and commands get them: a `Fit` of a table of runs, or of a sweep's folder."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.scaling import fit as scaling_fit
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.power_law import HYPOTHESES
from amscale.scaling.table import Columns
from amscale.trials.archive import is_archive

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from amscale.scaling.laws.compare import Progress


class Fit(BaseFit):
    """Estimates with their intervals, tests and reasons, from a sweep or a table; see `scaling.base_fit.BaseFit`."""

    @classmethod
    def of(cls, fit: BaseFit) -> "Fit":
        """Make one from the same estimates."""
        return cls(**{field.name: getattr(fit, field.name) for field in fields(fit)})

    def plot(self, name: str) -> "Figure":
        """Return one of the report's figures for matplotlib, such as `frontier`, `exponent`, `floor`, `loss`.

        Raises:
            InputError: no such figure of this fit; lists those there are.
        """
        from amscale.reporting.figures import figure

        return figure(self, name)


def fit_table(
    source: "str | Path | pd.DataFrame",
    n: str = "N",
    d: str = "D",
    loss: str = "loss",
    flops: str = "flops",
    seed: str = "seed",
    tokens: str = "tokens",
    hypotheses: Sequence[float] = tuple(HYPOTHESES),
    resamples: int = 400,
    drop_highest: int = 0,
    sample: int | None = None,
    loss_unit: str = "nats",
    bytes_per_token: float | None = None,
    where: str | None = None,
    tune: Sequence[str] | None = None,
) -> Fit:
    """Estimate from a table of runs: a CSV, TSV, JSON, JSON Lines or Parquet file, or a DataFrame.

    Args:
        source: the table.
        n: column of N.
        d: column of D, unique tokens; where it is absent, D is the tokens seen, or else FLOPs / (6 N).
        loss: column of the loss, in nats per token unless `loss_unit` says otherwise.
        flops: column of training FLOPs.
        seed: column of the seed.
        tokens: column of the tokens seen, where they differ from the unique ones.
        hypotheses: exponents k of N ∝ D^k to test.
        resamples: bootstrap refits.
        drop_highest: the number of highest losses to leave out.
        sample: fit this many rows, drawn at random.
        loss_unit: nats or bits, both per token, bits_per_byte or perplexity.
        bytes_per_token: mean bytes of a token, for a loss in bits_per_byte.
        where: fit only the rows with these cells, `column=value` or several joined by commas.
        tune: columns of settings of which each cell of N and D takes its best value, interpolated; by default those
            that are named for a learning rate or a batch and vary within cells.

    Raises:
        InputError: a column that is missing, or a row that is no run, by its number.
    """
    return Fit.of(
        scaling_fit.fit_table(
            source,
            Columns(n, d, loss, flops, seed, tokens),
            hypotheses,
            resamples,
            drop_highest,
            sample,
            loss_unit,
            bytes_per_token,
            where,
            tune,
        )
    )


def fit_folder(
    path: Path,
    count: str | None = None,
    window: float | None = None,
    threshold: float | None = None,
    hypotheses: Sequence[float] | None = None,
    resamples: int = 400,
    where: str | None = None,
    tune: Sequence[str] | None = None,
    address: str | None = None,
    progress: "Progress | None" = None,
) -> Fit:
    """Estimate from a sweep's folder on this machine; see `Sweep.fit`. `address` is the sweep as a user names it."""
    from amscale.planning.next_grid import with_next_step

    settings = fit_settings(path, count=count, window=window, threshold=threshold, hypotheses=hypotheses)
    found = scaling_fit.fit_sweep(path, **settings, resamples=resamples, where=where, tune=tune, progress=progress)
    found = with_next_step(found, address)
    if address is not None and is_archive(address):  # its folder is there for this moment only
        found.table.source = address
    return Fit.of(found)


def fit_settings(path: Path, **given: Any) -> dict[str, Any]:
    """Fill in what was not given from the configuration of the sweep in a folder, or from the defaults."""
    from amscale.trials.sweep_store import SweepStore

    if isinstance(given.get("hypotheses"), int | float):
        given["hypotheses"] = (given["hypotheses"],)
    own = SweepStore(path).fit_settings()
    return {name: getattr(own, name) if value is None else value for name, value in given.items()}
