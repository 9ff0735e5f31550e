"""The verdict on made sweeps of every kind: what it says, and that it says no more than the estimates."""

import json
import math

import numpy as np
import pytest

from amscale.planning.next_grid import with_next_step
from amscale.scaling.answer import Answer
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.dstar import cell_criteria, locate_all
from amscale.scaling.estimate import CAPACITY, FLOOR, Estimate, HypothesisTest
from amscale.scaling.fit import fit_sweep
from amscale.scaling.floor import floors
from amscale.scaling.laws.compare import Comparison
from amscale.scaling.optima import exponent_from_optima
from amscale.scaling.points import Point, PointTable
from amscale.scaling.power_law import HYPOTHESES, exponent_from_dstar
from amscale.scaling.reading import read_sweep
from amscale.scaling.several_corpora import by_corpus, estimates_of_corpora
from amscale.scaling.verdict import make_verdict

SHARED = {"convention": "N", "objective": "an objective", "method": "a method", "used": 3}


def answers(folder) -> tuple[Answer, Answer]:
    """Return the verdict by D* and the floors alone, which need no law."""
    table = read_sweep(folder)
    if len(corpora := by_corpus(table)) > 1:
        return make_verdict(table, estimates_of_corpora(table, corpora), tuple(HYPOTHESES)).answers
    criteria = cell_criteria(table.cells(), 0.2)[0]
    values = {cell: [item.value for item in items] for cell, items in criteria.items()}
    dstar = exponent_from_dstar(locate_all(values), table.convention, "a criterion")
    return make_verdict(table, [dstar, *floors(table)], tuple(HYPOTHESES)).answers


@pytest.mark.parametrize(
    ("k", "reach", "headline"),
    [
        (1.0, 32, "k = ½, 1.35, 2 and 4 are rejected; 1 is not."),
        (2.0, 8, "k = ½, 1, 1.35 and 4 are rejected; 2 is not."),
    ],
)
def test_an_exponent_is_told_from_the_others(tmp_path, write_sweep, k, reach, headline):
    write_sweep(tmp_path, k=k, sizes=5, amounts=16, reach=reach)
    exponent, _ = answers(tmp_path)
    assert exponent.question == "Does N grow as D^k, with k = ½, 1, 1.35, 2 or 4?"
    assert exponent.headline == headline
    assert exponent.says[0].startswith("At D*(N), the least D on which N parameters do not over-fit: k = ")


def test_runs_that_determine_nothing_say_why(tmp_path, write_trial):
    for D in (1e6, 2e6):
        write_trial(tmp_path, f"d{D}", 1e6, D, [2.0, 1.9], [2.0] * 200, entropy=None)
    exponent, floor = answers(tmp_path)
    assert (exponent.headline, exponent.says) == ("These runs do not determine k.", ())
    assert exponent.cannot_say == ("k: every loss is 1.9: nothing in these runs depends on N or D.",)
    assert floor.headline == "These runs do not determine a floor."
    assert "not known" in floor.question
    assert floor.says[1] == "The least validation loss is 1.9 (N = 1M, D = 1M)."


@pytest.mark.parametrize(
    ("entropy", "validation", "train", "headline", "open_question"),
    [
        (
            1.836,
            1.84,
            0.4,
            "1 is no floor of the training loss. Validation loss comes to rest at the entropy, 1.836, not at 1.",
            "",
        ),
        (0.9965, 1.001, 1.2, "Validation loss comes to rest at the entropy, 0.9965.", "the entropy or 1"),
        (0.56, 1.003, 1.01, "Validation loss comes to rest at 1, above the entropy, 0.56.", "pass below 1"),
        (1.836, 2.4, 1.9, "These runs do not determine a floor.", "0.56 above it"),
        (1.836, 1.5, 1.6, "These runs do not determine a floor.", "too little is held out"),
    ],
)
def test_floors(tmp_path, write_trial, entropy, validation, train, headline, open_question):
    write_trial(tmp_path, "small", 1e4, 1e6, [3.0, 2.9], [2.9] * 200, entropy=entropy)
    noise = 0.01 * np.sin(np.arange(200))
    curve = [3.0, *[validation] * 19]
    write_trial(tmp_path, "large", 1e6, 1e6, curve, list(train + noise), entropy=entropy)
    _, floor = answers(tmp_path)
    assert floor.question.endswith(f"at the entropy of the text, {entropy}?")
    assert floor.headline == headline
    assert open_question in " ".join(floor.cannot_say)
    assert any(f"The least validation loss is {validation:.4g} (N = 1M, D = 1M)" in text for text in floor.says)


def test_a_loss_that_still_moves_does_not_rest(tmp_path, write_trial):
    falling = list(np.linspace(3.0, 1.84, 20))
    write_trial(tmp_path, "a", 1e6, 1e6, falling, [2.0] * 200, entropy=1.836)
    assert "still moves" in " ".join(answers(tmp_path)[1].cannot_say)


def test_several_texts_follow_their_entropies(tmp_path, write_trial):
    for words, entropy in (("full", 1.8), ("half", 0.6)):
        file = (
            write_trial(tmp_path, words, 1e6, 1e6, [entropy + 0.002] * 20, [2.0] * 200, entropy=entropy) / "result.json"
        )
        settings = {"data": {"corpus": "question_formation", "word_classes": words}}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": settings}))
    exponent, floor = answers(tmp_path)
    assert "the points are of 2 corpora" in exponent.cannot_say[0]
    assert floor.headline == "Validation loss follows the entropy from text to text, and 1 is no floor for all of them."
    assert "whose entropies are 0.6 to 1.8" in floor.says[0]


def test_one_learning_rate_for_all_is_said(tmp_path, write_sweep):
    write_sweep(tmp_path, k=2.0, sizes=3, amounts=8)
    for file in sorted(tmp_path.glob("trials/*/result.json")):
        train = {"learning_rate": 1e-3, "batch_tokens": 2048}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": {"train": train}}))
    untuned = "k of tuned runs: all N and D were trained at one learning rate, 0.001, and one batch, 2.05k tokens"
    assert untuned in answers(tmp_path)[0].cannot_say[-1]
    train["learning_rate"] = 2e-3
    file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": {"train": train}}))
    assert (
        answers(tmp_path)[0].cannot_say[-1].startswith("k of tuned runs: all N and D were trained at one batch, 2.05k")
    )


def test_d_that_follows_n_tells_nothing_of_k():
    points = [Point("p", N, 20 * N, 2 + (N / 1e6) ** -0.3, result=None) for N in np.geomspace(1e6, 1e9, 6)]
    table = PointTable("made", "N", points)
    exponent, floor = make_verdict(table, [exponent_from_optima(table, tuple(HYPOTHESES))], tuple(HYPOTHESES)).answers
    assert exponent.headline == "These runs do not determine k."
    assert exponent.cannot_say[0].startswith("k: D = 20 N in every run")
    assert len(exponent.cannot_say) == 1
    assert floor.headline == "These runs do not determine a floor."


def of(id, value=None, interval=None, rejected=(), kept=(), **more):
    tests = [HypothesisTest(name=f"k = {k:g}", value=k, rejected=k in rejected, how="") for k in (*rejected, *kept)]
    return Estimate(id=id, estimand=id, value=value, interval=interval, tests=tuple(tests), **SHARED | more)


def said(*estimates, hypotheses=(1.0, 2.0), laws=()) -> Answer:
    table = PointTable("made", "N", [Point("p", 1, 2, 3), Point("q", 2, 3, 2), Point("r", 3, 2, 2.5)])
    return make_verdict(table, estimates, hypotheses, laws).answers[0]


def test_several_estimates_of_k():
    both = said(of("k_dstar", 2.0, (1.5, 2.5), (1.0,), (2.0,)), of("k_nopt", 1.9, (0.5, 3.0), (), (1.0, 2.0)))
    assert both.headline == "k = 1 is rejected by 1 of 2 estimates, 2 by none."
    assert both.says[-1] == "Each value is tested at the 5 % level by itself."
    apart = said(of("k_dstar", 2.0, (1.5, 2.5), (1.0,), (2.0,)), of("k_nopt", 1.0, (0.9, 1.1), (2.0,), (1.0,)))
    found = "it is 2 (95 % interval 1.5 to 2.5) by D*(N), and 1 (95 % interval 0.9 to 1.1) by N_opt(D)"
    assert apart.headline == f"k depends on the question: {found}."
    ends = said(of("k_dstar", 5.0, (3.0, math.inf), (1.0, 2.0)), of("k_nopt", 1.0, (0.9, 1.1), (2.0,), (1.0,)))
    assert ends.headline.startswith("k depends on the question: it is 1 (95"), "bounded first"
    assert ends.headline.endswith("and above 3 by D*(N).")
    open_ = said(of("k_nopt", 1.9, (0.5, 3.0), (), (1.0, 2.0)), of("k_dstar", reason="D* is known for 1 of 3 N"))
    assert open_.headline == "These runs do not tell k = 1 and 2 apart."
    assert open_.cannot_say[0] == "k by D*(N): D* is known for 1 of 3 N."
    assert said(of("k_nopt", 1.9)).headline == "k is estimated without intervals, so nothing is rejected."
    all_ = said(of("k_nopt", 3.0, (2.5, 3.5), (1.0, 2.0)))
    assert all_.headline == "k = 1 and 2 are rejected, all that were tested."


def test_only_the_recommended_law_is_read_and_the_others_are_counted():
    chosen = of("k_coupled", 1.0, (0.8, 1.2), (2.0,), (1.0,), details={"law": "coupled", "recommended": True})
    other = of("k_kaplan", 3.0, (2.9, 3.1), (1.0, 2.0), details={"law": "Kaplan"})
    answer = said(chosen, other)
    assert answer.headline == "k = 2 is rejected; 1 is not."
    assert answer.says[:2] == (
        "By the recommended law (coupled): k = 1 (95 % interval 0.8 to 1.2): 2 is rejected; 1 is not.",
        "1 law that describes these runs less well: k = 3.",
    )


def test_a_law_whose_rivals_leave_k_open_rejects_nothing():
    """On 20 losses of small Transformers Kaplan's law alone had a k, and Chinchilla's described them as well."""
    kaplan = of("k_kaplan", 6.0, (3.2, 21), (1.0, 2.0), details={"law": "Kaplan", "id": "kaplan", "recommended": True})
    open_ = of("k_chinchilla", reason="every k above 0.161", details={"law": "Chinchilla", "id": "chinchilla"})
    for aicc, headline in (
        (-97.0, "These runs do not determine k."),
        (-80.0, "k = 1 and 2 are rejected, all that were tested."),
    ):
        scores = {"kaplan": -92.9, "chinchilla": aicc}
        laws = [Comparison.model_construct(id=id, objective="squared_log", aicc=score) for id, score in scores.items()]
        answer = said(kaplan, open_, laws=laws)
        assert answer.headline == headline
        assert ("but Chinchilla describes these runs as well, and leaves k open" in answer.says[0]) == (aicc == -97.0)


def test_capacity_implies_a_k():
    slope = of("capacity_slope", 1.0, (0.8, 1.25), group=CAPACITY)
    answer = said(slope, hypotheses=(0.5, 1.0, 2.0))
    assert answer.headline == "k = ½ and 2 are rejected; 1 is not."
    assert "C ∝ N^(1/k): k = 1 (95 % interval 0.8 to 1.25)" in answer.says[0]
    assert (
        said(of("capacity_slope", 0.1, (-0.5, 0.7), group=CAPACITY), hypotheses=(1.0,)).headline
        == "k = 1 is rejected, all that were tested."
    )


def test_the_next_step_says_why_there_is_none_and_json_has_the_verdict_first(tmp_path, write_sweep):
    write_sweep(tmp_path, k=2.0, sizes=3, amounts=4)
    settings = {"count": "non_embedding", "window": 0.2, "threshold": 0.04, "hypotheses": [1.0, 2.0]}
    fit = with_next_step(
        BaseFit(read_sweep(tmp_path), [of("floor_validation", reason="why", group=FLOOR)], [], settings)
    )
    assert str(fit.verdict()).splitlines()[-1].startswith("next      No next cells can be named: ")
    assert "has no sweep.yaml" in fit.verdict().next_step.reason
    document = json.loads(fit.to_json())
    assert next(iter(document)) == "verdict"
    assert document["verdict"]["answers"][0].keys() == {"question", "headline", "says", "cannot_say"}


@pytest.mark.parametrize("known", [0.6, 1.3])
def test_a_floor_of_a_law_below_the_entropy_of_unseen_text_is_none(tmp_path, write_trial, known):
    noise = np.random.default_rng(0)
    for N in np.geomspace(1e4, 1e6, 5):
        for D in np.geomspace(1e5, 1e7, 5):
            loss = (0.9 + 8 * N**-0.3 + 20 * D**-0.3) * math.exp(noise.normal(0, 1e-3))
            write_trial(tmp_path, f"{N:.0f}-{D:.0f}", N, D, [2 * loss, loss], [loss] * 200, entropy=known)
    floor = fit_sweep(tmp_path)["floor_chinchilla"]
    if known < 0.9:
        assert floor.interval[0] < 0.9 < floor.interval[1]
    else:
        assert "ends below 1.3, the entropy of the text" in floor.reason
