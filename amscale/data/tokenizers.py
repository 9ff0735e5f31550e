"""Text to token ids and back: words, bytes, trained byte-level pairs, or a tokenizer from a file or the hub."""

import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from amscale.data.corpus import Corpus
from amscale.data.file_patterns import expand_home
from amscale.data.parts import document_blocks
from amscale.errors import InputError
from amscale.huggingface import find_source, first_line

if TYPE_CHECKING:
    import tokenizers

END_OF_DOCUMENT = "<end of document>"
"""The end token of tokenizers made here; its blanks keep it apart from every word."""
_FILE = "tokenizer.json"
_TRAINING_TEXT = 1 << 28
"""Characters that a `bpe` tokenizer is trained on: the trainer keeps every distinct word, and more text adds few."""


class Tokenizer(Protocol):
    """Convert texts to token ids in [0, vocabulary_size) and back; one id is the end token, which no text contains."""

    vocabulary_size: int
    end_token: int
    unknown_token: int | None
    """Id that stands for text outside the vocabulary; None where there is none."""
    facts: dict[str, Any]

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the texts' tokens end to end, each text followed by the end token, and the length of each [texts]."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without end tokens."""

    def save(self, folder: Path) -> None:
        """Write what `saved_tokenizer` needs beside `facts`."""


class ByteTokenizer:
    """Take each UTF-8 byte as its id; 256 ends a document."""

    vocabulary_size = 257
    end_token = 256
    unknown_token: int | None = None

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {"kind": "byte"}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        # A zero byte holds the place of each end token: the texts are joined once, and not copied again.
        encoded = [text.encode() for text in texts]
        tokens = np.frombuffer(b"\0".join([*encoded, b""]), dtype=np.uint8).astype(np.uint16)
        lengths = np.array([len(text) + 1 for text in encoded], dtype=np.int64)
        tokens[np.cumsum(lengths) - 1] = self.end_token
        return tokens, lengths

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i != self.end_token).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """Write nothing: `facts` suffice."""


class LibraryTokenizer:
    """A tokenizer of the `tokenizers` library and the id that ends a document."""

    def __init__(self, inner: "tokenizers.Tokenizer", end: str, source: str) -> None:
        import tokenizers

        inner.no_truncation()
        inner.no_padding()
        # The end token's name in a text is text; taken for the token, it would cut the document in two.
        inner.encode_special_tokens = True
        if inner.token_to_id(end) is None:
            inner.add_special_tokens([end])
        if inner.decoder is None and _is_byte_level(inner):
            inner.decoder = tokenizers.decoders.ByteLevel()
        self.inner = inner
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.end_token = vocabulary[end]
        if same := [token for token, number in vocabulary.items() if number == self.end_token and token != end]:
            raise InputError(
                f"data.tokenizer: in {source} the next free id, {self.end_token}, is that of {same[0]!r}, since its "
                "ids have gaps, so no end token can be added; number them from 0 on without gaps"
            )
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.unknown_token = _unknown_token(inner)
        self.facts = {"kind": "library", "source": source, "end": end}

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        tokens, lengths = array("I"), []
        try:
            encodings = self.inner.encode_batch_fast(texts, False, False)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"data.tokenizer: {self.facts['source']} cannot encode the texts: {error}") from None
        for encoding in encodings:
            tokens.extend(ids := encoding.ids)
            tokens.append(self.end_token)
            lengths.append(len(ids) + 1)
        return np.array(tokens, dtype=np.uint32), np.array(lengths, dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([int(i) for i in ids if i != self.end_token], skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self.inner.save(str(folder / _FILE))


def _is_byte_level(inner: "tokenizers.Tokenizer") -> bool:
    return inner.pre_tokenizer is not None and b'"ByteLevel"' in inner.pre_tokenizer.__getstate__()


def _unknown_token(inner: "tokenizers.Tokenizer") -> int | None:
    """Return the id for text outside the vocabulary: a unigram model has it by number, the others by name."""
    import tokenizers

    if isinstance(inner.model, tokenizers.models.Unigram):
        return json.loads(inner.model.__getstate__()).get("unk_id")
    name = getattr(inner.model, "unk_token", None)
    return None if name is None else inner.token_to_id(name)


def saved_tokenizer(folder: Path, facts: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that a store was made with, from the files of the store."""
    if facts["kind"] == "byte":
        return ByteTokenizer()
    import tokenizers

    return LibraryTokenizer(tokenizers.Tokenizer.from_file(str(folder / _FILE)), facts["end"], facts["source"])


def make_tokenizer(corpus: Corpus) -> Tokenizer:
    """Return the tokenizer that `corpus.tokenizer` names.

    `word` reads the whole corpus where its vocabulary is not known, `bpe` the first 270 million characters.

    Raises:
        InputError: the file, folder or hub name holds no tokenizer.
    """
    if corpus.tokenizer == "byte":
        return ByteTokenizer()
    if corpus.tokenizer == "word":
        return word_tokenizer(corpus.word_types() or _collect_words(corpus))
    if corpus.tokenizer == "bpe":
        return _train_bpe(corpus)
    path = expand_home(corpus.tokenizer)
    if path.is_file() and path.suffix.lower() != ".gguf":
        return _from_file(path)
    return _from_transformers(corpus.tokenizer)


_PARTS = (".json", ".txt", ".model")


def tokenizer_identity(name: str) -> str:
    """Return what determines a tokenizer: the hash of its local files, else its name.

    Raises:
        InputError: it is here, and cannot be read.
    """
    path = expand_home(name)
    if name in ("word", "byte", "bpe") or not path.exists():
        return name
    if not path.is_file() and not path.is_dir():
        raise InputError(f"data.tokenizer: {name} is neither a file nor a folder; give bpe, byte, word or a tokenizer")
    digest = hashlib.sha256()
    try:
        parts = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in _PARTS)
        for file in parts:
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            digest.update(file.read_bytes())
    except OSError as error:
        raise InputError(f"data.tokenizer: {name} cannot be read: {error.strerror or error}; give another") from None
    return digest.hexdigest()


def word_tokenizer(words: Iterable[str]) -> LibraryTokenizer:
    """Return a tokenizer of blank-separated words, numbered in the order given; the end token comes last."""
    import tokenizers

    vocabulary = {word: i for i, word in enumerate(words)}
    vocabulary[END_OF_DOCUMENT] = len(vocabulary)
    # `unk_token` must be a word of the vocabulary; the vocabulary covers the corpus, so it is never used.
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=END_OF_DOCUMENT))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return LibraryTokenizer(inner, END_OF_DOCUMENT, "word")


def _collect_words(corpus: Corpus) -> list[str]:
    words: set[str] = set()
    for texts, _ in document_blocks(corpus):
        for text in texts:
            words.update(text.split())
    return sorted(words)


def _training_texts(corpus: Corpus) -> Iterator[list[str]]:
    held = 0
    for texts, _ in document_blocks(corpus):
        yield [piece for text in texts for piece in split_long_runs(text)]
        held += sum(map(len, texts))
        if held >= _TRAINING_TEXT:
            return


_LONGEST = 1024
"""Characters of a run within which pairs are merged while a tokenizer is trained."""
_LONG_RUN = re.compile(
    "|".join(rf"{kind}{{{_LONGEST + 1},}}" for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)", r"\s"))
)
"""A longer run of letters, of digits, of other marks or of white space: the trainer takes each for one word."""


def split_long_runs(text: str) -> list[str]:
    """Return a text in pieces that hold no run longer than 1024 characters; text without one is one piece.

    The trainer looks through a whole word for each merge, so that text without blanks (DNA, one line of base64) would
    take it hours.
    """
    pieces, start = [], 0
    for run in _LONG_RUN.finditer(text):
        for stop in range(run.start() + _LONGEST, run.end(), _LONGEST):
            pieces.append(text[start:stop])
            start = stop
    return [*pieces, text[start:]]


def _train_bpe(corpus: Corpus) -> LibraryTokenizer:
    import tokenizers

    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=corpus.tokenizer_vocabulary,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(_training_texts(corpus), trainer)
    return LibraryTokenizer(inner, END_OF_DOCUMENT, "bpe")


def _from_file(path: Path) -> LibraryTokenizer:
    import tokenizers

    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every fault of the file
        reason = str(error).split("\n")[0]
        raise InputError(
            f"data.tokenizer: {path} is not a tokenizer.json ({reason}); give one, or word, byte, bpe"
        ) from None
    return LibraryTokenizer(inner, END_OF_DOCUMENT, str(path))


def _from_transformers(name: str) -> LibraryTokenizer:
    import transformers

    source = find_source(str(expand_home(name)), "data.tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source.arguments, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError and more, depending on what is missing
        here = "that file" if "gguf_file" in source.arguments else "that folder"
        where = here if source.local else "a local path or the Hugging Face hub"
        reason = source.missing or first_line(error)
        raise InputError(
            f"data.tokenizer: no tokenizer {name!r} from {where} ({reason}); "
            "give word, byte, bpe, or the path of a downloaded tokenizer.json or folder"
        ) from None
    if not tokenizer.is_fast:
        raise InputError(
            f"data.tokenizer: {name!r} has no tokenizer.json form; convert it and give the path of its tokenizer.json"
        )
    return LibraryTokenizer(tokenizer.backend_tokenizer, tokenizer.eos_token or END_OF_DOCUMENT, name)
