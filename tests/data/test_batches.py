"""Batches are a function of (seed, step), and an epoch is each sequence once."""

import numpy as np
import pytest

from amscale.data import IGNORED, Batches, Sequences, Subset, nested_length, prepare
from amscale.data.batches import nested_order
from amscale.data.corpora.question_formation import QuestionFormation
from amscale.errors import InputError

END = 9
DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8, 1, 2], [3, 3]]


def subset(packing) -> Subset:
    tokens = np.array([t for document in DOCUMENTS for t in (*document, END)], dtype=np.uint16)
    return Subset(tokens, np.cumsum([0] + [len(d) + 1 for d in DOCUMENTS]), END, packing)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return prepare(QuestionFormation(documents=2000, validation=200), tmp_path_factory.mktemp("store"))


def test_document_packing_by_hand():
    sequences = Sequences(subset("document"), context=5)
    inputs, targets = sequences.batch(np.arange(sequences.sequences_total))
    x = IGNORED
    assert inputs.tolist() == [[9, 1, 2, 3, 9], [9, 4, 9, 9, 9], [9, 5, 6, 7, 8], [1, 2, 9, 9, 9], [9, 3, 3, 9, 9]]
    assert targets.tolist() == [[1, 2, 3, 9, x], [4, 9, x, x, x], [5, 6, 7, 8, 1], [2, 9, x, x, x], [3, 3, 9, x, x]]
    assert inputs.dtype == targets.dtype == np.int64


def test_stream_packing_by_hand():
    sequences = Sequences(subset("stream"), context=7)
    inputs, targets = sequences.batch(np.arange(sequences.sequences_total))
    x = IGNORED
    assert targets.tolist() == [[1, 2, 3, 9, 4, 9, 5], [6, 7, 8, 1, 2, 9, 3], [3, 9, x, x, x, x, x]]
    assert inputs.tolist() == [[9, 1, 2, 3, 9, 4, 9], [5, 6, 7, 8, 1, 2, 9], [3, 3, 9, 9, 9, 9, 9]]


@pytest.mark.parametrize("packing", ["document", "stream"])
def test_epochs_cover_each_sequence_once_in_different_orders(store, packing):
    data = store.training(10_000, packing)
    batches = Batches(data, context=30, sequences=7, seed=0)
    total = batches.sequences_total
    rows = []
    for step in range(-(-2 * total // 7)):
        inputs, targets = batches.batch(step)
        assert inputs.shape == targets.shape
        assert inputs.shape[0] == 7
        rows += [tuple(row[row != IGNORED]) for row in targets]
    expected = [tuple(row[row != IGNORED]) for row in Sequences(data, 30).batch(np.arange(total))[1]]
    first, second = rows[:total], rows[total : 2 * total]
    assert sorted(first) == sorted(second) == sorted(expected)
    assert first != second != expected
    assert sum(map(len, first)) == batches.tokens_per_epoch == data.unique_tokens
    assert batches.mean_targets_per_sequence == pytest.approx(data.unique_tokens / total)
    assert batches.steps_per_epoch == pytest.approx(total / 7)


def test_a_batch_depends_on_seed_and_step_alone(store):
    def batch(seed, step, before=()):
        batches = Batches(store.training(10_000), 36, 16, seed)
        for other in before:
            batches.batch(other)
        return batches.batch(step)

    for step in (0, 5, 300):  # 300 is many epochs in
        for straight, detour in zip(batch(0, step), batch(0, step, before=(999, 3, 70, 28, 300)), strict=True):
            np.testing.assert_array_equal(straight, detour)
    assert batch(0, 5)[0].tolist() != batch(1, 5)[0].tolist()
    assert batch(0, 5)[0].tolist() != batch(0, 6)[0].tolist()


def test_a_batch_larger_than_the_subset_spans_epochs(store):
    batches = Batches(store.training(100), 36, 50, 0)
    _, targets = batches.batch(3)
    assert targets.shape[0] == 50
    assert len({row.tobytes() for row in targets}) == batches.sequences_total


def test_a_part_is_what_the_whole_batch_has_in_its_rows(store):
    batches = Batches(store.training(500), 24, 10, 0)
    for step in range(30):
        inputs, targets = batches.batch(step)
        rows = np.array([7, 8, 9, 10, 11])  # the last two are past the end
        part_inputs, part_targets, counted = batches.part(step, rows)
        assert counted == (targets != IGNORED).sum()
        assert np.array_equal(part_inputs, inputs[[7, 8, 9, 0, 0]])
        assert np.array_equal(part_targets[:3], targets[7:])
        assert (part_targets[3:] == IGNORED).all()


def test_width_is_a_multiple_of_eight_within_the_context(store):
    sequences = Sequences(store.training(), 36)
    lengths = np.diff(store.training().offsets)
    for length, width in ((12, 16), (16, 16), (18, 24), (36, 36)):
        (index, *_) = np.flatnonzero(lengths == length)
        assert sequences.batch(np.array([index]))[0].shape == (1, width)


@pytest.mark.parametrize(("context", "sequences"), [(0, 4), (8, 0)])
def test_empty_shapes_are_errors(store, context, sequences):
    with pytest.raises(InputError, match="at least 1"):
        Batches(store.training(), context, sequences, 0)


@pytest.mark.parametrize("growth", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("smaller", [1, 2, 9, 57, 100, 999])
def test_a_nested_order_begins_with_that_of_every_smaller_subset(growth, smaller):
    order, larger = nested_order(smaller, 3, growth), nested_order(1000, 3, growth)
    shared = nested_length(smaller, growth)
    assert sorted(order) == list(range(smaller))
    assert order[:shared].tolist() == larger[:shared].tolist()
    assert smaller / (1 + growth) - 1 <= shared < smaller
    assert nested_order(1000, 4, growth).tolist() != larger.tolist() != list(range(1000)) or growth < 0.1


@pytest.mark.parametrize("packing", ["document", "stream"])
def test_nested_batches_are_those_of_more_data_until_the_shared_ones_end(store, packing):
    few, many = (Batches(store.training(size, packing), 30, 7, 0, nested=0.1) for size in (5_000, 10_000))
    shared = nested_length(few.sequences_total, 0.1) // 7
    assert shared > 0.8 * few.steps_per_epoch
    for step in range(shared):
        for one, other in zip(few.batch(step), many.batch(step), strict=True):
            assert np.array_equal(one, other)
