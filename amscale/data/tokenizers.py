"""Text to token ids and back: words, bytes, trained byte-level pairs, or a tokenizer from a file or the hub."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from amscale.data.corpus import Corpus
from amscale.errors import InputError
from amscale.huggingface import first_line, unavailable

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
        inner.no_truncation()
        inner.no_padding()
        # The end token's name in a text is text; taken for the token, it would cut the document in two.
        inner.encode_special_tokens = True
        if inner.token_to_id(end) is None:
            inner.add_special_tokens([end])
        self.inner = inner
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.end_token = vocabulary[end]
        self.vocabulary_size = max(vocabulary.values()) + 1
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
    path = Path(corpus.tokenizer).expanduser()
    return _from_file(path) if path.is_file() else _from_transformers(corpus.tokenizer)


def tokenizer_identity(name: str) -> str:
    """Return what determines a tokenizer: the hash of its local files, else its name."""
    path = Path(name).expanduser()
    if name in ("word", "byte", "bpe") or not path.exists():
        return name
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in (".json", ".txt", ".model"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        digest.update(file.read_bytes())
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
    for texts in corpus.texts():
        for text in texts:
            words.update(text.split())
    return sorted(words)


def _training_texts(corpus: Corpus) -> Iterator[list[str]]:
    held = 0
    for texts in corpus.texts():
        yield texts
        held += sum(map(len, texts))
        if held >= _TRAINING_TEXT:
            return


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

    local = Path(name).expanduser().is_dir()
    missing = None if local else unavailable(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            name, local_files_only=missing is not None, trust_remote_code=False
        )
    except Exception as error:  # OSError, ValueError, KeyError and more, depending on what is missing
        where = "that folder" if local else "a local path or the Hugging Face hub"
        reason = missing or first_line(error)
        raise InputError(
            f"data.tokenizer: no tokenizer {name!r} from {where} ({reason}); "
            "give word, byte, bpe, or the path of a downloaded tokenizer.json or folder"
        ) from None
    if not tokenizer.is_fast:
        raise InputError(
            f"data.tokenizer: {name!r} has no tokenizer.json form; convert it and give the path of its tokenizer.json"
        )
    return LibraryTokenizer(tokenizer.backend_tokenizer, tokenizer.eos_token or END_OF_DOCUMENT, name)
