"""A fit says what made its points where that is not the same for all of them."""

import io
import json

from rich.console import Console

from amscale.reporting.estimates_table import print_fit
from amscale.reporting.page import write_report
from amscale.scaling.fit import fit_sweep

GPU = {"precision": "bf16", "device": "cuda:0", "device_name": "NVIDIA H100"}
CPU = {"precision": "fp32", "device": "cpu", "device_name": "EPYC"}
OLD = {"precision": "fp32", "device": "cpu"}
"""As versions before 0.2 recorded it."""


def test_a_fit_that_mixes_precisions_devices_or_versions_names_them(tmp_path, write_trial):
    def write(name, N, engine, **versions):
        file = write_trial(tmp_path, name, N, 1e6, [2.0, 1.5], [2.0] * 200) / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"engine": engine, "versions": versions}))
        (file.parent / "spec.yaml").write_text(json.dumps({"format": 1, "label": name}))

    write("a", 1e6, OLD)
    write("b", 2e6, CPU, torch="2.9.0", ray="2.50.0")
    assert fit_sweep(tmp_path, resamples=100).table.warnings == []
    write("c", 3e6, GPU, torch="2.10.0", ray="2.50.0")
    write("d", 4e6, GPU, torch="2.10.0", ray="2.50.0")
    marker = {"format": 1, "name": "made", "model": {"family": "vanilla"}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(marker))
    warnings = [
        "the points mix precisions: fp32 (2 trials), bf16 (2 trials); losses of unlike arithmetic differ: fit one of "
        "them with --where engine.precision=fp32",
        "the points mix devices: cuda (NVIDIA H100) (2 trials), cpu (EPYC) (1 trial)",
        "the points mix versions: torch 2.10.0 (2 trials), 2.9.0 (1 trial)",
    ]
    fit = fit_sweep(tmp_path, resamples=100)
    assert fit.table.warnings == json.loads(fit.to_json())["warnings"] == warnings
    console = Console(file=io.StringIO(), width=400)
    print_fit(fit, console)
    page = write_report(tmp_path, fit).read_text()
    for warning in warnings:
        assert f"warning: {warning}" in console.file.getvalue()
        assert warning[1:] in page
    one = fit_sweep(tmp_path, resamples=100, where="engine.precision=fp32")
    assert [point.name for point in one.table.points] == ["a", "b"]
    assert one.table.warnings == []
    assert ("c", "engine.precision is bf16") in one.table.left_out


def test_runs_validated_on_unlike_samples_are_told_apart(tmp_path, write_trial):
    for name, size, sample in (("a", 1e6, 65536), ("b", 2e6, 65536), ("c", 3e6, "auto")):
        file = write_trial(tmp_path, name, size, 1e6, [2.0, 1.5], [2.0] * 200) / "result.json"
        settings = {"train": {"validation_tokens": sample}}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": settings}))
        (file.parent / "spec.yaml").write_text(json.dumps({"format": 1, "label": name}))
    (warning,) = fit_sweep(tmp_path, resamples=100).table.warnings
    assert "unlike samples: the first ones (2 trials), spread evenly (1 trial)" in warning
