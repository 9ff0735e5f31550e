"""The notebook of the docs, run from its first cell to its last in a kernel of this Python."""

from pathlib import Path

import pytest

from amscale.config import expand, load

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
NEEDS = "pip install amscale[notebook]"


@pytest.mark.slow
def test_the_notebook_runs_from_plan_to_figures_and_next_cells(tmp_path, monkeypatch):
    nbclient, nbformat = (pytest.importorskip(name, reason=NEEDS) for name in ("nbclient", "nbformat"))
    pytest.importorskip("ipykernel", reason=NEEDS)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "it is kept without what it prints"
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    nbclient.NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": tmp_path}}).execute()
    plan, _, verdict, figure, proposed, own = cells
    assert shown(plan, "text/html").count("vanilla-N") == 9
    assert "asked     Does N grow as D^k" in "".join(output.get("text", "") for output in verdict.outputs)
    assert "floor_validation" in shown(verdict, "text/html")
    assert shown(figure, "image/png")
    assert shown(proposed, "text/html").count("vanilla-N") == len(expand(load(str(tmp_path / "next.yaml"))))
    assert shown(own, "image/png")
    folder = tmp_path / "results" / "notebook"
    assert len(list(folder.glob("trials/*/result.json"))) == 9
    assert (folder / "validation.png").stat().st_size > 10_000


def shown(cell, kind: str) -> str:
    """Return what a cell shows, of one media type."""
    return "".join(output.data.get(kind, "") for output in cell.outputs if "data" in output)
