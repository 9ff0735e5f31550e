"""One driver a sweep of an object store."""

import json
import os
import subprocess
import sys
import time

import pytest
from helpers.commands import wait_until

from amscale.errors import InputError
from amscale.trials.lease import KEY, held
from amscale.trials.objects import ObjectStore


def hold(objects: ObjectStore, meanwhile=lambda: None) -> None:
    with held(objects):
        meanwhile()


def test_one_driver_holds_a_sweep(objects, monkeypatch):
    monkeypatch.setattr("amscale.trials.lease._SETTLE_SECONDS", 0.0)
    with held(objects):
        with pytest.raises(InputError, match=rf"another driver runs this sweep \(process {os.getpid()} on "):
            hold(objects)
        other = json.dumps({"host": "elsewhere", "process": 7}).encode()
        objects.write(KEY, other)
    assert objects.read(KEY) == other  # not this driver's to remove
    with pytest.raises(InputError, match=r"process 7 on elsewhere, renewed \d+ s ago; if it is dead, wait 60 s"):
        hold(objects)
    monkeypatch.setattr("amscale.trials.lease._EXPIRE_SECONDS", 0.05)
    time.sleep(0.1)
    with held(objects):
        holder = json.loads(objects.read(KEY))
        assert holder["process"] == os.getpid()
    assert objects.read(KEY) is None
    objects.write(KEY, json.dumps({**holder, "process": _ended_process()}).encode())
    monkeypatch.setattr("amscale.trials.lease._EXPIRE_SECONDS", 60.0)
    hold(objects)  # a driver of this machine that is dead is not waited for


def _ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_driver_whose_sweep_was_taken_ends(objects, monkeypatch):
    monkeypatch.setattr("amscale.trials.lease._SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("amscale.trials.lease._RENEW_SECONDS", 0.05)

    def lose() -> None:
        with held(objects) as owner:
            time.sleep(0.2)  # several renewals
            owner.check()
            objects.write(KEY, b"{}")
            wait_until(owner.lost, 600, "the loss of the sweep")

    with pytest.raises(InputError, match="another driver has taken this sweep; this one ends"):
        lose()
    assert objects.read(KEY) == b"{}"
