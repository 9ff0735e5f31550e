"""The law of docs/estimates.md, installed as a package outside the tree: its rows need no edit in amscale."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.packages import code_block, entry_point, install, run

TRUTH = {"A": 2e3, "c": 3.0, "E": 1.7, "kappa": 0.8, "gamma": 0.4}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH with the module of the worked example and the metadata of its package."""
    modules = {"kaplan_floor": code_block("estimates.md", "python")}
    return install(tmp_path_factory.mktemp("site"), entry_point("estimates.md"), modules)


@pytest.mark.slow
def test_law_of_the_page_has_rows_estimates_intervals_and_held_out_errors(site, tmp_path):
    random = np.random.default_rng(0)
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e8, 1e10, 5)))
    A, c, E, kappa, gamma = TRUTH.values()
    loss = (E + A * (N**-kappa + c / D) ** gamma) * np.exp(0.002 * random.normal(size=25))
    rows = [f"{n:.0f},{d:.0f},{x:.6f}" for n, d, x in zip(N, D, loss, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["N,D,loss", *rows, ""]))
    out = tmp_path / "out"
    done = run(site, "-m", "amscale.fit", str(tmp_path / "table.csv"), "--resamples", "100", "--output", str(out))
    assert done.returncode == 0, done.stderr
    assert "k = 1/κ, both terms in proportion (Kaplan with a floor)" in done.stdout
    assert "loss floor (Kaplan with a floor)" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("Kaplan with a floor "))
    assert row.split()[4] == "5", "the table of laws counts its parameters"
    document = json.loads((out / "fit.json").read_text())
    estimates = {estimate["id"]: estimate for estimate in document["estimates"]}
    for id, truth in (("k_kaplan_floor", 1 / kappa), ("floor_kaplan_floor", E)):
        low, high = estimates[id]["interval"]
        assert low < truth < high
    laws = {law["objective"]: law for law in document["laws"] if law["id"] == "kaplan_floor"}
    assert set(laws) == {"huber_log", "squared_log", "squared"}
    law = laws["huber_log"]
    assert law["parameters"]["kappa"] == pytest.approx(kappa, rel=0.1)
    assert set(law["intervals"]) == {*TRUTH, "k", "floor"}
    assert all(law["held_out"][axis] < 0.01 for axis in ("N", "D"))


def test_derivatives_of_the_page_s_law_are_right(site):
    code = """
import numpy as np
from amscale.scaling.laws import Rows, all_laws, predict
law = all_laws()["kaplan_floor"]
N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e8, 1e10, 4)))
problem = law.problem(Rows(N, D, np.linspace(3, 2, 16), None, 6 * N * D))
theta = np.array([0.3, 0.5, 0.2, 0.9, 0.4])
jacobian, steps = problem.predict(theta[None])[1][0], 1e-6 * np.eye(5)
for index, step in enumerate(steps):
    ends = [problem.predict((theta + sign * step)[None])[0][0] for sign in (1, -1)]
    assert np.allclose(jacobian[:, index], (ends[0] - ends[1]) / 2e-6, atol=1e-8), index
natural = problem.natural(theta[None])[0]
given = dict(zip(law.parameters, natural))
assert np.allclose(np.log(predict("kaplan_floor", given, N, D)), problem.predict(theta[None])[0][0])
"""
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("Bad-Name = kaplan_floor:KaplanFloor", "'Bad-Name' is not an id"),
        ("number = math:pi", "must be a subclass"),
        ("gone = no_such_module:Law", "cannot be loaded"),
    ],
)
def test_entry_point_that_is_no_law_is_one_line(site, tmp_path, entry, words, write_trial):
    (tmp_path / "other-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (tmp_path / "other-1.0.dist-info" / "entry_points.txt").write_text(f"[amscale.laws]\n{entry}\n")
    (tmp_path / "kaplan_floor.py").write_text((site / "kaplan_floor.py").read_text())
    for i, N in enumerate((1e6, 2e6, 4e6)):
        for j, D in enumerate((1e6, 2e6, 4e6)):
            write_trial(tmp_path / "sweep", f"{i}{j}", N, D, [3 - 0.1 * i - 0.2 * j], [2.0] * 10)
    done = run(tmp_path, "-m", "amscale.fit", str(tmp_path / "sweep"), "--resamples", "100")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
