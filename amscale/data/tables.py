"""The text column of Parquet, Arrow and JSON Lines files, a batch of rows at a time."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amscale.errors import InputError

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
