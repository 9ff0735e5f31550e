"""Whether a run is compiled: by the setting, its length, what is installed, and how it began."""

from dataclasses import replace

import pytest

from amscale.errors import InputError
from amscale.training import compiling
from amscale.trials.records import Placement

CPU = Placement(1, 1, 1, "cpu", 0, "fp32", 8, 1)
LONG, SHORT = 1e17, 1e12


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A path with nothing on it but a compiler, and the headers that it needs."""
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    return tmp_path / "g++"


@pytest.mark.parametrize(
    ("setting", "before", "flops", "compiled"),
    [
        ("auto", None, LONG, True),
        ("auto", None, SHORT, False),
        ("auto", False, LONG, False),  # it began uncompiled, as every run of earlier versions did
        ("auto", True, SHORT, True),
        (True, False, SHORT, True),
        (False, True, LONG, False),
    ],
)
def test_the_choice(compiler, setting, before, flops, compiled):
    assert compiling.choose(setting, before, flops, CPU).compiled is compiled


def test_more_cores_make_a_run_shorter(compiler):
    flops = 1.5 * compiling.LONG_ENOUGH["cpu"] * compiling._CORE_FLOPS
    assert compiling.choose("auto", None, flops, CPU).compiled
    assert not compiling.choose("auto", None, flops, replace(CPU, cpus_per_process=2)).compiled


def test_without_a_compiler_auto_says_so_and_true_is_refused(compiler):
    compiler.unlink()
    choice = compiling.choose("auto", None, LONG, CPU)
    assert not choice.compiled
    assert "no C++ compiler" in choice.reason
    with pytest.raises(InputError, match=r"train\.compile=true: there is no C\+\+ compiler"):
        compiling.choose(True, None, LONG, CPU)


def test_under_zero_3_it_is_refused(compiler):
    with pytest.raises(InputError, match="ZeRO-3"):
        compiling.choose(True, None, LONG, replace(CPU, zero_stage=3))
