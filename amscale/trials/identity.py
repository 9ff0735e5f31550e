"""The identity of a trial: a hash of what determines its outcome, and the label of its folder."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from amscale.config import Experiment
from amscale.config.validating import EARLIER_EVERY, EARLIER_TOKENS
from amscale.models.user_code import script_hash
from amscale.settings import Settings, format_size, parse_size

_LABEL = re.compile(r"-N([^-]+)-D([^-]+)-seed([0-9]{1,18})(?:-[0-9a-f]+)?$")

RESULT_VERSION = 1
"""Raised when a change of this software changes what a trial's result would be; part of every trial's identity."""


_NO_OUTCOME = {"lost_text"}
"""Settings of the data that refuse a trial or let it run, and change nothing in it."""


_EARLIER_DEFAULTS = {"validate_every": EARLIER_EVERY, "validation_tokens": EARLIER_TOKENS}
"""Settings of the training whose default was a number and is `auto` now, which looks at a run and does not change it:
both are left out of the identity, so that a sweep of an earlier version goes on."""


def trial_id(cell: Experiment, shape: dict[str, Any], content: dict[str, Any] | None = None) -> str:
    """Return twelve hexadecimal digits from what determines the outcome of one cell of a grid.

    Model, data, training, seed, precision asked for and result version count; machines, ZeRO stage, micro-batch,
    compiling, probes and names do not. Settings at their defaults are left out, so that a new setting does not orphan
    old results.

    Args:
        cell: settings of the trial.
        shape: the model's resolved shape, as plain data: a wanted size and the same shape by numbers are one trial.
        content: what identifies the content of the corpus's files, instead of the settings that name their paths: the
            same files elsewhere are one trial, and changed files another. So it is with the code of `train.script`.
    """
    data = cell.data.model_dump(mode="json", exclude_defaults=True, exclude=_NO_OUTCOME) | {"corpus": cell.data.corpus}
    train = cell.train.model_dump(mode="json", exclude_defaults=True, exclude={"order", "script", "compile"})
    train = {name: value for name, value in train.items() if value != _EARLIER_DEFAULTS.get(name)}
    identity = {
        "result_version": RESULT_VERSION,
        "shape": shape,
        "data": data | (content or {}),
        "train": train,
        "seed": cell.seed,
        "precision": cell.launch.precision,
    }
    if cell.train.script:
        identity["script"] = script_hash(Path(cell.train.script))
    if cell.order == "nested":  # every trial of earlier versions was shuffled
        identity["order"] = cell.order
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def trial_label(cell: Experiment, non_embedding: int, tokens: int, identity: str) -> str:
    """Return a folder name that a person can read: family, N, D, seed, and the identity that makes it unique."""
    return f"{cell.model.family}-N{format_size(non_embedding)}-D{format_size(tokens)}-seed{cell.seed}-{identity}"


def label_cell(label: str) -> tuple[str, str, int] | None:
    """Return N, D and the seed that a label names, such as ("6.43k", "20k", 0); None for a name that is no label."""
    found = _LABEL.search(label)
    return None if found is None else (found.group(1), found.group(2), int(found.group(3)))


def label_order(label: str) -> tuple[float, float, int, str]:
    """Return what sorts labels by N, D and seed, as numbers; a name that is no label comes last."""
    found = _LABEL.search(label)
    if found is None:
        return math.inf, math.inf, 0, label
    size, tokens, seed = found.groups()
    return _size(size), _size(tokens), int(seed), label


def _size(text: str) -> float:
    try:
        return parse_size(text)
    except ValueError:
        return math.inf


def settings_of(cell: Settings) -> dict[str, Any]:
    """Return all settings of a cell, defaults included, as plain data."""
    return cell.model_dump(mode="json")
