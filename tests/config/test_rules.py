"""Rules: expressions of N and D in a configuration, parsed safely, and what is refused in one line."""

import ast
import math
import random

import pytest

from amscale import config
from amscale.config.rules import NAMES, is_rule, parse_rule
from amscale.errors import InputError

VALUES = {name: 2.0 + index for index, name in enumerate(NAMES)}


def evaluate(text: str) -> float:
    return parse_rule(text).evaluate(VALUES.__getitem__)


def test_an_expression_has_the_value_that_python_gives_it():
    """Random trees of all that is allowed; Python evaluates the same text with the same names."""
    draw = random.Random(0)
    functions = {"min": 2, "max": 3, "sqrt": 1, "log": 1, "exp": 1, "round": 1}

    def tree(depth: int) -> str:
        kind = draw.choice(["number", "name", "binary", "unary", "call"]) if depth else draw.choice(["number", "name"])
        match kind:
            case "number":
                return draw.choice(["2", "0.5", "3e-3", "1.25", "7"])
            case "name":
                return draw.choice(list(NAMES))
            case "binary":
                return f"({tree(depth - 1)} {draw.choice(['+', '-', '*', '/', '**'])} {tree(depth - 1)})"
            case "unary":
                return f"-{tree(depth - 1)}"
        name = draw.choice(list(functions))
        return f"{name}({', '.join(tree(depth - 1) for _ in range(functions[name]))})"

    known = 0
    for text in (tree(3) for _ in range(500)):
        if len(text) > 300:
            continue
        try:
            named = {name: getattr(math, name) for name in ("sqrt", "log", "exp")} | VALUES
            expected = eval(text, {"__builtins__": {}}, named | {"min": min, "max": max, "round": round})
        except (ArithmeticError, ValueError, TypeError):
            expected = math.nan
        if isinstance(expected, complex) or not math.isfinite(expected):
            with pytest.raises(ValueError):  # noqa: PT011
                evaluate(text)
        else:
            known += 1
            assert evaluate(text) == pytest.approx(expected, rel=1e-12)
    assert known > 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3 * (N / 1M) ** -0.33", 3e-3 * (2 / 1e6) ** -0.33),
        ("10k + 1.5B", 1e4 + 1.5e9),
        ("2*B", 2 * VALUES["B"]),
        ("1e6 / 1M", 1.0),
        ("1_000k", 1e6),
        ("min(N_total, 1T)", VALUES["N_total"]),
        ("[0.9, 1 - 1/T]", [0.9, 1 - 1 / VALUES["T"]]),
    ],
)
def test_numbers_take_the_units_of_sizes(text, value):
    assert evaluate(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1e-3", "400k", "-1", "1,000", "0b1", "1:30", 5, None, [0.9, 0.95], "2.5 million"])
def test_a_number_is_no_rule(text):
    assert not is_rule(text)


REFUSED = [
    "__import__('os')",
    "N.real",
    "N[0]",
    "lambda: 1",
    "N if D else 1",
    "N and D",
    "N < D",
    "N // D",
    "N % 2",
    "True * N",
    "'a' * N",
    "f(N)",
    "min(N)",
    "sqrt(N, D)",
    "max(*N, D)",
    "round(N, ndigits=2)",
    "(N := 2)",
    "[N for N in D]",
    "M * 2",
    "N +",
    "[[N], 1]",
    "(" * 200 + "N" + ")" * 200,
    "N" + " + N" * 200,
    "N\0",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_arithmetic_is_refused(text):
    with pytest.raises(ValueError, match=r"rule|takes|function"):
        parse_rule(text)


def test_every_node_of_python_is_refused_but_those_of_arithmetic():
    """Nothing of the language slips in with a new version of Python."""
    allowed = {"Expression", "BinOp", "UnaryOp", "Call", "Constant", "Name", "Load", "List", "Tuple"}
    allowed |= {"Add", "Sub", "Mult", "Div", "Pow", "UAdd", "USub"}
    source = "a=1; (yield); x[1:2]; {1:2}; {1}; f'{a}'; a.b; a@b; a>>b; ~a; not a; a==b; a if b else c; lambda: a; ..."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.expr) and type(node).__name__ not in allowed:
            with pytest.raises(ValueError):  # noqa: PT011
                parse_rule(ast.unparse(node))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rate=3e-3 * M", "train.learning_rate='3e-3 \\* M': a rule has no 'M'; it has N,"),
        ("train.learning_rate=policy * 2", "train.policy gives none"),
        ("train.policy=step", "allowed are step_law, olmo_ladder"),
        ("grid.train.learning_rate=[1e-3, N +]", "neither a number nor a rule"),
        ("tune.seed=[1, 2]", "not a setting that can be tuned"),
        ("tune.train.learning_rate=[]", "at least one value"),
        ("tune.train.steps=[1, 2]", "not a setting that can be tuned"),
        ("tune.stop=asha", "names no setting"),
        ("train.rules=[]", "unknown key train.rules"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_on_loading(override, words):
    with pytest.raises(InputError, match=words):
        config.load("grammar.yaml", [override])


def test_rules_and_tuned_axes_are_written_as_they_were_given_and_read_back():
    overrides = [
        "train.learning_rate=3e-3 * (N / 1M) ** -0.33",
        "train.betas=[0.9, 1 - 1 / T]",
        "tune={train.learning_rate: [x0.5, x1], train: {batch_tokens: [1k, 2k]}, small: 25k}",
    ]
    experiment = config.load("grammar.yaml", overrides)
    tree = experiment.model_dump(mode="json", exclude_unset=True)
    assert tree["train"]["learning_rate"] == "3e-3 * (N / 1M) ** -0.33"
    assert tree["tune"] == {
        "train.learning_rate": ["x0.5", "x1"],
        "train.batch_tokens": ["1k", "2k"],
        "small": 25000,
    }
    assert config.parse(tree) == experiment
    cells = config.expand(experiment)
    assert len(cells) == 12 * 4
    assert dict(cells[0].train.rules)["learning_rate"] == "(3e-3 * (N / 1M) ** -0.33) * 0.5"
    assert cells[0].tune is None
    narrowed = config.load(tree, ["train.learning_rate=1e-3", "train.batch_tokens=[2k]"])
    assert narrowed.tune.axes == {"train.learning_rate": (1e-3,), "train.batch_tokens": ("2k",)} or (
        narrowed.tune.axes == {"train.learning_rate": (1e-3,), "train.batch_tokens": (2000,)}
    )
    assert len(config.expand(narrowed)) == 12
