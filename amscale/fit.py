"""Estimates and fits from a sweep folder, or from any CSV or Parquet file with N, D and loss.

python -m amscale.fit results/quick
python -m amscale.fit points.csv --n_column "Model Size" --flops_column "Training FLOP" --drop_highest 5
"""

from collections.abc import Sequence
from pathlib import Path

from amscale.errors import InputError


def fit(
    source: str,
    output: str | None = None,
    count: str = "non_embedding",
    window: float = 0.2,
    threshold: float = 0.04,
    hypotheses: Sequence[float] = (1, 1.35, 2, 4),
    resamples: int = 400,
    drop_highest: int = 0,
    n_column: str = "N",
    d_column: str = "D",
    loss_column: str = "loss",
    flops_column: str = "flops",
    seed_column: str = "seed",
) -> None:
    """Fits `source` and prints a table per estimand; a sweep's estimates are also written to its fit.json.

    Args:
        source: a sweep folder, or a CSV or Parquet file.
        output: where to write fit.json; by default inside a sweep folder, and nowhere for a file.
        count: the convention for N of a sweep: non_embedding, with_head or total.
        window: iterations of the D* criterion, in steps or as a share of the run (sweeps).
        threshold: threshold of the D* criterion, nats² (sweeps).
        hypotheses: exponents k of N ∝ D^k to test.
        resamples: bootstrap refits.
        drop_highest: the number of highest losses to leave out (files).
        n_column: column of N.
        d_column: column of D; where it is absent, D = FLOPs / (6 N).
        loss_column: column of the loss, nats per token.
        flops_column: column of training FLOPs.
        seed_column: column of the seed.
    """
    from rich.console import Console

    from amscale.scaling.sweep_fit import fit_sweep, fit_table

    exponents = (hypotheses,) if isinstance(hypotheses, int | float) else tuple(hypotheses)
    path = Path(str(source))
    if path.is_dir():
        if drop_highest:
            raise InputError(f"drop_highest={drop_highest} is for a table; a sweep leaves out diverged trials itself")
        result = fit_sweep(path, count, window, threshold, exponents, resamples)
        output = output or str(path / "fit.json")
    else:
        columns = {
            "n_column": n_column,
            "d_column": d_column,
            "loss_column": loss_column,
            "flops_column": flops_column,
            "seed_column": seed_column,
        }
        result = fit_table(path, exponents, resamples, drop_highest, **columns)
    console = Console()
    result.print(console)
    if output:
        result.write(output)
        console.print(f"written to {output}", markup=False, highlight=False)


if __name__ == "__main__":
    from amscale.cli import run

    run(fit)
