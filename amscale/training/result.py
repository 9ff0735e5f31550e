"""What a finished run leaves behind for the fits."""

import math
import platform
import resource
from importlib.metadata import version
from typing import Any

import numpy as np

from amscale import __version__, models
from amscale.config import Experiment
from amscale.data import Subset, TokenStore
from amscale.models import FLOPS_FORMULA, Shape
from amscale.training.checkpoint import Progress
from amscale.training.engine import EngineFacts
from amscale.training.loop import Outcome
from amscale.trials.identity import settings_of
from amscale.trials.store import FORMAT, TrialStore

_WINDOW_SHARE = 0.02


def make_result(
    folder: TrialStore,
    cell: Experiment,
    shape: Shape,
    store: TokenStore,
    subset: Subset,
    progress: Progress,
    outcome: Outcome,
    facts: EngineFacts,
    shards: list[int],
    train_evaluated: float | None,
    wall_seconds: float,
) -> dict[str, Any]:
    """`result.json` of a run, in the layout that docs/contracts.md gives."""
    spec = folder.read_spec()
    per_token = models.flops_per_token(shape)
    return {
        "format": FORMAT,
        "trial": spec["trial"],
        "label": spec["label"],
        "state": outcome.state,
        "reason": outcome.reason,
        "seed": cell.seed,
        "steps": progress.step,
        "shape": shape.as_dict(),
        "parameters": shape.parameters.as_dict(),
        "flops": {"formula": FLOPS_FORMULA, "per_token": per_token, "total": per_token * progress.tokens},
        "data": {
            "corpus": store.corpus,
            "unique_tokens": subset.unique_tokens,
            "documents": subset.documents,
            "tokens_seen": progress.tokens,
            "epochs": progress.tokens / subset.unique_tokens,
            "entropy_per_token": store.entropy_per_token,
            "memorised_per_token": store.memorised_per_token(subset.documents),
        },
        "losses": _losses(folder, progress) | {"train_evaluated": train_evaluated},
        "time": {
            "wall_seconds": wall_seconds,
            "device_seconds": progress.device_seconds * facts.world_size,
            "probe_seconds": outcome.probe_seconds,
            "probe_share": outcome.probe_seconds / outcome.step_seconds if outcome.step_seconds else None,
        },
        "memory": {"peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
        "engine": facts.to_dict()
        | {"optimizer_elements": shards, "out_of_memory_at": [e["micro_batch"] for e in folder.out_of_memory()]},
        "versions": {
            "amscale": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "deepspeed", "accelerate", "transformers", "ray")},
        },
        "settings": settings_of(cell),
    }


def _losses(folder: TrialStore, progress: Progress) -> dict[str, Any]:
    """Last and least losses in nats per token; None where nothing was measured.

    A single batch is noisy: the training losses are means over a window of 2 % of the steps, at least 10 of them.
    """
    train = np.array([record["loss"] for record in folder.read_metrics("train")])
    validation = [record["loss"] for record in folder.read_metrics("validation")]
    least = progress.validation_least
    losses: dict[str, Any] = {
        "validation_last": validation[-1] if validation else None,
        "validation_least": least if math.isfinite(least) else None,
        "validation_least_step": progress.validation_least_step,
        "train_last": None,
        "train_least": None,
        "train_least_step": None,
        "train_window": None,
    }
    if len(train):
        window = min(len(train), max(10, round(_WINDOW_SHARE * len(train))))
        means = np.convolve(train, np.ones(window) / window, mode="valid")
        losses |= {
            "train_last": float(means[-1]),
            "train_least": float(means.min()),
            "train_least_step": int(means.argmin()) + window,
            "train_window": window,
        }
    return losses
