"""Tests that the lecture's notebook runs from its first cell to its last, and holds no outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.long(seconds=60)

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "lecture.ipynb"


def read_notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_a_notebook_without_outputs() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it in a kernel, with trainings of two steps."""
    monkeypatch.setenv("LECTURE_ITERATIONS", "2")
    monkeypatch.setenv("LECTURE_IMAGES", "12")
    notebook = read_notebook()
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", [])]
    said = "".join(each.text for each in outputs if each.get("name") == "stdout")
    names = [line.partition(": mIoU ")[0] for line in said.splitlines() if "mIoU" in line]
    assert names == ["fcn", "deeplabv1", "deeplabv2", "aspp_local", "aspp"]
    figures = [each for each in outputs if "image/png" in each.get("data", {})]
    assert len(figures) >= 4
