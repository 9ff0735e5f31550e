"""The settings of a cell as numbers: its rules and its policy, once N, D and the shape of its model are known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from amscale.config import Experiment
from amscale.config.loading import check_section
from amscale.config.rules import Rule, describe_values, parse_rule
from amscale.config.schema import TrainSettings, numeric_settings
from amscale.errors import InputError
from amscale.models import Shape
from amscale.policies import Policy, PolicyCell, find_policy

_DIGITS = 6
"""Significant digits of a resolved number: the last ones of a power differ between machines, an identity must not."""


@dataclass(frozen=True)
class Resolved:
    """A cell whose settings are numbers.

    Attributes:
        cell: the same cell without rules and policy.
        by_rule: keys of `train` that a rule gave.
        by_policy: keys of `train` that the policy gave.
        by_hand: keys that the policy would have given, and a person has set.
    """

    cell: Experiment
    by_rule: tuple[str, ...] = ()
    by_policy: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()


def resolve(cell: Experiment, shape: Shape, D: int, context: int) -> Resolved:
    """Return a cell with the numbers that its rules and its policy give.

    Args:
        cell: one cell of a grid.
        shape: its model.
        D: unique training tokens.
        context: tokens of a sequence, at most.

    Raises:
        InputError: rules need each other's values, or a value is not allowed; names the setting and its rule.
    """
    train = cell.train
    if not train.rules and train.policy is None:
        return Resolved(cell)
    return _Resolver(train, shape, D, context).resolved(cell)


class _Resolver:
    """Finds the numbers of one cell, each when another needs it."""

    def __init__(self, train: TrainSettings, shape: Shape, D: int, context: int) -> None:
        self._train = train
        self._rules = {key: _parsed(text) for key, text in train.rules}
        self._policy: Policy | None = find_policy(train.policy) if train.policy is not None else None
        self._facts = _facts(shape) | {"D": float(D), "context": float(context)}
        self._cell = PolicyCell(shape, D, context, self._tokens, self._batch)
        self._found: dict[str, Any] = {}
        self._asked: list[str] = []

    def resolved(self, cell: Experiment) -> Resolved:
        """Return the cell with its numbers."""
        given = (self._train.model_fields_set - {"policy", "rules"}) | set(self._rules)
        set_by_policy = [key for key in self._policy.sets if key not in given] if self._policy else []
        for key in (*self._rules, *set_by_policy):
            self._setting(key)
        written = self._train.model_dump(mode="json", exclude_unset=True)
        written = {key: value for key, value in written.items() if key != "policy"} | self._found
        try:
            train = check_section("train", json.dumps(written), {})
        except InputError as error:
            text = next(
                (f"; the rule is {text!r}" for key, text in self._train.rules if f"train.{key}=" in str(error)), ""
            )
            raise InputError(f"{error}{text}{self._where()}") from None
        return Resolved(
            cell.model_copy(update={"train": train}),
            tuple(self._rules),
            tuple(set_by_policy),
            tuple(key for key in self._policy.sets if key in given) if self._policy else (),
        )

    def _setting(self, key: str) -> Any:
        """Return the number of one setting.

        Raises:
            InputError: it needs itself, or it has no finite value.
        """
        if key in self._found:
            return self._found[key]
        if key in self._asked:
            circle = " → ".join([*self._asked[self._asked.index(key) :], key])
            raise InputError(
                f"train.{self._asked[0]}: its value needs itself ({circle}); give one of these as a number"
                + (", or the length as train.epochs" if "T" in self._asked else "")
            )
        if key not in self._rules and not self._by_policy(key):
            return getattr(self._train, key)
        self._asked.append(key)
        value = self._by_rule(key) if key in self._rules else self._of_policy(key)
        self._asked.pop()
        self._found[key] = _rounded(value, numeric_settings(TrainSettings).get(key))
        return self._found[key]

    def _by_policy(self, key: str) -> bool:
        return self._policy is not None and key in self._policy.sets and key not in self._train.model_fields_set

    def _by_rule(self, key: str) -> Any:
        rule = self._rules[key]
        try:
            return rule.evaluate(lambda name: self._value(name, key))
        except ValueError as error:
            raise InputError(f"train.{key}={rule.text!r} has no value: {error}{self._where()}") from None

    def _of_policy(self, key: str) -> Any:
        assert self._policy is not None
        if key == "batch_tokens":
            found = self._policy.batch_tokens(self._cell)
        else:
            found = self._policy.settings(self._cell).get(key)
        if found is None:
            raise InputError(f"train.policy={self._train.policy!r} gives no {key}; set train.{key}")
        return found

    def _value(self, name: str, key: str) -> float:
        if name in self._facts:
            return self._facts[name]
        if name == "B":
            return self._batch()
        if name == "T":
            return self._tokens()
        return float(self._of_policy(key))  # the name `policy`; loading has checked that there is one

    def _batch(self) -> float:
        return float(self._setting("batch_tokens"))

    def _tokens(self) -> float:
        """Return the tokens seen: epochs of D, or steps of the batch."""
        if self._train.epochs is not None or "epochs" in self._rules:
            return float(self._setting("epochs")) * self._facts["D"]
        self._asked.append("T")
        found = float(self._setting("steps")) * self._batch()
        self._asked.pop()
        return found

    def _where(self) -> str:
        return f" at {describe_values({name: self._facts[name] for name in ('N', 'D')})}"


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Rule:
    return parse_rule(text)


def _facts(shape: Shape) -> dict[str, float]:
    """Return what a rule may name and the shape tells."""
    counts = {f"N_{name}": shape.parameters.under(name) for name in _COUNTS}
    facts = {"N": shape.parameters.under("non_embedding"), **counts}
    facts |= {"width": shape.width, "layers": shape.layers, "vocabulary": shape.vocabulary}
    return {name: float(value) for name, value in facts.items()}


_COUNTS = ("non_embedding_with_norms", "with_head", "total", "active")


def _rounded(value: Any, whole: bool | None) -> Any:
    """Return a number with six digits, or a whole one where the setting is; a list of them; text as it is."""
    if isinstance(value, list | tuple):
        return [_rounded(item, whole) for item in value]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    return round(value) if whole else float(f"{value:.{_DIGITS}g}")


def describe_policies(found: Mapping[str, Mapping[str, tuple[str, ...]]]) -> list[str]:
    """Return a sentence on each policy of a plan: its source, its N, and what a person has set instead.

    Args:
        found: keys that each policy gave (`by_policy`) and that were set by hand (`by_hand`), by its name.
    """
    lines = []
    for name, keys in found.items():
        policy = find_policy(name)
        by_hand = f"; set by hand, which wins: {', '.join(keys['by_hand'])}" if keys["by_hand"] else ""
        sets = ", ".join(keys["by_policy"]) or "nothing"
        lines.append(f"policy {name} ({policy.source}; {policy.counts}) sets {sets}{by_hand}.")
    return lines
