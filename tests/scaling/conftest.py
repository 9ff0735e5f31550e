"""Published data, and sweep folders with known answers."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from amscale.scaling.base_fit import BaseFit
from amscale.scaling.fit import fit_sweep


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published data in this repository."""
    return Path(__file__).parents[1] / "published"


@pytest.fixture(scope="session")
def digitised() -> Path:
    """The digitised points of Hoffmann et al. 2022, figure 4, which have no licence and are not in the repository."""
    folder = Path(os.environ.get("AMSCALE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    file = folder / "chinchilla_points" / "svg_extracted_data.csv"
    if not file.is_file():
        pytest.skip(f"the digitised points have no licence and are not at {file}; set AMSCALE_DATA")
    return file


@pytest.fixture(scope="session")
def write_trial() -> Callable[..., Path]:
    return _write_trial


@pytest.fixture(scope="session")
def write_sweep() -> Callable[..., None]:
    return _write_sweep


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> BaseFit:
    """The fit of a sweep of 5 by 12 cells with k = 2 and a floor of 1.2."""
    folder = tmp_path_factory.mktemp("sweep")
    _write_sweep(folder, k=2.0, sizes=5, amounts=12)
    return fit_sweep(folder, resamples=100)


def _write_trial(
    folder: Path,
    name: str,
    N: float,
    D: float,
    validation: list[float],
    train: list[float],
    seed: int = 0,
    state: str = "finished",
    entropy: float | None = 0.996,
    every: int = 10,
    losses: dict[str, float] | None = None,
) -> Path:
    """A trial whose validation loss is `validation`, evaluated every `every` steps, and whose train loss is `train`."""
    path = folder / "trials" / name
    path.mkdir(parents=True)
    lines = [json.dumps({"kind": "train", "step": i + 1, "tokens": 1, "loss": x}) for i, x in enumerate(train)]
    lines += [json.dumps({"kind": "validation", "step": every * (i + 1), "loss": x}) for i, x in enumerate(validation)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    result = {
        "format": 1,
        "trial": name,
        "state": state,
        "reason": "loss is nan" if state == "diverged" else None,
        "seed": seed,
        "steps": len(train),
        "shape": {"family": "vanilla"},
        "parameters": {
            "embedding": 7,
            "output_head": 0.25 * N,
            "attention": N / 3,
            "feed_forward": 2 * N / 3,
            "norms_and_rest": 5,
            "total": 1.25 * N + 12,
        },
        "flops": {"formula": "6ND", "per_token": 6 * N, "total": 6 * N * D},
        "data": {"unique_tokens": D, "entropy_per_token": entropy, "memorised_per_token": None},
        "losses": {"train_least": min(train), "validation_least": min(validation), "validation_last": validation[-1]}
        | (losses or {}),
    }
    (path / "result.json").write_text(json.dumps(result))
    return path


def _write_sweep(
    folder: Path,
    k: float = 2.0,
    sizes: int = 5,
    amounts: int = 12,
    noise: float = 0.0,
    seed: int = 0,
    reach: float = 8.0,
) -> None:
    """Train loss lags validation by a gap that falls with D and reaches sqrt(0.04) where N = 1e-8·D^k."""
    random = np.random.default_rng(seed)
    for i, N in enumerate(np.geomspace(1e6, 1.6e7, sizes)):
        crossing = (N / 1e-8) ** (1 / k) * np.exp(noise * random.normal())
        start = (1e6 / 1e-8) ** (1 / k)
        for j, D in enumerate(start * np.geomspace(0.5, reach, amounts)):
            floor = 1.2 + 0.5 * (N / 1e6) ** -0.3 + 0.5 * (D / start) ** -0.4
            gap = 0.2 * crossing / D
            validation = [floor + 0.3, floor + 0.1, floor, floor + 0.05]
            _write_trial(folder, f"n{i}d{j}", float(N), float(D), validation, [floor - gap] * 40)
