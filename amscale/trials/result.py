"""Files that a user, a crash or another version may have written: read as plain data, or refused in one line.

Everything is data: YAML by its safe loader, JSON, text. What comes out has bounded depth, size and numbers, so that no
later step can be brought to run for hours or out of memory by a few lines of text.
"""

import math
from typing import Any

from amscale.files import is_number

_RESULT: dict[str, dict[str, str]] = {
    "": {"state": "text", "reason": "text?", "seed": "count?", "steps": "count"},
    "parameters": dict.fromkeys(("embedding", "output_head", "attention", "feed_forward", "norms_and_rest"), "amount"),
    "shape": {"family": "text?"},
    "flops": {"total": "number"},
    "data": {"corpus": "text?", "unique_tokens": "amount", "tokens_seen": "amount?", "entropy_per_token": "number?"}
    | {"memorised_per_token": "number?", "documents": "count?", "epochs": "number?"},
    "losses": dict.fromkeys(
        ("validation_last", "validation_least", "train_last", "train_least", "train_evaluated"), "number?"
    )
    | {"validation_least_step": "count?", "train_least_step": "count?"},
}
"""What a result must hold for those who read it; `?`: or null, or nothing."""


def check_result(result: Any) -> dict[str, Any]:
    """A trial's result, if it is one.

    Raises:
        ValueError: it is not; names what is missing or wrong.
    """
    if not isinstance(result, dict):
        raise ValueError("not a mapping")
    for section, fields in _RESULT.items():
        part = result.get(section) if section else result
        if not isinstance(part, dict):
            raise ValueError(f"{section} is missing")
        for name, kind in fields.items():
            _check_field(f"{section}.{name}".lstrip("."), part.get(name), kind)
    for name in ("time", "engine", "versions", "settings"):
        if not isinstance(result.get(name, {}), dict):
            raise ValueError(f"{name} is no mapping")
    for name in ("wall_seconds", "device_seconds", "probe_seconds", "probe_share"):
        _check_field(f"time.{name}", result.get("time", {}).get(name), "number?")
    _check_field("engine.world_size", result.get("engine", {}).get("world_size", 1), "count")
    if result.get("engine", {}).get("world_size", 1) < 1:
        raise ValueError("engine.world_size is 0")
    return result


def _check_field(name: str, value: Any, kind: str) -> None:
    if value is None and kind.endswith("?"):
        return
    if value is None:
        raise ValueError(f"{name} is missing")
    kind = kind.rstrip("?")
    good = {
        "text": isinstance(value, str),
        "number": is_number(value),
        "amount": is_number(value) and math.isfinite(value) and value >= 0,
        "count": is_number(value) and math.isfinite(value) and value >= 0 and value == int(value),
    }[kind]
    if not good:
        raise ValueError(f"{name}={str(value)[:60]!r} is no {kind}")
