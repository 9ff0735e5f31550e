"""Storage: whole or not at all, and what a machine does not see of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amscale.config import load, parse
from amscale.errors import InputError
from amscale.trials import mirror
from amscale.trials.attempt import AttemptReplaced, Diagnosis
from amscale.trials.location import TrialLocation, scratch_folder, storage_folder, working_folder
from amscale.trials.mirror import pull
from amscale.trials.object_trial_store import ObjectTrialStore
from amscale.trials.objects import ObjectStore, checksums
from amscale.trials.records import Placement, TrialResult, TrialSpec
from amscale.trials.storage_errors import (
    OutOfReach,
    StorageError,
)
from amscale.trials.sweep_store import open_sweep, sweep_store
from amscale.trials.trial_store import TrialStore

PLACEMENT = Placement(1, 1, 1, "cpu", 0, "fp32", micro_batch=1, accumulation=1)
SPEC = TrialSpec(trial="a", label="a", placement=PLACEMENT, store="a", settings={}, format=1).to_yaml()
RESULT = TrialResult.model_construct(format=1)


class Crash(BaseException):
    """The process ends here."""


class Fragile(ObjectStore):
    """Objects whose user crashes before its n-th change of them."""

    left = 0

    def _use(self) -> None:
        type(self).left -= 1
        if self.left < 0:
            raise Crash

    def put(self, file, key):
        self._use()
        super().put(file, key)

    def remove(self, keys):
        for key in keys:
            self._use()
            super().remove([key])


def write_checkpoint(trial: ObjectTrialStore, name: str, content: str) -> None:
    """What the two ranks of one machine leave in its folder."""
    folder = trial.checkpoints / name
    (folder / "engine").mkdir(parents=True, exist_ok=True)
    for rank in (2 * trial.machine, 2 * trial.machine + 1):
        (folder / "engine" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_text(f"{content} {rank}")
    if trial.machine == 0:
        (folder / "progress.json").write_text(content)
        (folder / "engine" / "mp_rank_00_model_states.pt").write_text(content)
    (folder / trial.manifest).write_text(json.dumps(checksums(folder, but=trial.manifest)))


def two_machines(objects: ObjectStore, path: Path) -> list[ObjectTrialStore]:
    return [ObjectTrialStore(objects, path / f"machine{m}", m, 2) for m in (0, 1)]


def fetched(objects: ObjectStore, path: Path) -> tuple[str, list[list[str]]]:
    """What two new machines read of the newest whole checkpoint: its content, and the files that each has."""
    machines = two_machines(objects, path)
    for name in machines[0].checkpoint_names():
        if not any([machine.fetch_checkpoint(name) for machine in machines]):
            folders = [machine.checkpoints / name for machine in machines]
            contents = {file.read_text().split()[0] for folder in folders for file in folder.rglob("*.*")}
            assert len(contents) == 1
            return contents.pop(), [sorted(f.name for f in (folder / "engine").iterdir()) for folder in folders]
    raise AssertionError("no whole checkpoint")


def test_a_crash_at_any_upload_or_removal_leaves_the_old_or_the_new_checkpoint_whole(objects, tmp_path):
    writers = two_machines(Fragile(objects.uri), tmp_path / "writing")
    for writer in writers:
        write_checkpoint(writer, "step_10", "old")
        write_checkpoint(writer, "step_20", "new")
    seen = []
    for crash_at in range(100):
        Fragile.left = 1000
        for writer in writers:
            writer.push_checkpoint("step_10")
        writers[0].prepare_checkpoint("step_20")
        Fragile.left = crash_at
        try:
            for writer in writers:
                writer.push_checkpoint("step_20")
            writers[0].keep_checkpoints(1)
        except Crash:
            seen.append(fetched(objects, tmp_path / f"reading{crash_at}")[0])
            continue
        break
    assert seen == sorted(seen, reverse=True)  # old until the last manifest is there, new from then on
    assert {"old", "new"} == set(seen)
    assert len(seen) > 12
    content, (first, second) = fetched(objects, tmp_path / "reading")
    assert content == "new"
    assert {key.split("/")[1] for key in objects.entries()} == {"step_20"}
    # A machine fetches its own partitions and what is for all, not other machines' partitions.
    assert "mp_rank_00_model_states.pt" in first
    assert second == ["mp_rank_00_model_states.pt"] + [
        f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (2, 3)
    ]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damage_is_found_when_a_checkpoint_is_fetched(damage, objects, tmp_path):
    for writer in two_machines(objects, tmp_path / "writing"):
        write_checkpoint(writer, "step_10", "old")
        writer.push_checkpoint("step_10")
    victim = "checkpoints/step_10/engine/zero_pp_rank_2_mp_rank_00_optim_states.pt"
    objects.remove([victim]) if damage == "gone" else objects.write(victim, b"other")
    first, second = two_machines(objects, tmp_path / "reading")
    stale = first.checkpoints / "step_10" / "engine" / "zero_pp_rank_9_mp_rank_00_optim_states.pt"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert first.fetch_checkpoint("step_10") is None
    assert not stale.exists()
    assert "zero_pp_rank_2" in second.fetch_checkpoint("step_10")


@pytest.mark.parametrize("name", ["../outside", "/outside", "engine/../../outside", ""])
def test_a_manifest_that_names_a_file_elsewhere_is_none(name, objects, tmp_path):
    objects.write("checkpoints/step_10/checksums.json", json.dumps({name: 1}).encode())
    reader = ObjectTrialStore(objects, tmp_path / "reading")
    assert reader.fetch_checkpoint("step_10") == "no readable checksums"
    assert not (tmp_path / "reading").exists()


def test_a_write_that_fails_leaves_the_old_object(objects, monkeypatch):
    objects.write("some/key", b"old")

    class Failing:
        def write(self, content):
            raise OSError("no route to the store")

        def close(self):
            pass

    system = objects._system
    monkeypatch.setattr(ObjectStore, "_system", property(lambda self: Half(system, Failing())))
    with pytest.raises(StorageError, match=r"^storage out of reach: file:.*some/key: no route to the store$"):
        objects.write("some/key", b"new")
    monkeypatch.undo()
    assert objects.read("some/key") == b"old"
    assert list(objects.entries()) == ["some/key"]


class Half:
    """A file system that opens a stream which fails."""

    def __init__(self, system, stream):
        self._system, self._stream = system, stream

    def __getattr__(self, name):
        return getattr(self._system, name)

    def open_output_stream(self, path):
        self._system.open_output_stream(path).close()
        return self._stream


def test_records_go_up_without_marks_and_result_and_come_down_as_they_are(objects, tmp_path):
    folder = ObjectTrialStore(objects, tmp_path / "trial")
    (folder.path / "tb").mkdir(parents=True)
    for name in ("metrics.jsonl", "log.txt", "tb/events", "start", "preempted", "result.json", "model.safetensors"):
        (folder.path / name).write_text(name)
    folder.push_records()
    assert sorted(objects.entries()) == ["log.txt", "metrics.jsonl", "tb/events"]
    copy = TrialStore(tmp_path / "copy")
    objects.write("result.json", b"{}")
    objects.write("model.safetensors", b"big")
    pull(objects, copy.path)
    assert sorted(f.name for f in copy.path.iterdir()) == ["log.txt", "metrics.jsonl", "result.json", "tb"]
    objects.write("metrics.jsonl", b"as long as")
    objects.remove(["result.json"])
    pull(objects, copy.path)
    assert copy.metrics.read_bytes() == b"as long as"
    assert not copy.done()


def test_what_is_written_beside_the_trials_of_a_uri_is_uploaded(objects, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match="not a sweep"), open_sweep(objects.uri):
        pass
    objects.write("sweep.yaml", b"format: 1")
    objects.write("trials/a/result.json", b"{}")
    with open_sweep(objects.uri) as folder:
        assert (folder / "trials/a/result.json").read_text() == "{}"
        (folder / "figures").mkdir()
        (folder / "figures" / "one.svg").write_text("<svg/>")
        (folder / "fit.json").write_text("{}")
    assert sorted(objects.entries()) == ["figures/one.svg", "fit.json", "sweep.yaml", "trials/a/result.json"]


def test_a_token_store_is_fetched_whole_or_not_at_all(objects, tmp_path):
    store = tmp_path / "made" / "tokens" / "abc"
    store.mkdir(parents=True)
    (store / "tokens.bin").write_bytes(bytes(100))
    assert not mirror.fetch_tokens(objects, tmp_path / "here" / "abc")
    mirror.push_tokens(objects, store)
    assert mirror.fetch_tokens(objects, tmp_path / "here" / "abc")
    assert (tmp_path / "here" / "abc" / "tokens.bin").read_bytes() == bytes(100)
    objects.write("tokens/abc/tokens.bin", bytes(99))
    with pytest.raises(StorageError, match=r"storage damaged: .*tokens\.bin"):
        mirror.fetch_tokens(objects, tmp_path / "there" / "abc")
    assert not (tmp_path / "there" / "abc").exists()
    mirror.push_tokens(objects, store)  # the damaged one was given up
    assert mirror.fetch_tokens(objects, tmp_path / "there" / "abc")


def test_addresses(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="credentials in the environment") as refusal:
        working_folder("s3://name:secret@bucket/prefix")
    assert "secret" not in str(refusal.value)
    with pytest.raises(InputError, match="foo://x"):
        ObjectStore("foo://x").read("key")
    monkeypatch.setenv("SOME_SCRATCH", str(tmp_path))
    first = working_folder("s3://bucket/prefix?endpoint_override=a:1&scheme=http", "$SOME_SCRATCH/amscale")
    assert first.parts[-2:] == ("bucket", "prefix")
    assert first.is_relative_to(tmp_path / "amscale")
    assert first != working_folder("s3://bucket/prefix?endpoint_override=b:1&scheme=http", "$SOME_SCRATCH/amscale")
    with pytest.raises(InputError, match="a variable in it is not set"):
        scratch_folder("$NO_SUCH_SCRATCH")
    sweep = ObjectStore("s3://bucket/prefix?scheme=http").at("name")
    assert sweep.uri == "s3://bucket/prefix/name?scheme=http"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("$SCRATCH/x", "variables and unknown users in it stand for nothing; write the path out"),
        ("~nobody-of-this-name/x", "variables and unknown users in it stand for nothing; write the path out"),
        ("file/x", "file is a file"),
        ("link", "link is a link to nothing"),
    ],
)
def test_a_storage_folder_that_cannot_be_meant(written, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(InputError) as error:
        storage_folder(load("grammar.yaml", [f"storage={written}"]))
    assert words in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    (tmp_path / "$SCRATCH").mkdir()  # that one is meant
    assert storage_folder(load("grammar.yaml", ["storage=$SCRATCH"])) == tmp_path / "$SCRATCH"


def test_a_machine_waits_for_what_another_wrote_longer_than_nfs_caches(tmp_path):
    location = TrialLocation(str(tmp_path), None, "sweep", "trial")
    assert location.visible_seconds >= 120 > 60
    first, second = location.store(0), location.store(1)
    first.path.mkdir(parents=True)
    first.spec.write_text(SPEC)
    looked = []
    second.current_attempt = lambda: looked.append(1) or ("a" if len(looked) > 5 else None)
    second.join_attempt("a")
    assert len(looked) == 6
    (tmp_path / "tokens" / "corpus").mkdir(parents=True)
    assert second.token_store("corpus") == first.token_store("corpus")
    first.token_store("none")  # which is an error of whoever opens it
    with pytest.raises(OutOfReach, match="does not see what the driver wrote to"):
        replace(location, visible_seconds=0.0).store(1).token_store("none")


def test_a_machine_says_what_it_does_not_see_and_what_went_wrong(tmp_path):
    location = TrialLocation(str(tmp_path), None, "sweep", "trial", visible_seconds=0.0)
    first, second = location.store(0), location.store(1)
    with pytest.raises(OutOfReach, match=r"^storage not shared: \S+ does not see what the driver wrote to "):
        first.open()
    first.path.mkdir(parents=True)
    first.spec.write_text(SPEC)
    first.open()
    second.join_attempt(first.begin_attempt(replace(PLACEMENT, machines=2)))
    assert second.read_spec().placement.machines == 2
    with pytest.raises(OutOfReach, match=r"does not see what machine 0 wrote to .* higher launch\.visible_after$"):
        second.join_attempt("another attempt")
    line = "storage full: /some/disk: No space left on device; free space and run the same command again"
    log = second.log_of(1)
    log.write_text(f"=== start 1\ntrain: {line}\n=== start 2\nValueError: shapes differ\n")
    assert second.diagnose() == Diagnosis(storage=None, out_of_memory=None, reason="ValueError: shapes differ")
    log.write_text(f"=== start 1\nhello\n=== start 2\nTraceback …\n{line}\n")
    assert second.diagnose().storage == line


def test_a_replaced_attempt_uploads_nothing(objects, tmp_path):
    store = ObjectTrialStore(objects, tmp_path / "machine0")
    store.path.mkdir()
    store.spec.write_text(SPEC)
    old = store.begin_attempt(PLACEMENT)
    store.log.write_text("mine")
    store.push_records()
    assert objects.read("log.txt") == b"mine"
    elsewhere = ObjectTrialStore(objects, tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    elsewhere.spec.write_text(store.spec.read_text())
    elsewhere.begin_attempt(PLACEMENT)
    assert store.current_attempt() == old  # its folder is its own, and does not tell
    store.log.write_text("too late")
    for write in (store.push_records, lambda: store.publish(RESULT), lambda: store.prepare_checkpoint("step_1")):
        with pytest.raises(AttemptReplaced):
            write()
    store.push_last_records()
    assert objects.read("log.txt") == b"mine"
    assert not store.done()


def test_a_place_that_holds_something_else_is_not_taken_for_a_sweep(objects, tmp_path):
    settings = {"name": "mine", "model": {"family": "vanilla"}, "data": {"corpus": "kjv"}, "train": {"steps": 1}}
    sweep = sweep_store(parse(settings | {"storage": objects.uri, "launch": {"scratch": str(tmp_path / "scratch")}}))
    objects.write("mine/holiday.jpg", b"picture")
    with pytest.raises(InputError, match="exists and is not a sweep"), sweep.owned():
        pass
    assert list(objects.entries()) == ["mine/holiday.jpg"]
