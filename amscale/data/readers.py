"""Read local files: plain text, and the text column of Parquet, Arrow and JSON Lines files."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from amscale.errors import InputError

_BLOCK = 1 << 22
"""Characters of text in a block, unless a single document is longer."""
_SMALL = 1 << 26
"""Bytes of a file up to which its fingerprint is its whole content."""
_PIECES, _PIECE = 64, 1 << 15
"""Number and bytes of the pieces of a larger file that are part of its fingerprint."""


def fingerprint(path: Path) -> str:
    """Return a hash that changes with a file and not with its place.

    It covers the content; of more than 64 MiB, whose reading would delay every plan, the size and 64 pieces of 32 KiB
    spread evenly from beginning to end. The time of the last change does not count: a copy on another disk is the same.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        status = path.stat()
        with path.open("rb") as file:
            if status.st_size <= _SMALL:
                while block := file.read(_PIECE):
                    digest.update(block)
                return digest.hexdigest()
            digest.update(f"{status.st_size}:".encode())
            for piece in range(_PIECES):
                file.seek((status.st_size - _PIECE) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None
    return digest.hexdigest()


def unusable(text: str) -> str | None:
    """Return what a text holds that no text file can: zero bytes, or half of a surrogate pair; None if nothing."""
    if "\0" in text:
        return "a zero byte"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair, {text[error.start]!a}"
    return None


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, compressed or not, with their line ends, without a byte order mark.

    Raises:
        InputError: the file cannot be read, or is not UTF-8 text; names file and line.
    """
    try:
        with io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig") as file:
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
        reason = error.strerror or str(error).split("\n")[0]
        raise InputError(f"data.files: {path} cannot be read ({reason}); leave it out") from None


def _open_bytes(path: Path) -> io.BufferedReader:
    """Open a file to read; one with the ending of a compression is decompressed."""
    if path.suffix.lower() not in _COMPRESSED:
        return path.open("rb")
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="detect"), 1 << 20)


def _bad_line(path: Path) -> int:
    """Return the number of the first line that does not decode; the decoder reads many at once and cannot tell."""
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise ValueError(f"{path} has become UTF-8 text")


def blocks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Yield documents in lists of about four million characters."""
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
"""Rows that are decoded at a time."""
_ARROW = (".arrow", ".feather")
_JSON = (".jsonl", ".ndjson", ".json")
_COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


def column_texts(path: Path, column: str) -> Iterator[str]:
    """Yield the texts of a column, in the order of the rows; the name's ending tells the format of the file.

    Raises:
        InputError: the ending is unknown, the file is damaged, the column is missing, or a row is not text.
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
    """Do `column_texts` for a Parquet file."""
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_column(path, column, file.schema_arrow)
            yield from file.iter_batches(batch_size=_ROWS, columns=[column])

    return _batch_texts(path, column, batches())


def arrow_texts(path: Path, column: str) -> Iterator[str]:
    """Do `column_texts` for an Arrow file, in the stream format that `datasets` writes or in the file format."""
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
    """Do `column_texts` for JSON Lines, one object a line, compressed or not; blank lines are skipped."""
    row = 0
    try:
        with _open_bytes(path) as source:
            for line in source:
                row += 1
                if not line.strip():
                    continue
                # From bytes, json would read halves of surrogate pairs as if they were characters.
                record = json.loads(line.rstrip(b"\r\n").decode("utf-8-sig"))
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
                if column not in record:
                    raise ValueError(f"no {column!r}, only {', '.join(map(repr, record)) or 'nothing'}")
                text = record[column]
                if not isinstance(text, str):
                    raise ValueError(f"{'null' if text is None else type(text).__name__}, not text")
                if reason := unusable(text):
                    raise ValueError(reason)
                yield text
    except RecursionError:
        raise InputError(f"data.files: {path}, row {row}: nested too deeply; leave the row out") from None
    except (ValueError, OSError) as error:  # errors of pyarrow and bad UTF-8 are among them
        reason = str(error).split("\n")[0]
        raise InputError(
            f"data.files: {path}, row {max(row, 1)}: {reason}; give one JSON object a line with the text in "
            f"{column!r} (data.text_column)"
        ) from None


def _batch_texts(path: Path, column: str, batches: Iterator[Any]) -> Iterator[str]:
    row = 0
    try:
        for batch in batches:
            for text in _decoded(path, batch.column(column), row):
                row += 1
                if text is None or (reason := unusable(text)):
                    reason = "null, not text" if text is None else reason
                    raise InputError(f"data.files: {path}, row {row}: {reason}; mend the file or leave it out")
                yield text
    except InputError:
        raise
    except (ValueError, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"data.files: {path}, after row {row}: {reason}; mend the file or leave it out") from None


def _decoded(path: Path, column: Any, row: int) -> list[str | None]:
    """Return the texts of some rows; Parquet and Arrow files can hold any bytes as text."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        for value in column:
            row += 1
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"data.files: {path}, row {row}: not UTF-8 text ({error.reason}); mend the file or leave it out"
                ) from None
        raise


def _check_column(path: Path, column: str, schema: Any) -> None:
    import pyarrow

    if column not in schema.names:
        raise InputError(
            f"data.text_column: {path} has no column {column!r}; it has {', '.join(map(repr, schema.names))}"
        )
    kind = schema.field(column).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise InputError(f"data.text_column: column {column!r} of {path} holds {kind}, not text; name one that does")
