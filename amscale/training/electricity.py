"""Electricity that a run takes, by the counters of its GPUs (NVML) and processors (RAPL). Not the Hopfield energy.

Counters are of whole devices and machines: what else runs on them at the same time is in them too. A counter that is
missing or may not be read is named with the reason, and nothing is estimated in its place.
"""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amscale.training.bookkeeping import Bookkeeping
from amscale.training.checkpoint import Progress
from amscale.trials.records import ResultElectricity

JOULES_PER_KWH = 3.6e6
POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"
SHARED = dict.fromkeys(("device", "host"), "one process trained several trials, and counters cannot tell them apart")
"""Why a trial that was trained with others has no electricity of its own."""
_READ_SECONDS = 1.0
"""Least time between two readings: RAPL's counters begin anew after some minutes under load."""


class Rapl:
    """The processors' counters of this machine: packages, without the parts of them that have counters of their own.

    Args:
        root: the kernel's folder of power zones.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self.reason: str | None = None
        self._zones: list[tuple[Path, int]] = []
        self._before: list[int] = []
        try:
            for zone in sorted(root.glob("*-rapl:[0-9]*")):
                if zone.name.count(":") == 1 and (zone / "name").read_text(encoding="ascii").startswith("package"):
                    self._zones.append(
                        (zone / "energy_uj", int((zone / "max_energy_range_uj").read_text(encoding="ascii")))
                    )
            self._before = self._values()
        except OSError as error:
            self.reason = f"{error.filename}: {error.strerror} (reading it may need root)"
        except ValueError as error:
            self.reason = f"{root}: not the counters of a kernel ({error})"
        if not self._zones and self.reason is None:
            self.reason = f"{root} has no RAPL package: a virtual machine, or a processor without"

    def joules(self) -> float:
        """Return what was taken since the last call; only where there is no `reason`."""
        now = self._values()
        # A counter that has begun anew counts on from 0 after its range.
        passed = [
            value - before if value >= before else value + most - before
            for value, before, (_, most) in zip(now, self._before, self._zones, strict=True)
        ]
        self._before = now
        return sum(passed) / 1e6

    def _values(self) -> list[int]:
        return [int(file.read_text(encoding="ascii")) for file, _ in self._zones]


class Nvml:
    """The energy counter of one GPU.

    Args:
        uuid: of the GPU, as `nvidia-smi -L` names it; None on a CPU.
        library: NVML's.
    """

    def __init__(self, uuid: str | None, library: str = _NVML) -> None:
        self.reason: str | None = None
        self._handle = ctypes.c_void_p()
        if uuid is None:
            self.reason = "no GPU was used"
            return
        try:
            self._library = ctypes.CDLL(library)
            for call in (
                lambda: self._library.nvmlInit_v2(),
                lambda: self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._handle)),
            ):
                if (status := call()) != 0:
                    self.reason = f"NVML answers with error {status} for {uuid}"
                    return
            self._before = self._value()
        except (OSError, AttributeError) as error:
            self.reason = f"{library}: {error}"

    def joules(self) -> float:
        """Return what was taken since the last call; only where there is no `reason`.

        Raises:
            OSError: the driver does not tell.
        """
        now = self._value()
        passed, self._before = max(0, now - self._before), now  # a driver that was loaded anew counts from 0
        return passed / 1e3

    def _value(self) -> int:
        millijoules = ctypes.c_ulonglong()
        status = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules))
        if status != 0:
            raise OSError(f"this GPU has no energy counter (NVML error {status})")
        return millijoules.value


@dataclass
class _Sum:
    counter: Rapl | Nvml
    total: float = 0.0

    def read(self) -> None:
        if self.counter.reason is None:
            try:
                self.total += self.counter.joules()
            except (OSError, ValueError) as error:
                self.counter.reason = f"the counter failed while the run trained: {error}"

    def take(self) -> float | None:
        taken, self.total = self.total, 0.0
        return taken if self.counter.reason is None else None


class Electricity:
    """The electricity of a run, summed over its ranks, machines and attempts.

    Args:
        books: of the ranks.
        uuid: of this rank's GPU; None on a CPU.
        root: the kernel's folder of power zones.
    """

    def __init__(self, books: Bookkeeping, uuid: str | None, root: Path = POWERCAP) -> None:
        self._books = books
        self._device = _Sum(Nvml(uuid))
        self._host = _Sum(Rapl(root)) if books.is_first_of_machine else None
        self._read = time.monotonic()

    def read(self) -> None:
        """Read the counters of this rank, if a second has passed since they were read last."""
        if time.monotonic() - self._read >= _READ_SECONDS:
            self._read_all()

    def settle(self, progress: Progress) -> None:
        """Add what all ranks have read to a run's progress; all must call together, before a checkpoint and last."""
        self._read_all()
        host = self._host
        found = self._books.gather(
            (
                (self._device.take(), self._device.counter.reason),
                (0.0, None) if host is None else (host.take(), host.counter.reason),
            )
        )
        for index, name in enumerate(("device", "host")):
            _add(progress.electricity, name, [each[index] for each in found])

    def _read_all(self) -> None:
        self._read = time.monotonic()
        self._device.read()
        if self._host is not None:
            self._host.read()


def _add(sums: dict[str, Any], name: str, found: list[tuple[float | None, str | None]]) -> None:
    """Add joules to a sum; once a part of a run was not measured, there is none, and the first reason stays."""
    reason = next((reason for joules, reason in found if joules is None), None)
    if reason is not None:
        sums.setdefault(f"{name}_reason", reason)
        sums.pop(name, None)
    elif f"{name}_reason" not in sums:
        sums[name] = sums.get(name, 0.0) + sum(joules for joules, _ in found if joules is not None)


def result_electricity(progress: Progress) -> ResultElectricity:
    """Return the electricity of a run that ended, in kWh."""
    sums = progress.electricity
    kwh = {name: sums[name] / JOULES_PER_KWH if name in sums else None for name in ("device", "host")}
    reasons = {name: sums[f"{name}_reason"] for name in kwh if f"{name}_reason" in sums}
    return ResultElectricity(device_kwh=kwh["device"], host_kwh=kwh["host"], reasons=reasons)


def uuid_of(device: Any) -> str | None:
    """Return the name that NVML knows a torch device by; None for a CPU."""
    if device.type != "cuda":
        return None
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
