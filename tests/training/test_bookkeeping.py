"""Each rank checks its own files of a checkpoint, and ranks meet over gloo with a time limit of its own."""

import json
import subprocess
import sys

import pytest

from amscale.training.bookkeeping import Bookkeeping
from amscale.training.checkpoint import _files_of
from amscale.trials.trial_store import TrialStore

FILES = [
    "engine/mp_rank_00_model_states.pt",
    "engine/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "engine/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    "engine/bf16_zero_pp_rank_10_mp_rank_00_optim_states.pt",
    "latest",
    "progress.json",
]


def test_every_file_of_a_checkpoint_is_one_ranks(tmp_path, monkeypatch):
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    books = Bookkeeping(60)
    found = {}
    for rank in range(12):
        books.rank = rank
        monkeypatch.setenv("LOCAL_RANK", str(rank % 8))  # two machines
        found[rank] = _files_of(books, tmp_path, shared=True)
    assert sorted(file for files in found.values() for file in files) == sorted(FILES)
    assert {rank: files for rank, files in found.items() if files} == {
        0: [FILES[0], FILES[1], "latest", "progress.json"],
        1: [FILES[2]],
        10: [FILES[3]],
    }
    books.rank = 8
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert _files_of(books, tmp_path, shared=False) == [FILES[0], "latest", "progress.json"]


def test_parts_of_a_check_find_what_the_whole_finds(tmp_path):
    from amscale.trials.objects import checksums

    store = TrialStore(tmp_path)
    folder = store.checkpoints / "step_000000010"
    for number, file in enumerate(FILES):
        (folder / file).parent.mkdir(exist_ok=True, parents=True)
        (folder / file).write_text(str(number))
    (folder / store.manifest).write_text(json.dumps(checksums(folder, but=store.manifest)))
    assert [store.fetch_checkpoint(folder.name, (part, 4)) for part in range(4)] == [None] * 4
    (folder / FILES[2]).write_text("x")
    damages = [store.fetch_checkpoint(folder.name, (part, 4)) for part in range(4)]
    assert [damage for damage in damages if damage] == [f"{FILES[2]} is missing or changed"]


WAITING = """
import sys, time
import torch.distributed as dist
from amscale.training.bookkeeping import Bookkeeping
dist.init_process_group("gloo")
books = Bookkeeping(float(sys.argv[1]))
assert books.gather({"rank": books.rank}) == [{"rank": 0}, {"rank": 1}]
if books.rank == 1:
    time.sleep(5)
books.wait()
books.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "ends_well"), [(600, True), (1, False)])
def test_the_time_limit_is_the_bookkeepings_own(seconds, ends_well, tmp_path):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ran = subprocess.run(
        [*torchrun, str(script), str(seconds)], capture_output=True, text=True, timeout=600, check=False
    )
    assert (ran.returncode == 0) == ends_well, ran.stderr
