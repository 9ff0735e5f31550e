"""Checkpoints are shown, and removed where that is wanted; results never."""

import pytest
from helpers.commands import ended
from helpers.made_sweep import write_sweep

from amscale.clean import clean
from amscale.errors import InputError
from amscale.trials import lease
from amscale.trials.cleaning import clean_sweep
from amscale.trials.objects import ObjectStore
from amscale.trials.sweep_store import SweepStore


@pytest.fixture
def sweep(tmp_path):
    """A made sweep: one trial is done and has a leftover, one is not, one has nothing."""
    folder = write_sweep(tmp_path / "storage" / "made", (6000,), (8000, 20000, 50000), steps=20)
    done, begun, _ = sorted((folder / "trials").iterdir())
    (begun / "result.json").unlink()
    for trial, name, size in ((done, "step_000000010-x.partial", 5), (begun, "step_000000015", 7)):
        (trial / "checkpoints" / name / "engine").mkdir(parents=True)
        (trial / "checkpoints" / name / "engine" / "states.pt").write_bytes(bytes(size))
    return folder


@pytest.mark.parametrize("as_objects", [False, True])
def test_all_checkpoints_and_nothing_else(sweep, as_objects):
    address = sweep.as_uri() if as_objects else str(sweep)
    files = {path for path in sweep.rglob("*") if path.is_file() and "checkpoints" not in path.parts}
    shown = clean_sweep(address, remove=False)
    assert {(each.checkpoints, each.bytes, each.steps, each.done) for each in shown} == {
        (1, 5, 0, True),
        (1, 7, 15, False),
    }
    assert clean_sweep(address, remove=True) == shown
    assert clean_sweep(address, remove=False) == []
    left = {path for path in sweep.rglob("*") if path.is_file() and not path.name.startswith(".driver")}
    assert left == files


def test_the_command_removes_only_when_it_is_told_to(sweep, capsys):
    assert ended(clean, str(sweep)) == 0
    said = capsys.readouterr().out
    assert "and the 15 steps of a trial without a result" in said
    assert said.endswith("0.0 MB in all, nothing removed yet; --yes removes it\n")
    assert ended(clean, str(sweep), "--yes") == 0
    assert capsys.readouterr().out.endswith("removed 0.0 MB; every result is as it was\n")
    assert ended(clean, str(sweep / "trials")) == 2


@pytest.mark.parametrize("as_objects", [False, True])
def test_not_while_a_driver_runs(sweep, as_objects):
    objects = ObjectStore(sweep.as_uri())
    with lease.held(objects) if as_objects else SweepStore(sweep).owned():
        address = objects.uri if as_objects else str(sweep)
        with pytest.raises(InputError, match="another driver runs this sweep"):
            clean_sweep(address, remove=True)
    assert any((sweep / "trials").glob("*/checkpoints/step_*"))
