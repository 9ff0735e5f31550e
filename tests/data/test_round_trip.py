"""Tokenizers that cannot hold a text are refused, and what one loses is counted and said."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from amscale.data import describe_sample, open_store, prepare, store_name
from amscale.data.corpora.local_files import Text
from amscale.errors import InputError

LINES = [f"line {i}: the caf\u00e9 is Open at {i % 24}" for i in range(200)]
CHARACTERS = sorted(set("".join(LINES)))


@pytest.fixture
def lines(tmp_path) -> str:
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return str(tmp_path / "lines.txt")


def characters(*, without: str = "", unknown: str | None = None, folder: Path, **parts) -> str:
    """Write a tokenizer of single characters, which drops or replaces those that it lacks; return its path."""
    vocabulary = {c: i for i, c in enumerate([*([unknown] if unknown else []), *(set(CHARACTERS) - set(without))])}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    made.decoder = decoders.Fuse()
    for name, part in parts.items():
        setattr(made, name, part)
    made.save(str(folder / "made.json"))
    return str(folder / "made.json")


def settings(lines, tokenizer, **more) -> Text:
    return Text(corpus="text", files=lines, document="line", tokenizer=tokenizer, **more)


@pytest.mark.parametrize("unknown", [None, "?"])
def test_a_tokenizer_that_lacks_characters_is_refused_and_its_loss_counted(tmp_path, lines, unknown):
    lost = "".join(LINES).count("e")
    tokenizer = characters(without="e", unknown=unknown, folder=tmp_path)
    share = 100 * lost / len("".join(LINES))
    match = rf"cannot hold the text: {share:.2g} % of .* lost \(most often 'e'\).*data\.lost_text allows 1 %"
    with pytest.raises(InputError, match=match):
        prepare(settings(lines, tokenizer), tmp_path / "s")
    with pytest.raises(InputError, match=match):  # a plan that needs no tokens finds it as well
        describe_sample(settings(lines, tokenizer, size=100))
    with pytest.raises(InputError, match="cannot hold"):  # and where the corpus is a single document, cut into parts
        describe_sample(Text(corpus="text", files=lines, tokenizer=tokenizer, size=100))
    store = prepare(settings(lines, tokenizer, lost_text=0.2), tmp_path / "s")
    text = open_store(store.folder).facts["text"]
    assert text["lost"] == lost / len("".join(LINES))
    assert (text["sampled_characters"], text["most_lost"]) == (len("".join(LINES)), ["e"])
    assert text["unknown_tokens"] == (lost if unknown else 0)
    assert f"{share:.2g} % of" in store.describe_text()
    with pytest.raises(InputError, match="cannot hold"):  # the bound holds for a store that is there, too
        prepare(settings(lines, tokenizer), tmp_path / "s")
    assert store_name(settings(lines, tokenizer)) == store.folder.name


def test_a_loss_in_the_middle_of_a_corpus_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("amscale.data.readers._BLOCK", 1 << 10)
    (tmp_path / "x.txt").write_text("\n".join([*LINES, *["zzzz zzzz"] * 60, *LINES]), encoding="utf-8")
    with pytest.raises(InputError, match="most often 'z'"):
        prepare(settings(str(tmp_path / "x.txt"), characters(folder=tmp_path)), tmp_path / "s")


@pytest.mark.parametrize(
    ("parts", "changed"),
    [
        ({"normalizer": normalizers.BertNormalizer()}, "\u00e9O"),
        ({"pre_tokenizer": pre_tokenizers.WhitespaceSplit(), "decoder": None}, ""),
        ({"normalizer": normalizers.NFD()}, ""),
    ],
    ids=["lower case without accents", "blanks between tokens", "decomposed"],
)
def test_normalisation_is_no_loss(tmp_path, lines, parts, changed):
    vocabulary = {c: i for i, c in enumerate(dict.fromkeys([*CHARACTERS, "o", "\u0301"]))}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    for name, part in {"decoder": decoders.Fuse(), **parts}.items():
        setattr(made, name, part)
    made.save(str(tmp_path / "made.json"))
    text = prepare(settings(lines, str(tmp_path / "made.json")), tmp_path / "s").facts["text"]
    assert text["lost"] == 0
    assert text["changed"] == sum(map("".join(LINES).count, changed)) / len("".join(LINES))


def test_byte_level_tokens_without_a_decoder_are_read_back(tmp_path, lines):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(LINES, trainer)
    made.save(str(tmp_path / "made.json"))
    store = prepare(settings(lines, str(tmp_path / "made.json")), tmp_path / "s")
    assert store.facts["text"]["lost"] == 0
    assert store.decode(store.training().document(0)) in LINES


def test_ids_with_gaps_that_leave_none_for_the_end_token_are_refused(tmp_path, lines):
    vocabulary = {c: i for i, c in enumerate(CHARACTERS)} | {"x": len(CHARACTERS) + 1}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.save(str(tmp_path / "made.json"))
    with pytest.raises(InputError, match=r"^data\.tokenizer: .*made\.json .* is that of 'x'"):
        prepare(settings(lines, str(tmp_path / "made.json")), tmp_path / "s")


@pytest.mark.parametrize("tokenizer", ["byte", "bpe", "word"])
def test_tokenizers_made_here_lose_nothing(tmp_path, lines, tokenizer):
    text = prepare(settings(lines, tokenizer), tmp_path / "s").facts["text"]
    assert (text["lost"], text["changed"], text["unknown_tokens"]) == (0, 0, 0)
    assert text["sampled_characters"] == len("".join(LINES))
