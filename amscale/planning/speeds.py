"""How long a training step takes: measured by trials of a sweep, by a calibration of this machine, or assumed."""

import bisect
import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amscale.cluster.resources import Resources, assumed_flops
from amscale.files import write_atomically
from amscale.planning.sharing import STEP_SECONDS
from amscale.trials.records import Placement, TrialResult

_FAR = 8.0
"""Steps of so many times the FLOPs of what was measured say little of each other's speed."""
_MEMBER_SECONDS = 0.0006
"""What a step of a pack costs more for each member: its batch, its loss, its gradient's norm."""
_KEPT = 400
"""Measurements that are kept of a machine, the newest."""


@dataclass(frozen=True)
class StepTime:
    """What a training step of one process took."""

    family: str
    device: str
    precision: str
    flops: float
    """Of a step of the process."""
    seconds: float
    cpus: int = 0
    """Cores of the process; 0 where that is not known."""
    calibrated: bool = False
    """Whether a calibration measured it, and not a trial, which counts more."""
    members: int = 1
    """Trials that the process trained together; the seconds are one's share of them."""


@dataclass(frozen=True)
class Speeds:
    """What is known of the seconds of a step."""

    measured: tuple[StepTime, ...] = ()
    basis: str = "an assumed speed, until a trial has been measured"
    """What it rests on, for the plan."""
    _found: dict[Any, list[tuple[float, float]]] = field(default_factory=dict, compare=False, repr=False)
    """Points by what they are of: a plan of thousands of trials asks for few kinds."""

    def step_seconds(
        self, family: str, flops: float, placement: Placement, resources: Resources, members: int = 1
    ) -> float:
        """Return the seconds of one step, or of one member's share of a pack's.

        Between measured steps of the family a line in FLOPs joins those beside; beyond them the arithmetic grows with
        the FLOPs. Where steps of packs were measured and not of trials alone, or the other way round, the members of a
        pack share what a step costs beside its arithmetic.

        Args:
            family: of the model.
            flops: of the step, of all processes.
            placement: where it runs.
            resources: what the machines have.
            members: trials that the process trains together.
        """
        own = flops / placement.world_size
        fixed = self.fixed_seconds(family, placement)
        like, others = self._points(family, placement, members > 1), self._points(family, placement, members == 1)
        if like:
            return _interpolated(like, own, fixed / members)
        if others and members > 1:
            return _interpolated(others, own, fixed) - fixed * (1 - 1 / members) + _MEMBER_SECONDS
        if others:
            together = min(point.members for point in self.measured if point.members > 1)
            return _interpolated(others, own, fixed / together) + fixed * (1 - 1 / together) - _MEMBER_SECONDS
        return fixed / members + own / assumed_flops(placement, resources.suited(placement))

    def fixed_seconds(self, family: str, placement: Placement) -> float:
        """Return what a step costs beside its arithmetic: the line through the two least steps, at no FLOPs."""
        points = self._points(family, placement, packed=False)
        if not points:
            return STEP_SECONDS
        (low, first), (high, second) = points[0], points[min(1, len(points) - 1)]
        if high <= low:
            return min(STEP_SECONDS, first / 2)
        return min(0.9 * first, max(0.0, first - (second - first) * low / (high - low)))

    def _points(self, family: str, placement: Placement, packed: bool) -> list[tuple[float, float]]:
        kind = family, placement.device, placement.precision, placement.cpus_per_process, packed
        if kind not in self._found:
            self._found[kind] = _averaged(
                point for point in self.measured if _alike(point, family, placement) and (point.members > 1) == packed
            )
        return self._found[kind]

    def know(self, family: str, flops: float, placement: Placement) -> bool:
        """Return whether steps of about so many FLOPs were measured."""
        own = flops / placement.world_size
        points = (point for point in self.measured if _alike(point, family, placement))
        return any(1 / _FAR <= point.flops / own <= _FAR for point in points)


def speeds_for(results: Iterable[TrialResult], device: str) -> Speeds:
    """Return what the results of a sweep say, or else what is known of this machine."""
    if own := step_times(results):
        return Speeds(tuple(own), "speed measured in this sweep")
    kept = [point for point in load() if point.device == device]
    return Speeds(tuple(kept), "speed measured on this machine") if kept else Speeds()


def step_times(results: Iterable[TrialResult]) -> list[StepTime]:
    """Return what the steps of finished trials took."""
    found = []
    for result in results:
        engine, seconds = result.engine, result.time.device_seconds
        if seconds and result.flops.total and result.steps and result.shape.family:
            steps = result.steps
            world = engine.world_size
            found.append(
                StepTime(
                    family=result.shape.family,
                    device="cuda" if str(engine.device).startswith("cuda") else "cpu",
                    precision=engine.precision or "fp32",
                    flops=result.flops.total / steps / world,
                    seconds=seconds / steps / world,
                    members=result.packed.largest if result.packed else 1,
                )
            )
    return found


def load() -> list[StepTime]:
    """Return the measurements that are kept of this machine under this torch; none where the file holds others."""
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
        return [StepTime(**point) for point in kept["steps"]] if kept["of"] == _machine() else []
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):  # RuntimeError: there is no home
        return []


def keep(measured: Sequence[StepTime]) -> None:
    """Add measurements of this machine to those that are kept; a home that cannot be written keeps none."""
    steps = [*load(), *measured][-_KEPT:]
    text = json.dumps({"of": _machine(), "steps": [asdict(point) for point in steps]}, indent=1)
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), text + "\n")
    except (OSError, RuntimeError):
        return


def _file() -> Path:
    cache = os.environ.get("AMSCALE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "amscale"
    return Path(cache).expanduser() / f"speeds-{platform.node() or 'machine'}.json"


def _machine() -> dict[str, str]:
    """Return what makes a measurement useless where it differs."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return {"processor": model or platform.machine(), "cores": str(os.cpu_count()), "torch": version("torch")}


def _alike(point: StepTime, family: str, placement: Placement) -> bool:
    here = point.family, point.device, point.precision
    return here == (family, placement.device, placement.precision) and (
        placement.device == "cuda" or point.cpus in (0, placement.cpus_per_process)
    )


def _interpolated(points: Sequence[tuple[float, float]], flops: float, fixed: float) -> float:
    """Return the seconds of a step between measured ones, or beyond; the least is arithmetic but for `fixed`."""
    places = [place for place, _ in points]
    index = bisect.bisect(places, flops)
    if index == 0 or index == len(points):
        place, seconds = points[min(index, len(points) - 1)]
        kept = min(fixed, seconds) if index == 0 else 0.0
        return kept + (seconds - kept) * flops / place
    (low, first), (high, second) = points[index - 1 : index + 1]
    return first + (second - first) * (flops - low) / (high - low)


def _averaged(points: Iterable[StepTime]) -> list[tuple[float, float]]:
    """Return FLOPs and median seconds of steps, by FLOPs; those within a tenth count as one."""
    groups: dict[int, list[StepTime]] = {}
    for point in points:
        groups.setdefault(round(10 * math.log(point.flops)), []).append(point)
    for group in groups.values():
        group[:] = [point for point in group if not point.calibrated] or group
    return sorted(
        (statistics.median(p.flops for p in group), statistics.median(p.seconds for p in group))
        for group in groups.values()
    )
