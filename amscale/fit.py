"""Estimates and fits from a sweep folder, or from any CSV or Parquet file with N, D and loss.

python -m amscale.fit results/quick
python -m amscale.fit results/quick --next 3
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
    """Fits `source` and prints a table of estimates and one of laws; a sweep's are also written to its fit.json.

    Args:
        source: a sweep folder, or a CSV or Parquet file.
        output: where to write fit.json; by default inside a sweep folder, and nowhere for a file.
        count: the convention for N of a sweep: non_embedding, non_embedding_with_norms, with_head or total.
        window: iterations of the D* criterion, in steps or as a share of the run (sweeps).
        threshold: threshold of the D* criterion, nats² (sweeps).
        hypotheses: exponents k of N ∝ D^k to test.
        resamples: bootstrap refits.
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
    from rich.console import Console

    exponents = (hypotheses,) if isinstance(hypotheses, int | float) else tuple(hypotheses)
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
    if path.is_dir() and (drop_highest or sample is not None):
        raise InputError("drop_highest and sample are for a table; a sweep leaves out diverged trials itself")
    if next is not None:
        from amscale.scaling.next_grid import next_grid_of_sweep, next_grid_of_table

        if path.is_dir():
            print(next_grid_of_sweep(path, next, count, window, threshold), end="")
        else:
            print(next_grid_of_table(path, next, drop_highest, **columns), end="")
        return
    from amscale.scaling.sweep_fit import fit_sweep, fit_table

    if path.is_dir():
        result = fit_sweep(path, count, window, threshold, exponents, resamples)
        output = output or str(path / "fit.json")
    else:
        result = fit_table(path, exponents, resamples, drop_highest, sample, **columns)
    console = Console()
    result.print(console)
    if output:
        result.write(output)
        console.print(f"written to {output}", markup=False, highlight=False)


if __name__ == "__main__":
    from amscale.cli import run

    run(fit)
