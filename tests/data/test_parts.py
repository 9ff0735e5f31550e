"""A corpus of one document is cut into parts; corpora of several documents keep their splits."""

import hashlib
import json

import pytest

from amscale.data import prepare
from amscale.data.corpora.local_files import JsonLines, Text
from amscale.data.parts import cut_into_parts
from amscale.data.tokenizers import split_long_runs
from amscale.errors import InputError

PROSE = "\n\n".join(" ".join(f"word{i * j % 91}" for j in range(3 + i % 29)) + "." for i in range(200))


@pytest.mark.parametrize(
    ("text", "separator"),
    [(PROSE, "\n\n"), (PROSE.replace("\n\n", "\n"), "\n"), (" ".join(PROSE.split()), " "), ("ACGT" * 5000, "")],
    ids=["paragraphs", "lines", "words", "letters"],
)
def test_parts_are_the_document_and_end_where_it_pauses(text, separator):
    parts = list(cut_into_parts(text))
    assert "".join(parts) == text
    assert len(parts) >= 100
    assert max(map(len, parts)) <= max(100, len(text) // 100)
    assert all(part.endswith(separator) for part in parts[:-1])


@pytest.mark.parametrize("tokenizer", ["bpe", "byte", "word"])
@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_one_text_and_nothing_else_is_split(tmp_path, tokenizer, kind):
    (tmp_path / "input.txt").write_text(PROSE)
    (tmp_path / "input.jsonl").write_text("\n" + json.dumps({"text": PROSE}) + "\n")
    corpus = {"text": Text, "jsonl": JsonLines}[kind]
    settings = {"corpus": kind, "files": str(tmp_path / f"input.{kind[:5].replace('text', 'txt')}")}
    store = prepare(corpus(tokenizer=tokenizer, validation=0.1, **settings), tmp_path / "s")
    again = prepare(corpus(tokenizer=tokenizer, validation=0.1, **settings), tmp_path / "again")
    assert store.tokens.tobytes() == again.tokens.tobytes()
    parts = list(cut_into_parts(PROSE))
    sides = [[s.document(i) for i in range(s.documents)] for s in (store.training(), store.validation())]
    training, held_out = ([" ".join(store.decode(document).split()) for document in side] for side in sides)
    assert sorted(training + held_out) == sorted(" ".join(part.split()) for part in parts)
    assert not set(training) & set(held_out)
    assert len(held_out) == round(0.1 * len(parts))
    assert store.facts["parts_of_one_document"]
    assert "held out (parts of one document)" in store.describe_text()


def test_the_last_part_can_be_held_out(tmp_path):
    (tmp_path / "input.txt").write_text(PROSE)
    settings = {"corpus": "text", "files": str(tmp_path / "input.txt"), "tokenizer": "byte", "split": "last"}
    store = prepare(Text(**settings), tmp_path / "s")
    assert PROSE.endswith(store.decode(store.validation().document(0)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the quick brown fox jumps\n", "one document of 27 tokens, too short"),
        ("three short words", "one document of 18 tokens, too short"),
        ("", r"no documents \(1 empty left out\)"),
        ("\n \n", r"no documents \(1 empty left out\)"),
        ("same line\n" * 500, "copies of one"),
    ],
)
def test_too_little_text_is_one_helpful_line(tmp_path, text, reason):
    (tmp_path / "input.txt").write_text(text)
    with pytest.raises(InputError, match=rf"^data.*{reason}.* data\.files"):
        prepare(Text(corpus="text", files=str(tmp_path / "input.txt"), tokenizer="byte"), tmp_path / "s")


@pytest.mark.parametrize(
    ("document", "tokenizer", "digest"),
    [
        ("file", "byte", "c502f8c94d93b2f1 f7566afc44d81406"),
        ("paragraph", "bpe", "9e8e67a5fb30fca4 a09abab197fec35d"),
        ("line", "word", "a9ff3d97b44338ba 2426832bca08145a"),
    ],
)
def test_several_documents_keep_the_split_of_earlier_versions(tmp_path, document, tokenizer, digest):
    (tmp_path / "a.txt").write_text(PROSE)
    (tmp_path / "b.txt").write_text(PROSE.upper() + "\n" + "-" * 900 + "\n")
    settings = {"corpus": "text", "files": f"{tmp_path}/?.txt", "document": document, "tokenizer": tokenizer}
    folder = prepare(Text(**settings), tmp_path / "s").folder
    names = [name for name in ("tokens.bin", "offsets.npy", "tokenizer.json") if (folder / name).exists()]
    found = hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()[:16]
    assert (folder.name, found) == tuple(digest.split())


def test_only_runs_that_would_be_one_long_word_are_cut_for_the_trainer():
    assert split_long_runs(PROSE) == [PROSE]
    assert split_long_runs("-" * 1024 + "a" * 1024) == ["-" * 1024 + "a" * 1024]
    for run in ("ACGT" * 5000, "0" * 3000, "=_" * 3000, " \n" * 3000, "\u661f" * 5000):
        text = f"before {run} after"
        pieces = split_long_runs(text)
        assert "".join(pieces) == text
        assert all(len(piece) <= 1024 + len("before  after") for piece in pieces)
