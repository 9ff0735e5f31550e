"""Electricity by the counters of processors and GPUs: sums over ranges, ranks and attempts, or the reason for none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from amscale.training.bookkeeping import Bookkeeping
from amscale.training.checkpoint import Progress
from amscale.training.electricity import Electricity, Nvml, Rapl, result_electricity

NVML = """
static unsigned long long energy = 5000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { *handle = (void *)1; return uuid[4] == 'a' ? 0 : 6; }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *value) { *value = energy += 2500; return 0; }
"""


def zone(root: Path, name: str, kind: str, microjoules: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (("name", kind), ("energy_uj", microjoules), ("max_energy_range_uj", 1_000_000)):
        (folder / file).write_text(f"{content}\n")
    return folder / "energy_uj"


def test_packages_are_summed_without_their_parts_and_over_the_end_of_a_range(tmp_path):
    first, second = (zone(tmp_path, f"intel-rapl:{i}", f"package-{i}", 900_000) for i in range(2))
    part = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    zone(tmp_path, "intel-rapl:2", "psys", 0)
    counter = Rapl(tmp_path)
    assert counter.reason is None
    first.write_text("950000")
    second.write_text("100000")  # it has passed its range of 1 J
    part.write_text("999999")
    assert counter.joules() == pytest.approx(0.05 + 0.2)
    assert counter.joules() == 0


@pytest.mark.parametrize(("broken", "reason"), [(None, "has no RAPL package"), ("energy_uj", "energy_uj: ")])
def test_a_run_without_counters_says_why_and_never_0(tmp_path, broken, reason):
    if broken:
        zone(tmp_path, "intel-rapl:0", "package-0", 0).unlink()
    progress = Progress()
    Electricity(Bookkeeping(60), None, tmp_path).settle(progress)
    found = result_electricity(progress)
    assert (found.device_kwh, found.host_kwh) == (None, None)
    assert found.reasons["device"] == "no GPU was used"
    assert reason in found.reasons["host"]


def test_attempts_add_up_and_one_that_was_not_measured_leaves_no_sum(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    progress = Progress()
    for _ in range(2):
        electricity = Electricity(Bookkeeping(60), None, tmp_path)
        counter.write_text(str(int(counter.read_text()) + 360_000))
        electricity.settle(progress)
    assert result_electricity(progress).host_kwh == pytest.approx(0.72 / 3.6e6)
    Electricity(Bookkeeping(60), None, tmp_path / "nothing").settle(progress)
    Electricity(Bookkeeping(60), None, tmp_path).settle(progress)
    assert result_electricity(progress).host_kwh is None
    assert "has no RAPL package" in result_electricity(progress).reasons["host"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc makes a library that answers as NVML does")
def test_a_gpu_by_its_counter(tmp_path):
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "nvml.c")], check=True)
    counter = Nvml("GPU-a", str(library))
    assert counter.reason is None
    assert [counter.joules(), counter.joules()] == [2.5, 2.5]
    assert Nvml("GPU-b", str(library)).reason == "NVML answers with error 6 for GPU-b"
    assert "libnvidia-ml.so.1" in str(Nvml("GPU-a", str(tmp_path / "no" / "libnvidia-ml.so.1")).reason)
