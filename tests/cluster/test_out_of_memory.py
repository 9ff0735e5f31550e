"""Out of memory: smaller micro-batches of the same global batch, and one writer at a time; without a cluster."""

from dataclasses import replace

import pytest

from amscale.cluster.runner import fitting_placement, halved
from amscale.training.failures import is_out_of_memory, report_out_of_memory
from amscale.training.metrics_writer import MetricsWriter
from amscale.trials.attempt import AttemptReplaced
from amscale.trials.records import Placement, TrialResult, TrialSpec
from amscale.trials.trial_store import TrialStore

PLACEMENT = Placement(1, 2, 1, "cpu", 1, "fp32", micro_batch=701, accumulation=1)


def test_the_global_batch_stays_and_little_is_padded():
    placement, rows = PLACEMENT, []
    while (smaller := halved(placement)) is not None:
        assert 2 * smaller.micro_batch - placement.micro_batch in (0, 1)
        placement = smaller
        rows.append(placement.micro_batch * placement.accumulation)
    assert placement.micro_batch == 1
    assert all(701 <= count <= 1.01 * 701 for count in rows)


def test_what_did_not_fit_is_not_tried_again_at_the_same_place(tmp_path):
    folder = TrialStore(tmp_path)
    assert fitting_placement(folder, PLACEMENT) == PLACEMENT
    for placement in (PLACEMENT, halved(PLACEMENT)):
        folder.add_out_of_memory("can't allocate memory", placement)
    assert fitting_placement(folder, PLACEMENT).micro_batch == 176
    elsewhere = replace(PLACEMENT, zero_stage=2)
    assert fitting_placement(folder, elsewhere) == elsewhere
    fits = replace(PLACEMENT, micro_batch=100, accumulation=8)
    assert fitting_placement(folder, fits) == fits


def test_the_allocators_errors_are_told_from_others(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    report_out_of_memory(TrialStore(tmp_path), refused.value)
    assert "can't allocate memory" in TrialStore(tmp_path).out_of_memory_marker.read_text()


def test_an_attempt_that_was_replaced_ends_before_it_writes(tmp_path):
    store = TrialStore(tmp_path)
    spec = TrialSpec(format=1, trial="a", label="a", placement=PLACEMENT, store="a", settings={})
    store.spec.write_text(spec.to_yaml())
    old, new = (store.begin_attempt(PLACEMENT) for _ in range(2))
    TrialStore(tmp_path).check_attempt()  # a run by hand has no rival
    TrialStore(tmp_path, attempt=new).check_attempt()
    for write in (
        lambda: TrialStore(tmp_path, attempt=old).publish(TrialResult.model_construct(format=1)),
        lambda: report_out_of_memory(TrialStore(tmp_path, attempt=old), MemoryError()),
        lambda: MetricsWriter(TrialStore(tmp_path, attempt=old), 0),
    ):
        with pytest.raises(AttemptReplaced, match="a newer one has taken its place"):
            write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.yaml", "start"]
