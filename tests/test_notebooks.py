"""The notebooks run from their first cell to their last, and are stored as they ran."""

from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """All that the cells of code have left."""
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def pictures(notebook: nbformat.NotebookNode) -> int:
    """How many pictures are in it."""
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_there_are_three() -> None:
    names = ["01_diffusion_from_the_article", "02_sampling_and_editing", "03_your_own"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTEBOOK_FAST", "1")
    stored, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    for cell in notebook.cells:
        cell.outputs = []
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=folder).execute()
    assert pictures(notebook) == pictures(stored) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [*range(1, len(counts) + 1)]
    kinds = {output.get("name", output.output_type) for output in outputs(notebook)}
    assert kinds <= {"stdout", "display_data", "execute_result"}  # no error, no warning
    assert path.stat().st_size < 2_000_000
