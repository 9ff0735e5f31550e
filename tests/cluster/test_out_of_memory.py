"""Out of memory: smaller micro-batches of the same global batch, and one writer at a time, without a cluster."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from amscale.cluster import out_of_memory
from amscale.cluster.launcher import ATTEMPT_VARIABLE, Placement
from amscale.training.interruptions import is_out_of_memory, report
from amscale.trials.folder import TrialFolder

PLACEMENT = Placement(1, 2, 1, "cpu", 1, "fp32", micro_batch=701, accumulation=1)


def test_the_global_batch_stays_and_little_is_padded():
    placement, rows = PLACEMENT, []
    while (smaller := out_of_memory.halved(placement)) is not None:
        assert 2 * smaller.micro_batch - placement.micro_batch in (0, 1)
        placement = smaller
        rows.append(placement.micro_batch * placement.accumulation)
    assert placement.micro_batch == 1
    assert all(701 <= count <= 1.01 * 701 for count in rows)


def test_what_did_not_fit_is_not_tried_again_at_the_same_place(tmp_path):
    folder = TrialFolder(tmp_path)
    assert out_of_memory.fitting(folder, PLACEMENT) == PLACEMENT
    for placement in (PLACEMENT, out_of_memory.halved(PLACEMENT)):
        folder.out_of_memory_marker.write_text("can't allocate memory\n")
        assert out_of_memory.record(folder, placement) == "can't allocate memory"
    assert out_of_memory.fitting(folder, PLACEMENT).micro_batch == 176
    elsewhere = replace(PLACEMENT, zero_stage=2)
    assert out_of_memory.fitting(folder, elsewhere) == elsewhere
    fits = replace(PLACEMENT, micro_batch=100, accumulation=8)
    assert out_of_memory.fitting(folder, fits) == fits


def test_the_allocators_errors_are_told_from_others(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    report(TrialFolder(tmp_path), refused.value)
    assert "can't allocate memory" in TrialFolder(tmp_path).out_of_memory_marker.read_text()


def test_an_old_start_ends_before_it_writes(tmp_path):
    folder = TrialFolder(tmp_path)
    old, new = folder.new_start(), folder.new_start()
    script = (
        "import pathlib, sys\nfrom amscale.trials.folder import TrialFolder\nfrom amscale.trials.attempt import Fence\n"
        "Fence(TrialFolder(pathlib.Path(sys.argv[1]))).check()\nprint('writes')"
    )
    for start, status, said in ((old, 1, ""), (new, 0, "writes\n")):
        ran = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, ATTEMPT_VARIABLE: start},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (status, said), ran.stderr
