"""Local text files: which they are, what they hold, and blocks of documents to tokenise at once.

The text column of Parquet, Arrow and JSON Lines files, a batch of rows at a time.
"""

import glob
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from amscale.errors import InputError

_BLOCK = 1 << 22
"""Characters of text in a block, unless a single document is longer."""
_SMALL = 1 << 26
"""Bytes of a file up to which its fingerprint is its whole content."""
_PIECES, _PIECE = 64, 1 << 15
"""Bytes at either end of a larger file that are part of its fingerprint."""


def find_files(patterns: str | Sequence[str], key: str = "data.files") -> list[Path]:
    """The files that paths or patterns match, sorted and each once.

    Raises:
        InputError: a pattern matches no file, or there is no pattern.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = {Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)}
        matches = {path for path in matches if path.is_file()}
        if not matches:
            raise InputError(f"{key}: {pattern!r} matches no file from {Path.cwd()}; give paths or patterns that do")
        found |= matches
    if not found:
        raise InputError(f"{key} is empty; give at least one path or pattern")
    return sorted(found)


def fingerprint(path: Path) -> str:
    """What tells a file from a changed one, wherever it lies.

    Its content; of more than 64 MiB, whose reading would delay every plan, the size and 64 pieces of 32 KiB from the
    beginning to the end. Not the time of the last change: a copy on another disk is the same corpus.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        status = path.stat()
        with path.open("rb") as file:
            if status.st_size <= _SMALL:
                while block := file.read(1 << 20):
                    digest.update(block)
                return digest.hexdigest()
            digest.update(f"{status.st_size}:".encode())
            for piece in range(_PIECES):
                file.seek((status.st_size - _PIECE) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None
    return digest.hexdigest()


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises:
        InputError: the file cannot be read, or is no UTF-8 text; the file and the line.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise InputError(
                        f"data.files: {path} is not text (line {number} holds zero bytes); give UTF-8 text files"
                    )
                yield line
    except UnicodeDecodeError as error:
        raise InputError(
            f"data.files: {path} is not UTF-8 text (line {_bad_line(path)}: {error.reason}); give UTF-8 text files"
        ) from None
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None


def _bad_line(path: Path) -> int:
    """The first line that does not decode: the decoder reads many lines at once and cannot tell."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise ValueError(f"{path} has become UTF-8 text")


def blocks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists of about four million characters."""
    block: list[str] = []
    held = 0
    for document in documents:
        block.append(document)
        held += len(document) + 1
        if held >= _BLOCK:
            yield block
            block, held = [], 0
    if block:
        yield block


_ROWS = 256
"""Rows that are decoded at once."""
_ARROW = (".arrow", ".feather")
_JSON = (".jsonl", ".ndjson", ".json")
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


def column_texts(path: Path, column: str) -> Iterator[str]:
    """The texts of a column, in the order of the rows; the name's ending says which format a file has.

    Raises:
        InputError: an unknown ending, a damaged file, no such column, or a row that holds no text; file and row named.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED and len(suffixes) > 1:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".parquet":
        return parquet_texts(path, column)
    if suffix in _ARROW:
        return arrow_texts(path, column)
    if suffix in _JSON:
        return json_lines_texts(path, column)
    raise InputError(f"data.files: {path} has an unknown ending; give .parquet, .arrow or .jsonl files")


def parquet_texts(path: Path, column: str) -> Iterator[str]:
    """`column_texts` of a Parquet file."""
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_column(path, column, file.schema_arrow)
            yield from file.iter_batches(batch_size=_ROWS, columns=[column])

    return _batch_texts(path, column, batches())


def arrow_texts(path: Path, column: str) -> Iterator[str]:
    """`column_texts` of an Arrow file, in the stream format that `datasets` writes or in the file format."""
    import pyarrow

    def batches() -> Iterator[Any]:
        with path.open("rb") as file:
            is_file_format = file.read(6) == b"ARROW1"
        with pyarrow.OSFile(str(path)) as source:
            if is_file_format:
                reader = pyarrow.ipc.open_file(source)
                _check_column(path, column, reader.schema)
                yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                reader = pyarrow.ipc.open_stream(source)
                _check_column(path, column, reader.schema)
                yield from reader

    return _batch_texts(path, column, batches())


def json_lines_texts(path: Path, column: str) -> Iterator[str]:
    """`column_texts` of JSON Lines, one object a line, compressed or not; blank lines are passed over."""
    import pyarrow

    row = 0
    try:
        with pyarrow.input_stream(str(path), compression="detect") as source:
            for line in io.BufferedReader(source, 1 << 20):
                row += 1
                if not line.strip():
                    continue
                record = json.loads(line.rstrip(b"\r\n"))
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
                if column not in record:
                    raise ValueError(f"no {column!r}, only {', '.join(map(repr, record)) or 'nothing'}")
                text = record[column]
                if not isinstance(text, str):
                    raise ValueError(f"no text but {'null' if text is None else type(text).__name__}")
                if b"\\ud" in line.lower():
                    text.encode()  # half of a surrogate pair is no text
                yield text
    except (ValueError, OSError) as error:  # pyarrow's faults are among them, and so is bad UTF-8
        reason = str(error).split("\n")[0]
        raise InputError(
            f"data.files: {path}, row {max(row, 1)}: {reason}; give one JSON object a line with the text in "
            f"{column!r} (data.text_column)"
        ) from None


def _batch_texts(path: Path, column: str, batches: Iterator[Any]) -> Iterator[str]:
    row = 0
    try:
        for batch in batches:
            for text in batch.column(column).to_pylist():
                row += 1
                if text is None:
                    raise InputError(f"data.files: {path}, row {row}: no text but null; mend the file or leave it out")
                yield text
    except (ValueError, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"data.files: {path}, after row {row}: {reason}; mend the file or leave it out") from None


def _check_column(path: Path, column: str, schema: Any) -> None:
    import pyarrow

    if column not in schema.names:
        raise InputError(
            f"data.text_column: {path} has no column {column!r}; it has {', '.join(map(repr, schema.names))}"
        )
    kind = schema.field(column).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise InputError(f"data.text_column: column {column!r} of {path} holds {kind}, not text; name one that does")
