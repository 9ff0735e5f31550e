"""Interrupted builds, concurrent builds, and builds of any length."""

import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from amscale.data import build, prepare, store_name
from amscale.data.corpora.local_files import Text
from amscale.data.corpora.question_formation import QuestionFormation
from amscale.data.corpus import Unreachable
from amscale.errors import InputError


def interrupt(monkeypatch, after: int, error: BaseException) -> list[int]:
    """Let the build fail after some blocks; return the list of how many blocks each build skips."""
    true, skipped = build.token_blocks, []

    def blocks(settings, tokenizer, skip=0):
        skipped.append(skip)
        for number, block in enumerate(true(settings, tokenizer, skip)):
            if number == after and len(skipped) == 1:
                raise error
            yield block

    monkeypatch.setattr(build, "token_blocks", blocks)
    return skipped


def same(one, other) -> bool:
    names = ("tokens.bin", "offsets.npy", "store.json", "tokenizer.json")
    return all((one.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in names)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.setattr("amscale.data.readers._BLOCK", 1 << 12)
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {i} of {i % 7} and {i % 11}" for i in range(3000)) + "\n" + "again\n" * 50)
    return str(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full"), Unreachable("no network")])
@pytest.mark.parametrize("options", [{}, {"shuffle_tokens": "document", "duplicates": "exact"}])
def test_an_interrupted_build_is_resumed_and_gives_the_same_store(tmp_path, lines, monkeypatch, error, options):
    settings = Text(corpus="text", files=lines, document="line", tokenizer_vocabulary=300, **options)
    straight = prepare(settings, tmp_path / "straight")
    skipped = interrupt(monkeypatch, after=5, error=error)
    with pytest.raises(type(error)):
        prepare(settings, tmp_path / "cut")
    (half,) = (tmp_path / "cut").iterdir()
    with (half / "draft-tokens.bin").open("ab") as file:
        file.write(b"half a block")
    monkeypatch.setattr(build, "make_tokenizer", None)  # the saved one is used
    store = prepare(settings, tmp_path / "cut")
    assert skipped == [0, 5]
    assert same(store, straight)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [store.folder.name]
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "offsets.npy",
        "store.json",
        "tokenizer.json",
        "tokens.bin",
    ]


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("draft-tokens.bin", "short"),
        ("draft-hashes.bin", "zeros"),
        ("tokenizer.json", "zeros"),
        ("draft.json", "zeros"),
    ],
)
def test_a_draft_that_a_power_loss_damaged_is_begun_again(tmp_path, lines, monkeypatch, name, lost):
    settings = Text(corpus="text", files=lines, document="line", tokenizer_vocabulary=300)
    straight = prepare(settings, tmp_path / "straight")
    skipped = interrupt(monkeypatch, after=5, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, tmp_path / "cut")
    (path,) = (tmp_path / "cut").glob(f"*/{name}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(0 if lost == "short" else len(content) - len(content) // 2))
    assert same(prepare(settings, tmp_path / "cut"), straight)
    assert skipped == [0, 0]


def test_bad_input_leaves_nothing_to_resume(tmp_path, lines, monkeypatch):
    interrupt(monkeypatch, after=5, error=InputError("bad"))
    with pytest.raises(InputError, match="bad"):
        prepare(Text(corpus="text", files=lines, document="line", tokenizer="byte"), tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["lines.txt"]


_SLOW = """
import sys, time
from amscale.data import prepare, build
from amscale.data.corpora.question_formation import QuestionFormation
true = build.token_blocks
def slow(*arguments):
    for block in true(*arguments):
        yield block
        print("block", flush=True)
        time.sleep(float(sys.argv[2]))
build.token_blocks = slow
prepare(QuestionFormation(documents=60_000), sys.argv[1])
"""


def start_slow(root, seconds) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", _SLOW, str(root), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"block\n"  # printed after the block was written
    return process


def test_a_killed_builder_is_replaced_and_a_live_one_waited_for(tmp_path, monkeypatch):
    settings = QuestionFormation(documents=60_000)
    killed = start_slow(tmp_path / "a", 30)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "a" / store_name(settings)).exists()
    store = prepare(settings, tmp_path / "a")
    live = start_slow(tmp_path / "b", 0.3)
    monkeypatch.setattr(build, "token_blocks", None)  # only the live builder may tokenise
    waited = prepare(settings, tmp_path / "b")
    live.wait()
    assert live.returncode == 0
    assert (store.folder / "tokens.bin").read_bytes() == (waited.folder / "tokens.bin").read_bytes()
    for root in (tmp_path / "a", tmp_path / "b"):
        assert [path.name for path in root.iterdir()] == [store.folder.name]


def test_a_disk_without_locks_is_enough(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    store = prepare(QuestionFormation(documents=1500), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [store.folder.name]


def test_forgotten_folders_are_removed_and_others_are_not(tmp_path):
    for name in ("dead", "busy", "young"):
        (tmp_path / f".{name}-host").mkdir()
        (tmp_path / f".{name}-host" / "lock").touch()
        if name != "young":
            for path in (tmp_path / f".{name}-host" / "lock", tmp_path / f".{name}-host"):
                os.utime(path, (0, 0))
    with (tmp_path / ".busy-host" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(QuestionFormation(documents=1500), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == [".busy-host", ".young-host"]


def test_order_and_split_do_not_depend_on_how_much_is_held_at_once(tmp_path, monkeypatch):
    settings = QuestionFormation(documents=20_000, duplicates="exact", word_classes="quarter")
    whole = prepare(settings, tmp_path / "whole")
    for name, value in (("buckets._BUCKET", 1 << 16), ("draft._CHUNK", 1 << 12), ("draft._ROWS", 100)):
        monkeypatch.setattr(f"amscale.data.{name}", value)
    assert same(prepare(settings, tmp_path / "parts"), whole)
    training = np.diff(whole.offsets[: whole.training_documents + 1])
    half = len(training) // 2  # a random order has no trend
    assert abs(training[:half].mean() - training[half:].mean()) < 5 * training.std() * np.sqrt(2 / half)


_PEAK = """
import sys
from amscale.data import prepare, buckets, draft
from amscale.data.corpora.question_formation import QuestionFormation
buckets._BUCKET, draft._CHUNK, draft._ROWS = 1 << 20, 1 << 17, 1 << 12
prepare(QuestionFormation(documents=int(sys.argv[1])), sys.argv[2])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """With files a thirtieth of the usual, so that the corpora are many times what is held at once."""

    def peak_kilobytes(documents):
        command = [sys.executable, "-c", _PEAK, str(documents), str(tmp_path)]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    few, many = peak_kilobytes(100_000), peak_kilobytes(500_000)
    assert many - few < 8000  # 20 bytes a document would be as much


def test_a_long_build_reports_its_progress(tmp_path, monkeypatch):
    true, written = build.token_blocks, io.StringIO()

    def blocks(*arguments):
        for block, words in zip(true(*arguments), ("documents", "tokens a second", "tokens a second"), strict=True):
            yield block
            written.truncate(written.seek(0))
            while words not in written.getvalue():  # until a line tells of this block
                time.sleep(0.01)

    monkeypatch.setattr(build, "token_blocks", blocks)
    monkeypatch.setattr(build, "_REPORT_EVERY", 0.01)
    monkeypatch.setattr(sys, "stderr", written)
    prepare(QuestionFormation(documents=40_000), tmp_path)
    assert "question_formation: tokenising: 40k documents, 9" in written.getvalue()


def test_a_short_build_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(build, "_REPORT_EVERY", 3600)
    prepare(QuestionFormation(documents=1500), tmp_path)
    assert capfd.readouterr() == ("", "")
