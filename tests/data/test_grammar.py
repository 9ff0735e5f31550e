"""The facts of the grammar, against the published rules and sampled text, each by an independent computation."""

import math
import os
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from amscale.data.corpora.question_formation import LineGrammar, QuestionFormation

AUXILIARIES = {"do", "does", "don't", "doesn't"}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return [line for batch in QuestionFormation(documents=20_000).texts() for line in batch]


@pytest.fixture(scope="module")
def published_rules() -> dict[str, list[tuple[float, list[str]]]]:
    folder = Path(os.environ.get("AMSCALE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "question_formation" / "question.gr"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    rules = defaultdict(list)
    for line in path.read_text().splitlines():
        if line.strip():
            weight, left, right = line.strip().split("\t")
            rules[left].append((float(weight), right.split()))
    return {
        left: [(weight / sum(w for w, _ in rights), right) for weight, right in rights]
        for left, rights in rules.items()
    }


def log_probability(rules, words: tuple[str, ...]) -> float:
    """ln p of a sentence by the inside algorithm over the published rules."""

    @cache
    def inside(symbols: tuple[str, ...], start: int, stop: int) -> float:
        if not symbols:
            return float(start == stop)
        if len(symbols) > stop - start:
            return 0.0
        first, rest = symbols[0], symbols[1:]
        if first not in rules:
            return inside(rest, start + 1, stop) if words[start] == first else 0.0
        cuts = [stop] if not rest else range(start + 1, stop - len(rest) + 1)
        total = 0.0
        for cut in cuts:
            after = inside(rest, cut, stop)
            if after:
                total += after * sum(p * inside(tuple(right), start, cut) for p, right in rules[first])
        return total

    return math.log(inside(("ROOT",), 0, len(words)))


def test_word_types_and_shares(lines):
    grammar = LineGrammar()
    assert len(grammar.vocabulary) == len(set(grammar.vocabulary)) == 68
    assert {word for line in lines for word in line.split()} == set(grammar.vocabulary)
    declarative = sum(" decl " in line for line in lines) / len(lines)
    assert declarative == pytest.approx(0.5966, abs=0.5 * math.sqrt(0.24 / 10_000) + 4 * math.sqrt(0.24 / len(lines)))
    lengths = np.array([len(line.split()) + 1 for line in lines])
    assert lengths.mean() == pytest.approx(grammar.tokens_per_line, abs=4 * lengths.std() / math.sqrt(len(lines)))
    assert lengths.max() == grammar.longest_line


def test_output_is_what_the_task_asks_for(lines):
    for line in lines:
        words = line.split()
        dot = words.index(".")
        sentence, task, output = words[:dot], words[dot + 1], words[dot + 2 :]
        if task == "decl":
            assert output == [*sentence, "."]
            continue
        subject = sentence[: next(i for i, word in enumerate(sentence) if word in AUXILIARIES)]
        assert not {"who", "that"} & set(subject), line  # an auxiliary after who/that would not be the main one
        assert output == [sentence[len(subject)], *subject, *sentence[len(subject) + 1 :], "?"]


def test_words_are_those_of_the_published_rules(published_rules):
    terminals = {s for rights in published_rules.values() for _, right in rights for s in right} - set(published_rules)
    assert terminals | {"?", "quest", "decl"} == set(LineGrammar().vocabulary)


def test_every_sentence_follows_from_the_published_rules(published_rules, lines):
    for line in lines[:2000]:
        words = line.split()
        assert math.isfinite(log_probability(published_rules, tuple(words[: words.index(".") + 1]))), line


def test_entropy_by_counting_sampled_lines(published_rules, lines):
    """Counted entropy of class sequences (Miller-Madow), plus the mean log size of a sentence's classes."""
    classes = {right[0]: left for left, rights in published_rules.items() for _, right in rights if len(right) == 1}
    sizes = Counter(classes.values())
    sequences, fresh = Counter(), []
    for line in lines:
        words = line.split()
        sentence = words[: words.index(".")]
        sequences[tuple(classes.get(word, word) for word in words)] += 1
        fresh.append(sum(math.log(sizes[classes[word]]) for word in sentence))
    shares = np.array(list(sequences.values())) / len(lines)
    counted = -(shares * np.log(shares)).sum() + (len(sequences) - 1) / (2 * len(lines))
    assert counted + np.mean(fresh) == pytest.approx(LineGrammar().entropy_per_line, abs=0.08)


@pytest.mark.parametrize("word_classes", ["full", "half", "quarter"])
@pytest.mark.parametrize("declarative_only", [False, True])
def test_different_derivations_give_different_lines(word_classes, declarative_only):
    """Classes share no word, so lines that differ in their class sequence differ, and no probability is split."""
    grammar = LineGrammar(word_classes, declarative_only=declarative_only)
    assert len({skeleton.classes for skeleton in grammar.skeletons}) == len(grammar.skeletons)
    assert len(grammar.skeletons) == 272 + (0 if declarative_only else 2 * 3 * 17)
    assert sum(grammar.skeletons.values()) == pytest.approx(1, abs=1e-12)
    assert Counter(grammar.vocabulary).most_common(1)[0][1] == 1


def test_variants_have_the_entropy_they_claim():
    full, short = LineGrammar(), LineGrammar(copied_half=False)
    assert short.entropy_per_line == pytest.approx(full.entropy_per_line, abs=1e-12)
    assert short.entropy_per_token > 1.8 * full.entropy_per_token
    quarter = LineGrammar("quarter", copied_half=False, declarative_only=True)
    tokens, lengths = quarter.sample(np.random.default_rng(0), 200_000)
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    # Bare subject, transitive verb, bare object: 4 numbers x (2 x 4 x 3 x 2 x 4) words, all equally likely.
    plain = Counter(tuple(d) for d in documents if len(d) == 9)
    assert len(plain) == 4 * 192
    assert sum(plain.values()) / 200_000 == pytest.approx(0.455 * 0.989 * 0.291, rel=0.02)
    assert np.var(list(plain.values())) == pytest.approx(np.mean(list(plain.values())), rel=0.25)
    assert LineGrammar().entropy_per_token > LineGrammar("half").entropy_per_token > quarter.entropy_per_line / 20


def test_published_figures():
    """Figures of the published in-distribution files: 22.4 words a line, 5,966 declarative lines of 10,000."""
    grammar, given = LineGrammar(), LineGrammar(copied_half=False)
    assert grammar.tokens_per_line - 1 == pytest.approx(22.4, abs=0.05)
    assert grammar.entropy_per_token == pytest.approx(0.996, abs=1e-3)
    assert grammar.entropy_per_line == pytest.approx(23.3, abs=0.1)
    declarative = sum(p for skeleton, p in grammar.skeletons.items() if "decl" in skeleton.classes)
    assert declarative == pytest.approx(0.5966, abs=2 * math.sqrt(0.24 / 10_000))
    assert grammar.memorised_per_token(100_000) == pytest.approx(0.49, abs=0.005)
    # The entropy is in the words up to and including the task word; what follows is a copy.
    sentence_and_task = given.tokens_per_line - 1
    assert grammar.entropy_per_line / sentence_and_task == pytest.approx(1.99, abs=0.01)


def test_lines_depend_on_the_seed_alone():
    def sample(**settings):
        return [line for batch in QuestionFormation(**settings).texts() for line in batch]

    few, many = sample(documents=1000), sample(documents=20_000)
    assert few == many[:1000]
    assert few != sample(documents=1000, generator_seed=1)
