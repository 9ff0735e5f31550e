"""Run the radius experiment from its settings to its folder of vectors, distances, summary and figure."""

import json
import platform
import resource
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from amscale import __version__
from amscale.data import Corpus, TokenStore, prepare
from amscale.errors import InputError
from amscale.files import write_atomically
from amscale.planning.plan import tokens_folder
from amscale.radius.configuration import RadiusSettings
from amscale.radius.distances import VectorDistances, gaussian, measure_distances, normalised, shuffled
from amscale.radius.figure import draw
from amscale.radius.sample import Chunks, choose_chunks, places, vectors
from amscale.radius.subject import Subject, TrainedTrial, find_trial, pretrained_subject, trial_subject
from amscale.reporting.terminal import make_console
from amscale.trials.storage_errors import output_folder

_ROWS = 4096


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
            "length_mean": one.length_mean,
            "spread": one.spread,
            "samples": one.rows,
            "intrinsic_dimension": one.implied.dimension if one.implied else None,
            "slope": one.implied.slope if one.implied else None,
            "slope_residual": one.implied.residual if one.implied else None,
            "reason": one.reason,
        }
        for one in measured
    ]


def write_samples(path: Path, measured: list[VectorDistances]) -> None:
    """Write the statistics of every sample as CSV of six digits: a row for each place, set of vectors and size."""
    rows = [
        {
            "place": one.place,
            "vectors": one.vectors,
            "dimension": one.dimension,
            **row,
            "length_mean": one.length_mean,
            "spread": one.spread,
            "intrinsic_dimension": one.implied.dimension if one.implied else None,
        }
        for one in measured
        for row in one.rows
    ]
    lines = [",".join(rows[0])]
    lines += [",".join(_written(value) for value in row.values()) for row in rows]
    write_atomically(path, "\n".join(lines) + "\n")


def _written(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary, atomically and last: where it exists, the other files are whole."""
    write_atomically(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


FORMAT = 1


@dataclass(frozen=True)
class _Inputs:
    """The model and the corpus of one experiment."""

    subject: Subject
    data: Corpus
    store: TokenStore


def run_radius(settings: RadiusSettings, console: Console | None = None) -> Path:
    """Measure, write the experiment's folder, print what was found, and return the folder.

    Raises:
        InputError: a model, a corpus or a sample that cannot be measured; nothing is written before that is known.
    """
    console = console or make_console()
    began = time.time()
    device = _device(settings)
    found = _find(settings, console)
    chunks = choose_chunks(settings.sample, found.data, found.store, found.subject.context)
    labels = _labels(found.subject, settings)
    kind = f"chunks of {chunks.tokens} tokens" if found.data.packing == "stream" else "documents"
    about = f"{found.subject.name}, {found.store.corpus}, {len(chunks.index_P):,} {kind}"
    console.print(about, highlight=False)
    folder = Path(settings.storage).expanduser() / settings.name
    setting, advice = f"storage={settings.storage!r}", "give a writable folder as storage=FOLDER"
    with output_folder(folder, setting, (), (), advice):
        measured = _measure(found.subject, chunks, settings, device, console, folder)
        measured.sort(key=lambda one: list(labels).index(one.place))
        write_distances(folder / "distances.parquet", measured)
        write_samples(folder / "samples.csv", measured)
        figure = draw(_headline(measured), about, measured, labels)
        for suffix in ("png", "svg"):
            figure.savefig(folder / f"radius.{suffix}", dpi=150)
        write_summary(folder / "summary.json", _summary(settings, found, chunks, measured, device, began))
    _print_table(console, measured, labels)
    console.print(f"\nfiles: {folder.absolute()}", highlight=False, soft_wrap=True)
    return folder


def _device(settings: RadiusSettings) -> torch.device:
    wanted = settings.sample.device
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError("sample.device='cuda': PyTorch finds no CUDA device here; give cpu or auto")
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def _find(settings: RadiusSettings, console: Console) -> _Inputs:
    tokens = tokens_folder(Path(settings.storage).expanduser())
    if settings.model.source == "pretrained":
        assert settings.data is not None
        return _Inputs(pretrained_subject(settings.model), settings.data, prepare(settings.data, tokens))
    trial = find_trial(settings.model.path)
    if trial.folder.path != Path(settings.model.path).expanduser():
        console.print(f"largest finished trial of {settings.model.path}: {trial.folder.path.name}", highlight=False)
    if settings.data is None:
        return _Inputs(trial_subject(trial), trial.cell.data, trial.store)
    store = prepare(settings.data, tokens)
    _check_tokenizer(trial, store)
    return _Inputs(trial_subject(trial), settings.data, store)


def _check_tokenizer(trial: TrainedTrial, store: TokenStore) -> None:
    """Check that the corpus is tokenised as in training.

    Raises:
        InputError: it is not.
    """
    files = [folder / "tokenizer.json" for folder in (trial.store.folder, store.folder)]
    contents = [file.read_bytes() if file.is_file() else b"" for file in files]
    if trial.store.facts["tokenizer"]["kind"] != store.facts["tokenizer"]["kind"] or contents[0] != contents[1]:
        raise InputError(
            f"data.tokenizer: not the tokenizer that the trial was trained with; give {files[0]}, "
            "or leave data out to take the trial's corpus"
        )


def _measure(
    subject: Subject, chunks: Chunks, settings: RadiusSettings, device: torch.device, console: Console, folder: Path
) -> list[VectorDistances]:
    """Measure the trained vectors and their controls, holding at most one set of vectors and one control at a time."""
    layers, seed = settings.sample.layers, settings.sample.seed
    console.print("vectors of the trained model …", highlight=False)
    trained = vectors(subject, chunks, layers, device)
    subject.model.to("meta")  # frees the trained weights before the random ones are made
    measured = []
    for place, vectors_PC in trained.items():
        console.print(f"distances at {place} …", highlight=False)
        one = measure_distances(place, "trained", vectors_PC, device)
        if not one.nearest_P.size:
            raise InputError(f"{place}: {one.reason}; take more distinct chunks, or another corpus")
        measured.append(one)
    write_vectors(folder / "vectors.parquet", chunks.index_P, trained, measured)
    for place in list(trained):
        vectors_PC = trained.pop(place)
        console.print(f"controls at {place} …", highlight=False)
        measured.append(measure_distances(place, "shuffled", shuffled(vectors_PC, seed), device))
        measured.append(measure_distances(place, "gaussian", gaussian(vectors_PC, seed), device))
        measured.append(measure_distances(place, "normalised", normalised(vectors_PC), device))
        del vectors_PC
    console.print("the same shape with random weights …", highlight=False)
    torch.manual_seed(seed)
    random = vectors(subject.reinitialised(), chunks, layers, device)
    measured += [measure_distances(place, "random weights", vectors_PC, device) for place, vectors_PC in random.items()]
    return measured


def _labels(subject: Subject, settings: RadiusSettings) -> dict[str, str]:
    """Return the name of each place, for a reader."""
    named = places(subject, settings.sample.layers)
    labels = {place: f"Layer {int(place.removeprefix('layer_'))}" for place in named if place != "final_norm"}
    last = f"layer_{len(subject.layers) - 1:02d}"
    if last in labels:
        labels[last] = "Last layer, before the final norm" if subject.final_norm else "Last layer"
    if "final_norm" in named:
        labels["final_norm"] = "Last layer, after the final norm"
    return labels


def _headline(measured: list[VectorDistances]) -> str:
    last = [one for one in measured if one.vectors == "trained"][-1]
    median = last.rows[-1]["radius_median"]
    return f"Median sampled radius {median:.3g} beside r* = {last.r_star:.3g}"


def _summary(
    settings: RadiusSettings,
    found: _Inputs,
    chunks: Chunks,
    measured: list[VectorDistances],
    device: torch.device,
    began: float,
) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "format": FORMAT,
        "model": found.subject.name,
        "corpus": found.store.corpus,
        "packing": found.data.packing,
        "chunks": len(chunks.index_P),
        "tokens": chunks.tokens,
        "pattern": "the activation at the last input token of a chunk, which predicts its last token",
        "spreads": summarise(measured),
        "seconds": time.time() - began,
        "device": f"{device.type}: {name}",
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {
            "amscale": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers")},
        },
        "settings": settings.model_dump(mode="json"),
    }


def _print_table(console: Console, measured: list[VectorDistances], labels: dict[str, str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("place", "vectors"):
        table.add_column(column)
    for column in ("distance, mean", "median", "r̂, median", "r*", "separated by r*", "duplicates", "dimension"):
        table.add_column(column, justify="right")
    for one in measured:
        if not one.rows:
            table.add_row(labels[one.place], one.vectors, one.reason or "")
            continue
        row = one.rows[-1]
        numbers = (row["distance_mean"], row["distance_median"], row["radius_median"], one.r_star)
        table.add_row(
            labels[one.place],
            one.vectors,
            *(f"{number:.3g}" for number in numbers),
            f"{row['separated_r_star']:.1%}",
            f"{row['duplicates']}",
            f"{one.implied.dimension:.3g}" if one.implied else "—",
        )
    console.print(table)
