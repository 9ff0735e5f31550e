"""The files of a radius experiment: vectors.parquet, distances.parquet and summary.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from amscale.errors import InputError
from amscale.files import write_atomically
from amscale.radius.distances import VectorDistances

_ROWS = 4096


def make_folder(storage: str, name: str) -> Path:
    """Make the experiment's folder if it is missing.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(storage).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"storage={storage!r}: cannot be made ({error.strerror}); give a writable folder") from None
    return folder


def write_vectors(path: Path, index_P: np.ndarray, vectors: dict[str, Tensor], measured: list[VectorDistances]) -> None:
    """Write a row per chunk: its number in the corpus, and at each place its vector and its nearest distance above 0.

    Rows are written in blocks, so that no second copy of the vectors is made.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field("chunk", pa.int64())]
    for place, vectors_PC in vectors.items():
        fields.append(pa.field(place, pa.list_(pa.float32(), vectors_PC.shape[1])))
        fields.append(pa.field(f"{place}_distance", pa.float64()))
    nearest = {one.place: one.nearest_P for one in measured}
    with pq.ParquetWriter(path, pa.schema(fields), compression="zstd") as writer:
        for start in range(0, len(index_P), _ROWS):
            rows = slice(start, start + _ROWS)
            columns = [pa.array(index_P[rows])]
            for place, vectors_PC in vectors.items():
                flat = pa.array(vectors_PC[rows].numpy().ravel())
                columns.append(pa.FixedSizeListArray.from_arrays(flat, vectors_PC.shape[1]))
                columns.append(pa.array(nearest[place][rows]))
            writer.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)))


def write_distances(path: Path, measured: list[VectorDistances]) -> None:
    """Write a row per distinct vector of each sample: place, vectors, percent of them, distance to the nearest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("place", pa.dictionary(pa.int32(), pa.string())),
            ("vectors", pa.dictionary(pa.int32(), pa.string())),
            ("percent", pa.int32()),
            ("distance", pa.float64()),
        ]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for one in measured:
            for percent, distance_U in one.distances.items():
                names = [pa.array([name] * len(distance_U)).dictionary_encode() for name in (one.place, one.vectors)]
                numbers = [pa.array(np.full(len(distance_U), percent, np.int32)), pa.array(distance_U)]
                writer.write_table(pa.Table.from_arrays([*names, *numbers], schema=schema))


def summarise(measured: list[VectorDistances]) -> list[dict[str, Any]]:
    """Return the distances as plain data, without the distances themselves."""
    return [
        {
            "place": one.place,
            "vectors": one.vectors,
            "dimension": one.dimension,
            "r_star": one.r_star,
            "samples": one.rows,
            "intrinsic_dimension": one.implied.dimension if one.implied else None,
            "slope": one.implied.slope if one.implied else None,
            "slope_residual": one.implied.residual if one.implied else None,
            "reason": one.reason,
        }
        for one in measured
    ]


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary, atomically and last: where it exists, the other files are whole."""
    write_atomically(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
