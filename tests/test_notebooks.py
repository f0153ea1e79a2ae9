"""Every notebook in docs runs, and what is stored with it was printed by this code."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_and_shows_its_outputs(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    shown = [len(cell.outputs) for cell in stored.cells if cell.cell_type == "code"]
    assert sum(shown) >= 4, "run the notebook and save it with its outputs"
    NotebookClient(stored, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [len(cell.outputs) for cell in stored.cells if cell.cell_type == "code"] == shown
