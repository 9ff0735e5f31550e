"""Token stores: nested subsets, no leak into validation, one build, and opening without reading."""

import json
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from pydantic import TypeAdapter

from amscale.data import DataSettings, open_store, prepare
from amscale.data.corpora.question_formation import QuestionFormation
from amscale.data.token_store import DamagedStore
from amscale.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def store(root):
    return prepare(QuestionFormation(documents=12_000, validation=0.1), root)


def contents(subset) -> list[bytes]:
    return [subset.document(i).tobytes() for i in range(subset.documents)]


def test_no_validation_document_is_in_training(store):
    training, validation = contents(store.training()), contents(store.validation())
    assert len(set(training)) < len(training)  # the corpus does repeat lines, or this test would prove nothing
    assert not set(training) & set(validation)
    assert len(training) + len(validation) == 12_000
    assert len(validation) == pytest.approx(1200, abs=20)


def test_held_out_documents_are_a_fair_sample(store):
    lengths = np.diff(store.offsets)
    training, validation = lengths[: store.training_documents], lengths[store.training_documents :]
    error = lengths.std() * np.sqrt(1 / len(validation) + 1 / len(training))
    assert abs(training.mean() - validation.mean()) < 5 * error


def test_subsets_are_nested_and_no_longer_than_needed(store):
    sizes = [1, 500, 5_000, 50_000, store.training_tokens]
    previous = store.training(sizes[0])
    for size in sizes:
        subset = store.training(size)
        assert size <= subset.unique_tokens < size + store.longest_document
        assert subset.offsets[-2] < size
        assert subset.unique_tokens == len(subset.tokens) == subset.offsets[-1]
        np.testing.assert_array_equal(subset.tokens[: previous.unique_tokens], previous.tokens)
        np.testing.assert_array_equal(store.training(size, "stream").tokens, subset.tokens[:size])
        previous = subset
    assert previous.documents == store.training_documents
    assert all(contents(previous)[i][-2:] == np.uint16(store.end_token).tobytes() for i in range(100))


def test_a_size_beyond_the_corpus_is_an_error_of_one_line(store):
    with pytest.raises(InputError, match=r"^data\.size: 9000000 .* 2\d{5} .*data\.documents$"):
        store.training(9_000_000)


def test_order_follows_the_split_seed(root, store):
    other = prepare(QuestionFormation(documents=12_000, validation=0.1, split_seed=1), root)
    assert contents(other.validation()) != contents(store.validation())
    assert sorted(contents(other.training()) + contents(other.validation())) == sorted(
        contents(store.training()) + contents(store.validation())
    )


def test_usage_settings_share_a_store_and_others_do_not(root, store):
    same = QuestionFormation(documents=12_000, validation=0.1, size="20k", packing="stream", context=16)
    assert prepare(same, root).folder == store.folder
    assert prepare(QuestionFormation(documents=2500, generator_seed=3), root).folder != store.folder


def test_facts(store):
    assert (store.vocabulary_size, store.end_token, store.longest_document) == (69, 68, 36)
    assert store.entropy_per_token == pytest.approx(QuestionFormation().grammar.entropy_per_token)
    assert store.tokens.dtype == np.uint16
    line = store.decode(store.training().document(0))
    assert line.split()[-1] in ".?"
    assert " decl " in line or " quest " in line


@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_other_tokenizers_hold_the_same_lines(tmp_path, tokenizer):
    settings = {"documents": 1500, "validation": 100, "tokenizer_vocabulary": 300}
    other = prepare(QuestionFormation(tokenizer=tokenizer, **settings), tmp_path)
    words = prepare(QuestionFormation(**settings), tmp_path)

    def lines(store):
        return sorted(
            store.decode(subset.document(i))
            for subset in (store.training(), store.validation())
            for i in range(subset.documents)
        )

    assert lines(other) == lines(words)
    assert other.entropy_per_document == words.entropy_per_document
    assert other.entropy_per_token == pytest.approx(words.entropy_per_document * 1500 / other.facts["tokens"])


def test_builders_at_once_agree_and_leave_nothing_behind(tmp_path):
    settings = QuestionFormation(documents=3000)
    stores = []
    threads = [threading.Thread(target=lambda: stores.append(prepare(settings, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    assert len({store.folder for store in stores}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [stores[0].folder.name]


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"^data\.validation: .* 100 documents"):
        prepare(QuestionFormation(documents=100, validation=100), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_an_error(tmp_path):
    store = prepare(QuestionFormation(documents=1500), tmp_path)
    path = store.folder / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="tokens long"):
        open_store(store.folder)
    facts = json.loads((store.folder / "store.json").read_text())
    (store.folder / "store.json").write_text(json.dumps({**facts, "format": 0}))
    with pytest.raises(InputError, match="format 0"):
        open_store(store.folder)
    with pytest.raises(InputError, match="not a token store"):
        open_store(tmp_path / "nowhere")


def damage(folder, name, how):
    path = folder / name
    content = path.read_bytes()
    kept = {"short": len(content) // 2, "tail of zeros": len(content) - 64, "all zeros": 0}[how]
    path.write_bytes(content[:kept] + (b"" if how == "short" else bytes(len(content) - kept)))


@pytest.mark.parametrize("how", ["short", "tail of zeros", "all zeros"])
@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "tokenizer.json", "store.json"])
def test_a_store_that_a_power_loss_damaged_is_named_and_made_again(tmp_path, capsys, name, how):
    settings = QuestionFormation(documents=3000)
    folder = prepare(settings, tmp_path).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(folder, name, how)
    with pytest.raises(DamagedStore, match=rf"{name}|not a token store"):
        open_store(folder)
    assert prepare(settings, tmp_path).folder == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert "made again" in capsys.readouterr().err


@pytest.mark.parametrize("tail", [0, 1 << 13])
def test_a_store_of_an_earlier_version_is_opened_unless_it_ends_with_zeros(tmp_path, tail):
    folder = prepare(QuestionFormation(documents=3000), tmp_path).folder
    facts = json.loads((folder / "store.json").read_text())
    for key in ("checksums", "text", "parts_of_one_document"):
        del facts[key]
    (folder / "store.json").write_text(json.dumps(facts))
    path = folder / "tokens.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size - tail] + bytes(tail))
    if tail:
        with pytest.raises(DamagedStore, match=r"tokens\.bin is not what was written"):
            open_store(folder)
    else:
        assert open_store(folder).describe_text() is None


def test_every_file_is_on_the_disk_before_the_store_has_its_name(tmp_path, monkeypatch):
    synced, true_fsync, true_rename = set(), os.fsync, os.rename

    def fsync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        true_fsync(descriptor)

    def rename(source, target):
        written = [source, *source.iterdir()]
        unsynced.extend(path.name for path in written if path.stat().st_ino not in synced)
        renamed.append(target.name)
        true_rename(source, target)

    unsynced, renamed = [], []
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    store = prepare(QuestionFormation(documents=1500), tmp_path)
    assert (unsynced, renamed) == ([], [store.folder.name])
    assert tmp_path.stat().st_ino in synced  # and the name itself, after it


@pytest.mark.parametrize(
    "bad",
    [
        {"corpus": "questions"},
        {"corpus": "question_formation", "validation": 0},
        {"corpus": "text", "files": "a", "x": 1},
    ],
)
def test_bad_settings_are_errors(bad):
    with pytest.raises(ValueError, match=r"question_formation|validation|x"):
        TypeAdapter(DataSettings).validate_python(bad)


def test_opening_and_cutting_read_and_copy_no_tokens(tmp_path):
    """Memory that Python and numpy allocate meanwhile, which reading or copying the tokens would take too."""
    folder = prepare(QuestionFormation(documents=40_000), tmp_path).folder
    open_store(folder).training(1000)  # what the first call imports does not count

    def allocated(action) -> int:
        tracemalloc.start()
        result = action()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del result
        return peak

    store = open_store(folder)
    assert store.tokens.nbytes > 1_800_000
    assert allocated(lambda: open_store(folder)) < 100_000
    for packing in ("document", "stream"):
        assert allocated(lambda packing=packing: store.training(500_000, packing)) < 10_000
        subset = store.training(500_000, packing)
        assert np.shares_memory(subset.tokens, store.tokens)
        assert np.shares_memory(subset.offsets, store.offsets)


def test_import_is_light():
    heavy = {"torch", "datasets", "transformers", "tokenizers"}
    code = f"import sys, amscale.data; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
