"""From text files to documents; files and tokenizers that cannot be used are named."""

import gzip
from typing import Literal

import pytest

from amscale.data import prepare
from amscale.data.corpora.local_files import Text
from amscale.data.corpus import TextCorpus
from amscale.errors import InputError


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.txt").write_text("one two\nthree\n\n\nfour né\n", encoding="utf-8")
    (folder / "b.txt").write_text("five <end of document> six\n\n  \nseven eight nine\n")
    return folder


def decoded(store) -> list[str]:
    return sorted(
        store.decode(s.document(i)) for s in (store.training(), store.validation()) for i in range(s.documents)
    )


@pytest.mark.parametrize(
    ("document", "expected", "empty"),
    [
        ("file", ["five <end of document> six\n\n  \nseven eight nine\n", "one two\nthree\n\n\nfour né\n"], 0),
        ("line", ["five <end of document> six", "four né", "one two", "seven eight nine", "three"], 4),
        ("paragraph", ["five <end of document> six", "four né", "one two\nthree", "seven eight nine"], 0),
    ],
)
@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_documents(tmp_path, files, document, expected, empty, tokenizer):
    settings = Text(corpus="text", files=f"{files}/*.txt", document=document, tokenizer=tokenizer, validation=1)
    store = prepare(settings, tmp_path / "stores")
    assert decoded(store) == expected
    assert store.facts["empty_documents"] == empty
    assert store.entropy_per_token is None


def test_words(tmp_path, files):
    settings = Text(corpus="text", files=f"{files}/*.txt", document="line", tokenizer="word", validation=1)
    store = prepare(settings, tmp_path / "stores")
    assert store.vocabulary_size == 14  # ten words, the three of the bracketed phrase, the end token
    assert "five <end of document> six" in decoded(store)


def test_changed_file_is_another_store_and_a_moved_one_is_not(tmp_path, files):
    def store():
        settings = Text(corpus="text", files=[f"{files}/*.txt"], document="line", tokenizer="byte", validation=1)
        return prepare(settings, tmp_path / "stores").folder

    before = store()
    files = files.rename(tmp_path / "moved")
    assert store() == before
    (files / "b.txt").write_text("five\nsix\n")
    assert store() != before


def test_a_trained_tokenizer_serves_from_its_file(tmp_path, files):
    first = prepare(Text(corpus="text", files=f"{files}/*.txt", document="line", validation=1), tmp_path)
    path = str(first.folder / "tokenizer.json")
    second = prepare(
        Text(corpus="text", files=f"{files}/*.txt", document="line", validation=1, tokenizer=path), tmp_path
    )
    assert second.folder != first.folder
    assert second.tokens.tolist() == first.tokens.tolist()
    assert second.end_token == first.end_token


def test_compressed_text_is_read(tmp_path, files):
    for path in files.iterdir():
        path.with_suffix(".txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    settings = {"corpus": "text", "document": "line", "tokenizer": "byte", "validation": 1}
    plain, packed = (prepare(Text(files=f"{files}/*.{end}", **settings), tmp_path / "s") for end in ("txt", "txt.gz"))
    assert decoded(packed) == decoded(plain)
    (files / "a.txt.gz").write_bytes(gzip.compress(b"fine\n\xed\xa0\xbd\n"))
    with pytest.raises(InputError, match=r"^data\.files: .*a\.txt\.gz is not UTF-8 text \(line 2"):
        prepare(Text(files=f"{files}/*.gz", **settings), tmp_path / "s")


class Broken(TextCorpus):
    """A corpus that yields what no text file can hold."""

    corpus: Literal["broken"] = "broken"

    def texts(self):
        yield ["fine"]
        yield ["fine", "half \ud83d of a pair"]


@pytest.mark.parametrize("tokenizer", ["byte", "word", "bpe"])
def test_a_document_of_any_corpus_that_is_not_text_is_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"^data: document 3 of the broken corpus holds half of a surrogate pair"):
        prepare(Broken(tokenizer=tokenizer), tmp_path)


@pytest.mark.parametrize(
    "content", [b"fine\ncaf\xe9 au lait\n", b"fine\nzero\0bytes\n", b"fine\nhalf \xed\xa0\xbd of a pair\n"]
)
@pytest.mark.parametrize("tokenizer", ["byte", "word", "bpe"])
def test_a_file_that_is_not_text_is_named(tmp_path, content, tokenizer):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"^data\.files: .*bad\.txt is not .*text \(line 2"):
        prepare(Text(corpus="text", files=f"{tmp_path}/*.txt", tokenizer=tokenizer), tmp_path / "stores")


def test_empty_documents_among_others_are_left_out_whatever_is_done_with_duplicates(tmp_path, monkeypatch):
    pytest.importorskip("rensa", reason="pip install rensa")
    monkeypatch.setattr("amscale.data.readers._BLOCK", 8)  # so that some blocks hold empty documents alone
    (tmp_path / "x.txt").write_text("\n" * 40 + "one two\n" + "\n" * 40 + "three four\n")
    for duplicates in ("keep", "exact", "near"):
        settings = {"corpus": "text", "files": f"{tmp_path}/x.txt", "document": "line", "duplicates": duplicates}
        store = prepare(Text(validation=1, tokenizer_vocabulary=260, **settings), tmp_path / "stores")
        assert decoded(store) == ["one two", "three four"]
        assert store.facts["empty_documents"] == 80


def test_missing_files_empty_files_and_single_documents_are_errors(tmp_path):
    def assert_error(match, **settings):
        with pytest.raises(InputError, match=match):
            prepare(Text(corpus="text", tokenizer="byte", **settings), tmp_path / "stores")

    assert_error("matches no file", files=f"{tmp_path}/*.txt")
    assert_error("is empty", files=[])
    (tmp_path / "only.txt").write_text("\n \n")
    assert_error("has no documents", files=f"{tmp_path}/*.txt")
    (tmp_path / "only.txt").write_text("same\nsame\nsame\n")
    assert_error("data.validation", files=f"{tmp_path}/*.txt")
    assert_error("data.validation: the 3 documents .* copies of one", files=f"{tmp_path}/*.txt", document="line")


def test_missing_tokenizers_are_named(tmp_path, files, monkeypatch):
    def assert_error(tokenizer, match):
        with pytest.raises(InputError, match=match):
            prepare(Text(corpus="text", files=f"{files}/*.txt", tokenizer=tokenizer), tmp_path / "stores")

    assert_error(str(files / "a.txt"), r"^data\.tokenizer: .*a\.txt is not a tokenizer\.json")
    assert_error("/dev/null", r"^data\.tokenizer: /dev/null is neither a file nor a folder; give bpe, byte, word")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_error(
        "nobody/no-such-tokenizer", r"^data\.tokenizer: no tokenizer 'nobody/no-such-tokenizer' from .*hub .*path"
    )
    assert_error(str(tmp_path / "files"), r"^data\.tokenizer: no tokenizer .* from that folder")
