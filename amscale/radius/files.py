"""The folder of a radius experiment: vectors.parquet, distances.parquet, summary.json, radius.png and radius.svg."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from amscale.errors import InputError
from amscale.files import write_atomically
from amscale.radius.distances import Spread

_ROWS = 4096


def make_folder(storage: str, name: str) -> Path:
    """The folder, made if it is missing.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(storage).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"storage={storage!r}: cannot be made ({error.strerror}); give a writable folder") from None
    return folder


def write_vectors(path: Path, index_P: np.ndarray, vectors: dict[str, Tensor], spreads: list[Spread]) -> None:
    """One row per chunk: its number in the corpus, and at each place its vector and nearest distance (0 left out).

    Written in blocks of rows, so that no second copy of the vectors is made.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field("chunk", pa.int64())]
    for place, vectors_PC in vectors.items():
        fields.append(pa.field(place, pa.list_(pa.float32(), vectors_PC.shape[1])))
        fields.append(pa.field(f"{place}_distance", pa.float64()))
    nearest = {spread.place: spread.nearest_P for spread in spreads}
    with pq.ParquetWriter(path, pa.schema(fields), compression="zstd") as writer:
        for start in range(0, len(index_P), _ROWS):
            rows = slice(start, start + _ROWS)
            columns = [pa.array(index_P[rows])]
            for place, vectors_PC in vectors.items():
                flat = pa.array(vectors_PC[rows].numpy().ravel())
                columns.append(pa.FixedSizeListArray.from_arrays(flat, vectors_PC.shape[1]))
                columns.append(pa.array(nearest[place][rows]))
            writer.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)))


def write_distances(path: Path, spreads: list[Spread]) -> None:
    """One row per distinct vector of each sample: place, vectors, percent of them, distance to the nearest."""
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
        for spread in spreads:
            for percent, distance_U in spread.distances.items():
                words = [
                    pa.array([word] * len(distance_U)).dictionary_encode() for word in (spread.place, spread.vectors)
                ]
                numbers = [pa.array(np.full(len(distance_U), percent, np.int32)), pa.array(distance_U)]
                writer.write_table(pa.Table.from_arrays([*words, *numbers], schema=schema))


def summarise(spreads: list[Spread]) -> list[dict[str, Any]]:
    """The spreads as plain data."""
    return [
        {
            "place": spread.place,
            "vectors": spread.vectors,
            "dimension": spread.dimension,
            "r_star": spread.r_star,
            "samples": spread.rows,
            "intrinsic_dimension": spread.implied.dimension if spread.implied else None,
            "slope": spread.implied.slope if spread.implied else None,
            "slope_residual": spread.implied.residual if spread.implied else None,
            "reason": spread.reason,
        }
        for spread in spreads
    ]


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Written last and atomically: where it stands, the other files are whole."""
    write_atomically(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
