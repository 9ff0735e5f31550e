"""One finished trial as a Markdown table."""

from typing import Any

from amscale.errors import InputError
from amscale.scaling.points import COUNTS, counted
from amscale.settings import format_duration, format_value
from amscale.trials.records import TrialResult
from amscale.trials.trial_store import TrialStore


def finished_result(store: TrialStore) -> TrialResult:
    """Return the result of a trial.

    Raises:
        InputError: it has none.
    """
    result = store.read_result()
    if result is None:
        raise InputError(f"{store.path}: not finished, it has no result.json; give the folder of a finished trial")
    return result


def card_rows(result: TrialResult) -> list[tuple[str, str]]:
    """Return what a reader of a model card looks for, as pairs of name and text; what is not recorded says so."""
    shape, train, data = result.shape, result.section("train"), result.data
    rows: list[tuple[str, str | None]] = [("state", result.state + (f": {result.reason}" if result.reason else ""))]
    rows += [(f"N, {name.replace('_', ' ')}", f"{counted(result.parameters, name):,.0f}") for name in COUNTS]
    rows += [
        ("embedding", f"{result.parameters.embedding:,.0f}"),
        ("family", shape.family),
        ("layers x width, heads", f"{shape.layers} x {shape.width}, {shape.heads}"),
        ("feed-forward width", _text(shape.feed_forward)),
        ("vocabulary", _text(shape.vocabulary)),
        ("context", _text(shape.context)),
        ("corpus", data.corpus),
        ("D, unique tokens", f"{data.unique_tokens:,.0f}"),
        ("tokens seen", _text(data.tokens_seen)),
        ("epochs", None if data.epochs is None else f"{data.epochs:.3g}"),
        ("compute", f"{result.flops.total:.4g} FLOPs ({result.flops.formula})"),
        ("steps", f"{result.steps:,}"),
        ("batch, tokens", _text(train.get("batch_tokens"))),
        ("schedule", _schedule(train)),
        ("AdamW", _optimiser(train)),
        ("seed", _text(result.seed)),
        ("train loss", _loss(result.losses.train_last)),
        ("least validation loss", _loss(result.losses.validation_least)),
        ("entropy of the source", _loss(data.entropy_per_token)),
        ("precision", result.engine.precision),
        ("engine", f"{result.engine.engine} ZeRO {result.engine.zero_stage}, {result.engine.world_size} process(es)"),
        ("device", result.engine.device_name or result.engine.device),
        ("device time", None if result.time.device_seconds is None else format_duration(result.time.device_seconds)),
        ("electricity, GPUs", _electricity(result, "device")),
        ("electricity, processors", _electricity(result, "host")),
        ("branched off", _branch(result)),
        ("versions", ", ".join(f"{name} {found}" for name, found in result.versions.items()) or None),
        ("trial", result.trial),
    ]
    return [(name, "not recorded" if text is None else text) for name, text in rows]


def markdown(result: TrialResult, rows: list[tuple[str, str]]) -> str:
    """Return the card as Markdown."""
    lines = [f"# {result.label}", "", "Losses are in nats per token.", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if isinstance(value, int | float) else format_value(value)


def _loss(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _schedule(train: dict[str, Any]) -> str | None:
    if not train:
        return None
    text = f"{train.get('schedule')}, peak {train.get('learning_rate')}, warm-up {train.get('warmup')}"
    if train.get("schedule") == "wsd":
        text += f", decay {train.get('decay')} (at least {train.get('least_decay', 0)} steps)"
    return f"{text}, final share {train.get('final_learning_rate')}"


def _optimiser(train: dict[str, Any]) -> str | None:
    names = ("betas", "epsilon", "weight_decay", "gradient_clip")
    return ", ".join(f"{name.replace('_', ' ')} {format_value(train[name])}" for name in names if name in train) or None


def _electricity(result: TrialResult, part: str) -> str | None:
    if (found := result.electricity) is None:
        return None
    kwh = getattr(found, f"{part}_kwh")
    return f"absent: {found.reasons.get(part, 'not measured')}" if kwh is None else f"{kwh:.4g} kWh"


def _branch(result: TrialResult) -> str:
    branch = result.branch
    return "no" if branch is None else f"{branch.label} after step {branch.step:,}"
