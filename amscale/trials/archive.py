"""A sweep in one small Parquet file: a row a trial, with the texts of its files; read back as a folder for readers."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = "1"
FILES = {"spec": "spec.yaml", "result": "result.json", "metrics": "metrics.jsonl"}
"""Columns that hold the text of a file of the trial, with the name of the file."""
MARK = ".archive"
"""Lies in the folder that an archive is unpacked into, which is no place for trials to go on."""
_KEY = b"amscale"


def write_archive(file: Path, rows: "DataFrame", documents: Mapping[str, str]) -> None:
    """Write an archive.

    Args:
        file: where to.
        rows: one row a trial: the columns of `FILES` (None where there is no such file) and `trial`, its label; further
            columns are for whoever reads the table as one.
        documents: texts of the sweep's own files, by their paths in its folder.
    """
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pandas(rows, preserve_index=False)
    about = json.dumps({"format": FORMAT, "files": dict(documents)}).encode()
    parquet.write_table(table.replace_schema_metadata({_KEY: about}), file, compression="zstd", compression_level=19)


def is_archive(file: str | Path) -> bool:
    """Return whether a file is the archive of a sweep, and not a table of points."""
    path = Path(file)
    return path.suffix == ".parquet" and path.is_file() and _about(path) is not None


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """Give an archive as the folder of a sweep, for a reader, while the block runs.

    Raises:
        InputError: it is of another version, or damaged.
    """
    from pyarrow import parquet

    about = _about(file) or {}
    if about.get("format") != FORMAT:
        raise InputError(f"{file}: an archive of another version; this one reads format {FORMAT}")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / file.stem
        texts = {folder / name: text for name, text in about["files"].items()}
        table = parquet.read_table(file, columns=["trial", *FILES])
        for row in table.to_pylist():
            found = {FILES[kind]: row[kind] for kind in FILES if row[kind] is not None}
            (folder / "trials" / row["trial"]).mkdir(parents=True)
            texts |= {folder / "trials" / row["trial"] / name: text for name, text in found.items()}
        for path, text in texts.items():
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{file}: names a file outside of a sweep's folder: {path.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            os.utime(path, (0, 0))  # nothing runs here
        (folder / MARK).touch()
        yield folder


def _about(file: Path) -> dict[str, Any] | None:
    """Return what an archive says of itself; None for any other file."""
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = parquet.read_schema(file).metadata or {}
        found = json.loads(metadata[_KEY]) if _KEY in metadata else None
    except (pyarrow.ArrowInvalid, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
