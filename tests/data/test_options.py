"""Options of every corpus: duplicates, copies, shuffled tokens, the split, and statistics without a store."""

from collections import Counter

import numpy as np
import pytest

from amscale.data import IGNORED, Batches, Sequences, TokenStatistics, predict_statistics, prepare
from amscale.data.corpora.local_files import JsonLines, Text
from amscale.data.corpora.openwebtext import OpenWebText
from amscale.data.corpora.question_formation import QuestionFormation
from amscale.data.corpora.random_tokens import RandomTokens
from amscale.data.duplicates import signatures
from amscale.data.token_store import token_type
from amscale.errors import InputError


def contents(subset) -> list[bytes]:
    return [subset.document(i).tobytes() for i in range(subset.documents)]


def everything(store) -> list[bytes]:
    return contents(store.training()) + contents(store.validation())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def plain(root):
    return prepare(QuestionFormation(documents=20_000, word_classes="quarter"), root)


# duplicates


def test_exact_duplicates_are_dropped(root, plain):
    store = prepare(QuestionFormation(documents=20_000, word_classes="quarter", duplicates="exact"), root)
    found = everything(store)
    assert len(set(everything(plain))) < 20_000  # there are some
    assert set(found) == set(everything(plain))
    assert len(found) == len(set(found))
    assert store.facts["dropped_duplicates"] == 20_000 - len(found)
    assert store.entropy_per_token is None  # a choice among lines is not the grammar's distribution


def words(generator, count: int) -> list[str]:
    return [f"w{i}" for i in generator.integers(0, 5000, count)]


@pytest.fixture
def pages(tmp_path):
    """100 originals of 300 words, and of each one copy with 2 words changed and one with 60 changed."""
    generator = np.random.default_rng(0)
    originals = [words(generator, 300) for _ in range(100)]
    lines = []
    for changed in (0, 2, 60):
        for page in originals:
            copy = list(page)
            for place in generator.choice(300, changed, replace=False):
                copy[place] = "changed"
            lines.append(" ".join(copy))
    path = tmp_path / "pages.txt"
    path.write_text("\n".join(lines + lines[:10]) + "\n")
    return path


def test_near_duplicates_are_dropped_and_less_similar_pages_are_not(root, pages):
    """2 words of 300 change 10 of 296 five-word runs: similarity 0.93; 60 words change most of them: about 0.2."""
    pytest.importorskip("rensa", reason="pip install rensa")

    def kept(duplicates):
        settings = {"corpus": "text", "files": str(pages), "document": "line", "tokenizer": "word"}
        store = prepare(Text(duplicates=duplicates, validation=5, **settings), root)
        texts = [
            store.decode(s.document(i)) for s in (store.training(), store.validation()) for i in range(s.documents)
        ]
        return Counter(text.split().count("changed") for text in texts)

    assert kept("keep") == {0: 110, 2: 100, 60: 100}
    assert kept("exact") == {0: 100, 2: 100, 60: 100}
    assert kept("near") == {0: 100, 60: 100}  # the first of each group is kept


def test_signatures_estimate_the_jaccard_similarity():
    pytest.importorskip("rensa", reason="pip install rensa")
    generator = np.random.default_rng(1)
    one = generator.integers(0, 1000, 2000)
    for changed in (5, 50, 150):
        other = one.copy()
        other[generator.choice(2000, changed, replace=False)] = 1001
        a, b = signatures(np.concatenate([one, other]), np.array([2000, 2000]))
        runs = [{tuple(x[i : i + 5]) for i in range(1996)} for x in (one, other)]
        true = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
        assert (a == b).mean() == pytest.approx(true, abs=4 * np.sqrt(true * (1 - true) / 128))
    short = signatures(np.array([1, 2, 9, 1, 2, 9, 2, 1, 9, 9]), np.array([3, 3, 3, 1]))
    assert (short[0] == short[1]).all()
    assert (short[0] == short[2]).mean() < 0.1


# copies


@pytest.mark.parametrize("packing", ["document", "stream"])
def test_copies_repeat_each_sequence_in_an_epoch_and_leave_d_alone(plain, packing):
    once, thrice = plain.training(5000, packing), plain.training(5000, packing, copies=3)
    assert thrice.unique_tokens == once.unique_tokens
    np.testing.assert_array_equal(thrice.tokens, once.tokens)

    def epoch(subset):
        batches = Batches(subset, 20, 1, seed=0)
        rows = [batches.batch(step)[1][0] for step in range(batches.sequences_total)]
        return Counter(tuple(row[row != IGNORED]) for row in rows), batches

    single, _ = epoch(once)
    triple, batches = epoch(thrice)
    assert triple == Counter({row: 3 * n for row, n in single.items()})
    assert batches.tokens_per_epoch == 3 * once.unique_tokens
    assert batches.mean_targets_per_sequence == Sequences(once, 20).mean_targets_per_sequence
    assert plain.validation(packing).copies == 1


def test_copies_share_a_store(root, plain):
    settings = QuestionFormation(documents=20_000, word_classes="quarter", copies=5)
    assert prepare(settings, root).folder == plain.folder


# shuffled tokens


def ends_and_split(store):
    ends = np.flatnonzero(np.array(store.tokens) == store.end_token)
    return ends.tolist(), store.offsets.tolist(), store.training_documents


@pytest.mark.parametrize("how", ["document", "corpus"])
def test_shuffled_tokens_are_the_same_ones_in_other_places(root, plain, how):
    settings = QuestionFormation(documents=20_000, word_classes="quarter", shuffle_tokens=how)
    store = prepare(settings, root)
    assert store.folder != plain.folder
    assert ends_and_split(store) == ends_and_split(plain)
    assert store.tokens.tolist() != plain.tokens.tolist()
    np.testing.assert_array_equal(np.bincount(store.tokens), np.bincount(plain.tokens))
    same = [sorted(a) == sorted(b) for a, b in zip(everything(store)[:2000], everything(plain)[:2000], strict=True)]
    assert all(same) if how == "document" else not any(same)
    assert store.entropy_per_token is None
    # The first word of a line is a determiner; shuffled, any word is there as often as in the corpus.
    starts = np.array(store.offsets[:-1])
    lengths = np.diff(store.offsets)
    firsts = np.bincount(store.tokens[starts], minlength=store.vocabulary_size)
    counts = np.bincount(store.tokens, minlength=store.vocabulary_size)[: store.end_token]
    expected = np.zeros(store.end_token)
    if how == "corpus":
        expected = len(starts) * counts / counts.sum()
    else:
        weights = np.repeat(1 / (lengths - 1), lengths)
        expected = np.bincount(store.tokens, weights, minlength=store.vocabulary_size)[: store.end_token]
    assert (np.abs(firsts[: store.end_token] - expected) < 5 * np.sqrt(expected) + 1).all()


def test_corpus_shuffle_over_many_files_moves_tokens_across_them(root, plain, monkeypatch):
    monkeypatch.setattr("amscale.data.buckets._BUCKET", 1 << 14)
    monkeypatch.setattr("amscale.data.buckets._CHUNK", 1 << 12)
    settings = QuestionFormation(documents=20_000, word_classes="quarter", shuffle_tokens="corpus", split_seed=7)
    store = prepare(settings, root)
    np.testing.assert_array_equal(np.bincount(store.tokens), np.bincount(plain.tokens))
    thirds = [np.bincount(part, minlength=store.vocabulary_size) for part in np.array_split(store.tokens, 3)]
    for third in thirds:
        expected = np.bincount(store.tokens, minlength=store.vocabulary_size) / 3
        assert (np.abs(third - expected)[:-1] < 5 * np.sqrt(expected[:-1]) + 1).all()


# split


def test_the_last_documents_are_held_out(tmp_path):
    lines = [f"line {i}" for i in range(100)]
    (tmp_path / "x.txt").write_text("\n".join(["line 99", *lines]))
    settings = {"corpus": "text", "files": f"{tmp_path}/x.txt", "document": "line", "tokenizer": "byte"}

    def held_out(**more):
        store = prepare(Text(validation=0.05, **settings, **more), tmp_path / "s")
        subset = store.validation()
        return {store.decode(subset.document(i)) for i in range(subset.documents)}, store

    last, store = held_out(split="last")
    assert last == {f"line {i}" for i in range(95, 100)}
    assert (store.training_documents, store.facts["validation_documents"]) == (96, 5)
    by_content, _ = held_out()
    assert by_content != last
    kept, store = held_out(split="last", duplicates="exact")
    assert kept == {f"line {i}" for i in range(94, 99)}  # line 99 came first, and 5 of 100 are held out
    assert store.facts["documents"] == 100
    with pytest.raises(InputError, match=r"^data\.validation"):
        prepare(Text(split="last", **{**settings, "validation": 101}), tmp_path / "s")


# statistics without a store


def test_predicted_statistics_agree_with_the_store(root):
    def both(settings):
        store = prepare(settings, root)
        predicted = predict_statistics(settings)
        context = settings.context or store.longest_document
        sequences = Sequences(store.training(None, settings.packing), context)
        lengths = np.diff(store.offsets)
        error = 5 * lengths.std() / np.sqrt(len(lengths))
        assert predicted.vocabulary_size == store.vocabulary_size
        assert predicted.context == context
        assert predicted.mean_tokens_per_sequence == pytest.approx(
            sequences.mean_targets_per_sequence, abs=error + 0.05
        )
        return predicted

    for more in ({}, {"context": 20}, {"context": 7, "packing": "stream"}, {"copied_half": False}):
        both(QuestionFormation(documents=20_000, **more))
    few = both(QuestionFormation(documents=200, validation=20, declarative_only=True))
    assert few.context == QuestionFormation(declarative_only=True).grammar.longest_line  # though 200 lines lack it
    assert both(RandomTokens(corpus="random_tokens")) == TokenStatistics(33, 32, 32.0)
    assert both(RandomTokens(corpus="random_tokens", context=20)) == TokenStatistics(33, 20, 16.0)
    both(QuestionFormation(documents=20_000, tokenizer="byte", packing="stream", context=64))


def test_predicted_statistics_of_a_corpus_elsewhere(tmp_path):
    assert predict_statistics(OpenWebText(corpus="openwebtext")) == TokenStatistics(50257, 1024, 1024.0)
    assert predict_statistics(JsonLines(corpus="jsonl", files="away", tokenizer="byte")) == TokenStatistics(
        257, 256, 256.0
    )
    store = prepare(QuestionFormation(documents=2000, tokenizer="bpe", tokenizer_vocabulary=300), tmp_path)
    settings = {"corpus": "jsonl", "files": "away", "tokenizer": str(store.folder / "tokenizer.json")}
    assert predict_statistics(JsonLines(**settings)) == TokenStatistics(300, 256, 256.0)
    assert predict_statistics(JsonLines(packing="document", **settings)) is None
    assert predict_statistics(JsonLines(context=None, **settings)) is None
    assert predict_statistics(JsonLines(corpus="jsonl", files="away")) is None  # a tokenizer that is yet to be trained
    assert predict_statistics(QuestionFormation(duplicates="exact")) is None


def test_the_published_vocabulary_is_that_of_the_model():
    transformers = pytest.importorskip("transformers")
    assert transformers.GPT2Config().vocab_size == predict_statistics(OpenWebText(corpus="openwebtext")).vocabulary_size


def test_a_vocabulary_beyond_the_stores_type_is_an_error():
    assert [token_type(size).itemsize for size in (65_536, 65_537, 2**32)] == [2, 4, 4]
    with pytest.raises(InputError, match=r"^data\.tokenizer: a vocabulary of 4294967297"):
        token_type(2**32 + 1)
