"""Rules: settings as expressions of N, D and what else a cell has, such as `3e-3 * (N / 1M) ** -0.33`.

A rule is parsed by Python's grammar and evaluated node by node; nothing in it is run. Numbers take the units of sizes.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amscale.settings import parse_number

NAMES = {
    "N": "attention and feed-forward parameters, without embeddings (the convention non_embedding)",
    "N_non_embedding_with_norms": "the same with norms",
    "N_with_head": "the same with the output head",
    "N_total": "all parameters",
    "N_active": "those of N that one token passes through",
    "D": "unique training tokens",
    "T": "tokens seen: epochs of D, or steps of B",
    "B": "tokens of a global batch, `batch_tokens`",
    "width": "of the residual stream",
    "layers": "number of layers",
    "vocabulary": "tokens of the vocabulary",
    "context": "tokens of a sequence, at most",
    "policy": "what the policy gives for this setting",
}
"""What a rule may name."""

_FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "min": (min, 2, 16),
    "max": (max, 2, 16),
    "sqrt": (math.sqrt, 1, 1),
    "log": (math.log, 1, 1),
    "exp": (math.exp, 1, 1),
    "round": (round, 1, 1),
}
"""Functions, with the least and the most number of their arguments. `log` is the natural one."""
_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_LONGEST = 300
_SIZE = re.compile(
    r"(?<![A-Za-z0-9_.])((?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[kKmMbBgGtT])(?![A-Za-z0-9_.])"
)
_EXPRESSION = re.compile(r"[*/()]|(?<![A-Za-z0-9_.])[A-Za-z_]")
"""What text has that is meant as an expression: an operator, or a word."""
_MULTIPLE = re.compile(r"x\s*([0-9.]+(?:e[+-]?[0-9]+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Rule:
    """An expression that was parsed, or a list of them (for AdamW's two decay rates)."""

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def evaluate(self, value: Callable[[str], float]) -> Any:
        """Return the value of the rule, a number or a list of numbers.

        Args:
            value: returns the value of a name; asked for those in the rule alone.

        Raises:
            ValueError: not a finite number for these values, such as a logarithm of 0.
        """
        try:
            if isinstance(self._tree, ast.List | ast.Tuple):
                return [_finite(_value(item, value)) for item in self._tree.elts]
            return _finite(_value(self._tree, value))
        except OverflowError:
            raise ValueError("it is too large a number") from None
        except (ArithmeticError, TypeError) as error:
            raise ValueError(str(error)) from None


def is_rule(value: Any) -> bool:
    """Return whether a setting that is a number is written as an expression: text that is no number by itself."""
    if isinstance(value, list | tuple):
        return any(is_rule(item) for item in value)
    if not isinstance(value, str) or _EXPRESSION.search(value) is None:
        return False
    try:
        parse_number(value)
    except ValueError as error:
        return "too large" not in str(error)
    return False


def rule_text(value: Any) -> str:
    """Return the text of a rule, or of a list of rules and numbers."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def parse_rule(text: str) -> Rule:
    """Parse a rule.

    Raises:
        ValueError: says in one line what is not allowed, and what is.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a rule has at most {_LONGEST} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on text such as `1if` are not for this reader
            tree = ast.parse(_SIZE.sub(lambda size: repr(parse_number(size[1])), text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            "neither a number nor a rule; a rule is an expression such as 3e-3 * (N / 1M) ** -0.33, and under tune "
            "x0.5 is a multiple"
        ) from None
    items = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    names: set[str] = set()
    for item in items:
        _check(item, names)
    return Rule(text, frozenset(names), tree)


def multiple_of(value: Any, multiple: str) -> str | None:
    """Return the rule that multiplies a value by `x0.5`, or None where the text is no multiple.

    Args:
        value: a number, or a rule.
        multiple: as it is written.
    """
    found = _MULTIPLE.fullmatch(multiple.strip()) if isinstance(multiple, str) else None
    if found is None:
        return None
    return f"({value}) * {found[1]}" if isinstance(value, str) else f"{value!r} * {found[1]}"


def _check(node: ast.AST, names: set[str]) -> None:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return
        case ast.Name(id=name):
            if name not in NAMES:
                functions = ", ".join(_FUNCTIONS)
                raise ValueError(f"a rule has no {name!r}; it has {', '.join(NAMES)}, and the functions {functions}")
            names.add(name)
            return
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _check(left, names)
            _check(right, names)
            return
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            _check(operand, names)
            return
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            _, least, most = _FUNCTIONS[name]
            if not least <= len(arguments) <= most:
                raise ValueError(f"{name} takes {least if least == most else f'{least} to {most}'} numbers")
            for argument in arguments:
                _check(argument, names)
            return
        case ast.Call(func=ast.Name(id=name)):
            raise ValueError(f"a rule has no function {name!r}; it has {', '.join(_FUNCTIONS)}")
    raise ValueError(
        f"{ast.unparse(node)[:40]!r} is not allowed in a rule: numbers, names, + - * / ** and functions are"
    )


def _value(node: ast.AST, value: Callable[[str], float]) -> float:
    match node:
        case ast.Constant(value=number):
            return float(number)  # type: ignore[arg-type]  # whole numbers could grow without bound
        case ast.Name(id=name):
            return float(value(name))
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, value), _value(right, value))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand, value))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name][0](*(_value(argument, value) for argument in arguments))
    raise AssertionError(node)


def _finite(number: Any) -> float:
    if isinstance(number, complex) or not math.isfinite(number):
        raise ValueError(f"it is {number}")
    return float(number)


def describe_values(values: Mapping[str, float]) -> str:
    """Return `N = 1e+06, D = 2e+07`."""
    return ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
