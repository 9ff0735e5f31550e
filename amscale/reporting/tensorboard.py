"""A sweep in TensorBoard: its trials under names that sort by N, D and seed, and a run of the sweep itself.

The folder `tensorboard/` of a sweep has a link to the curves of each trial, such as `N1=6.43k,D2=20k,seed0` for the
least N and the second D, and the run `All`: the least validation losses against D, a line for each N; D*(N); the
verdict as text, at the number of trials that have finished. They are written anew as trials finish.
"""

import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.cluster.network import Port
from amscale.cluster.supervisor import die_with_parent
from amscale.errors import InputError
from amscale.scaling.verdict import ANSWER, ASKED, NEXT, NOT_SAID
from amscale.trials.identity import label_cell, label_order
from amscale.trials.sweep_store import SweepStore

if TYPE_CHECKING:
    from amscale.scaling.base_fit import BaseFit

FOLDER = "tensorboard"
_SWEEP = "All"
"""Sorts before N1=…"""
_LOSS, _DSTAR, _VERDICT = "Sweep/least validation loss against D", "Sweep/D star against N", "Sweep/verdict"
_TICKED = 40
"""Runs of which TensorBoard shows all at first."""
_EVERY_SECONDS = 20.0
_SHARE = 0.05
"""Share of the time that keeping the run of the sweep may take, at most."""


class SweepBoard:
    """The folder `tensorboard/` of a sweep.

    Args:
        sweep: its store.
        labels: trials of the grid, with what tells those of one N, D and seed apart, `lr=0.01`, or an empty text.
        fit: count, window, threshold and hypotheses of its estimates.
        sizes: every N of the grid by that count, so that the line of an N keeps its name while others finish.
    """

    def __init__(
        self, sweep: SweepStore, labels: Mapping[str, str], fit: Mapping[str, Any], sizes: Iterable[int] = ()
    ) -> None:
        self.folder = sweep.path / FOLDER
        self._sweep, self._labels, self._fit, self._sizes = sweep, labels, fit, set(sizes)
        self._updating = threading.Lock()
        self._next = 0.0

    def link(self) -> None:
        """Link the curves of every trial under its name, and remove the links of before.

        Raises:
            InputError: the disk takes no links.
        """
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.iterdir():
            if old.is_symlink():
                old.unlink()
        for label, name in run_names(self._labels).items():
            try:
                (self.folder / name).symlink_to(Path("..") / "trials" / label / "tb", target_is_directory=True)
            except OSError as error:
                raise InputError(f"{self.folder}: takes no links: {error.strerror}") from None

    def trial_ended(self) -> None:
        """Write the run of the sweep anew in the background, where the last time is long enough ago."""
        if time.monotonic() >= self._next and self._updating.acquire(blocking=False):
            threading.Thread(target=self._update_in_background, daemon=True).start()

    def trial_reported(self) -> None:
        """Have the curves that a trial under a URI has uploaded since; in a folder they are there at once."""
        if self._sweep.is_copy:
            self.trial_ended()

    def _update_in_background(self) -> None:
        from amscale.scaling.fit import fit_so_far

        began = time.monotonic()
        try:
            self._sweep.pull_new()
            self.write(fit_so_far(self._sweep.path, **self._fit))
        except InputError:  # no trial has finished yet, one is being written, or storage is out of reach for now
            pass
        finally:
            took = time.monotonic() - began
            self._next = time.monotonic() + max(_EVERY_SECONDS, took / _SHARE)
            self._updating.release()

    def finish(self, fit: "BaseFit") -> None:
        """Write the run of the sweep from its final estimates."""
        with self._updating:
            self.write(fit)

    def write(self, fit: "BaseFit") -> None:
        """Write the run of the sweep from estimates: steps of its charts are D, or N."""
        sizes = sorted({point.N for point in fit.table.points})
        names = _ranked("N", sorted(self._sizes | set(sizes)))
        for old in (self.folder / _SWEEP).glob("N*=*/"):
            if old.name not in names.values():  # of a grid that has grown since
                shutil.rmtree(old)
        for N in sizes:
            losses: dict[float, list[float]] = {}
            for point in fit.table.points:
                if point.N == N:
                    losses.setdefault(point.D, []).append(point.loss)
            means = [(D, sum(values) / len(values)) for D, values in sorted(losses.items())]
            _write_run(self.folder / _SWEEP / names[N], {_LOSS: means}, {})
        dstars = fit["k_dstar"].details.get("dstar", ()) if "k_dstar" in fit else ()
        known = [(item.N, item.value) for item in dstars if item.value is not None]
        _write_run(
            self.folder / _SWEEP, {_DSTAR: known} if known else {}, {_VERDICT: _markdown(fit)}, len(fit.table.points)
        )


def first_view(address: str, trials: int) -> str:
    """Return the address of what to open first, and what to do there.

    Curves are not smoothed, since those of the sweep have few points. Of more than 40 runs TensorBoard ticks none.
    """
    if trials <= _TICKED:
        return f"{address}?smoothing=0#timeseries"
    todo = "(no run of so many is ticked: the box beside 'Run' ticks those that the filter leaves)"
    return f"{address}?smoothing=0&runFilter=^{_SWEEP}#timeseries   {todo}"


def curves_line(sweep: Path) -> str:
    """Return the command that shows the curves of a sweep, by its folder on this machine."""
    return f"curves: tensorboard --logdir {shlex.quote(str(sweep / FOLDER))}"


def run_names(labels: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each trial that sorts by N, D and seed: `N1=6.43k,D02=20k,seed0`, with what else tells it."""
    ordered = sorted(labels, key=label_order)
    cells = {label: label_cell(label) for label in ordered}
    sizes = list(dict.fromkeys(cell[0] for cell in cells.values() if cell))
    amounts = sorted({cell[1] for cell in cells.values() if cell}, key=_amount_order)
    N, D = _ranked("N", sizes), _ranked("D", amounts)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in ordered:
        cell = cells[label]
        name = label if cell is None else f"{N[cell[0]]},{D[cell[1]]},seed{cell[2]}"
        name += f",{labels[label]}" if labels[label] else ""
        if name in taken:
            name += f",{label.rpartition('-')[2]}"
        taken.add(name)
        found[label] = name.replace("/", "_")
    return found


def _amount_order(text: str) -> float:
    return label_order(f"-N1-D{text}-seed0")[1]


def _ranked(letter: str, values: Sequence[Any]) -> dict[Any, str]:
    """Return `N1=6.43k` for each value by its rank, with as many digits as the last one needs."""
    from amscale.settings import format_size

    digits = len(str(len(values)))
    texts = [value if isinstance(value, str) else format_size(value) for value in values]
    return {
        value: f"{letter}{rank:0{digits}}={text}"
        for rank, (value, text) in enumerate(zip(values, texts, strict=True), 1)
    }


def _markdown(fit: "BaseFit") -> str:
    """Return the verdict: questions as headings, headlines in bold, commands as code."""
    lines = []
    for label, text in fit.verdict().lines():
        if text.startswith("python -m "):
            lines.append(f"`{text}`")
            continue
        plain = re.sub(r"([*_\\^])", r"\\\1", text)
        if label in (NOT_SAID, NEXT):
            lines.append(f"*{label}*")
        lines.append({ASKED: f"### {plain}", ANSWER: f"**{plain}**"}.get(label, plain))
    return "\n\n".join(lines)


def _write_run(
    folder: Path, scalars: Mapping[str, Sequence[tuple[float, float]]], texts: Mapping[str, str], finished: int = 0
) -> None:
    """Write a run anew: TensorBoard drops the scalars of an earlier file from the first step of a later one on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.text import metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    earlier = list(folder.glob("events.out.tfevents.*"))
    writer = EventFileWriter(str(folder))
    now = time.time()
    writer.add_event(Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)))
    for tag, points in scalars.items():
        for step, value in points:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(wall_time=now, step=round(step), summary=summary))
    for tag, text in texts.items():
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(tag, ""), tensor=tensor)
        writer.add_event(Event(wall_time=now, step=finished, summary=Summary(value=[value])))
    writer.close()
    for file in earlier:
        file.unlink()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder in TensorBoard on a free port of loopback while the block runs; give its address."""
    port = Port("127.0.0.1")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port.number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield f"http://127.0.0.1:{port.number}/"
    finally:
        process.terminate()
        process.wait()
        port.release()
