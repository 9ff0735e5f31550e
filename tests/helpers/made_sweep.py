"""Write a sweep's folder as training leaves it, with losses from a formula."""

import json
import math
from pathlib import Path
from typing import Any

import yaml


def write_sweep(
    folder: Path,
    sizes: tuple[int, ...] = (6000, 24000, 96000),
    tokens: tuple[int, ...] = (8000, 20000, 50000, 400000),
    seeds: tuple[int, ...] = (0,),
    steps: int = 1000,
    layers: int = 2,
    name: str = "made",
) -> Path:
    """Write a sweep in which every cell finished; return its folder.

    Larger models over-fit on more tokens, and with few tokens the train loss falls below 1.
    """
    folder.mkdir(parents=True)
    for N in sizes:
        for D in tokens:
            for seed in seeds:
                write_trial(folder, f"vanilla-N{N}-D{D}-seed{seed}", N, D, seed, steps, layers)
    tree = {"format": 1, "name": name, "model": {"family": "vanilla"}, "storage": str(folder.parent)}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return folder


def write_trial(
    folder: Path,
    label: str,
    N: int,
    D: int,
    seed: int = 0,
    steps: int = 1000,
    layers: int = 2,
    state: str = "finished",
    reason: str | None = None,
) -> None:
    """Write one trial; a diverged one has a train loss of NaN from the middle of the run on."""
    path = folder / "trials" / label
    path.mkdir(parents=True)
    (path / "spec.yaml").write_text(yaml.safe_dump({"format": 1, "label": label}))
    (path / "log.txt").write_text(f"=== start 2026-01-01T00:00:00+00:00: python -m amscale.train {label}\n")
    floor = 1.0 + 0.3 * (N / 1e5) ** -0.3 + 0.3 * (D / 1e5) ** -0.4
    gap = 20 * math.sqrt(N / 24000) / (D / 1000)
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        share = step / steps
        train = floor + 3 * math.exp(-12 * share) - min(gap, 0.9 * floor) * share + 0.01 * math.sin(step + seed)
        if state == "diverged" and share > 0.5:
            train = math.nan
        records.append({"kind": "train", "step": step, "tokens": 1500 * step, "loss": train, "time": 0.01 * step})
        if step % (steps // 20) == 0:
            validation = floor + 3 * math.exp(-12 * share) + gap * max(share - 0.5, 0)
            records.append({"kind": "validation", "step": step, "loss": validation})
        if layers and step % (steps // 4) == 0:
            records.append({"kind": "probe", "step": step, "values": _probe(layers, share, N, D)})
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    losses = {kind: [r["loss"] for r in records if r["kind"] == kind] for kind in ("train", "validation")}
    (path / "result.json").write_text(json.dumps(_result(label, N, D, seed, steps, layers, state, reason, losses)))


def _probe(layers: int, share: float, N: int, D: int) -> dict[str, float]:
    values = {"energy/global/E_mean": 4 * share, "energy/global/steps_lowering_E": 1.0}
    values["energy/global/steps_lowering_E_global"] = 0.25
    for layer in range(layers):
        energy, radius = f"energy/layer_{layer:02d}", f"radius/layer_{layer:02d}"
        mean = (layer + 1) * share * 4 + 8000 / D
        values |= {f"{energy}/E_mean": mean, f"{energy}/E_q05": mean - 1, f"{energy}/E_q95": mean + 2}
        values |= {f"{radius}/r_star": N**0.5 / 100, f"{radius}/sampled_median": 0.2 + layer * share}
        values |= {f"{radius}/duplicates": 0.0, f"{radius}/separated_r_star": 0.5}
        values |= {f"partition/layer_{layer:02d}/log_Z_squared": 2.0}
    return values


def _result(
    label: str,
    N: int,
    D: int,
    seed: int,
    steps: int,
    layers: int,
    state: str,
    reason: str | None,
    losses: dict[str, list[float]],
) -> dict[str, Any]:
    least = min(losses["validation"])
    return {
        "format": 1,
        "trial": label,
        "label": label,
        "state": state,
        "reason": reason,
        "seed": seed,
        "steps": steps,
        "shape": {"family": "vanilla", "layers": layers, "width": 16},
        "parameters": {
            "embedding": 100,
            "output_head": 100,
            "attention": N // 3,
            "feed_forward": N - N // 3,
            "norms_and_rest": 10,
            "total": N + 210,
        },
        "flops": {"formula": "matmul", "per_token": 6.0 * N, "total": 6.0 * N * 1500 * steps},
        "data": {
            "corpus": "question_formation",
            "unique_tokens": D,
            "documents": D // 23,
            "tokens_seen": 1500 * steps,
            "epochs": 1500 * steps / D,
            "entropy_per_token": 0.9965,
            "memorised_per_token": 0.2 + D / 1e6,
        },
        "losses": {
            "train_last": losses["train"][-1],
            "train_least": min(losses["train"]),
            "train_least_step": steps,
            "train_window": 20,
            "validation_last": losses["validation"][-1],
            "validation_least": least,
            "validation_least_step": (losses["validation"].index(least) + 1) * (steps // 20),
        },
        "time": {"wall_seconds": 12.0, "device_seconds": 10.0},
        "engine": {"world_size": 1, "zero_stage": 0, "precision": "fp32", "device": "cpu"},
        "versions": {"amscale": "0.1.0", "python": "3.11", "torch": "2.13.0"},
        "settings": {},
    }
