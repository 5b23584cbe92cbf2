"""Tests that the lecture's notebook runs from its first cell to its last, and holds no outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "lecture.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_it_holds_no_outputs() -> None:
    for cell in CELLS:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_it_runs(tmp_path: Path) -> None:
    """Run it as a script, with trainings of two steps."""
    cells = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
    script = tmp_path / "lecture.py"
    script.write_text("\n".join(cells), encoding="utf-8")
    small = {"LECTURE_ITERATIONS": "2", "LECTURE_IMAGES": "12", "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=NOTEBOOK.parent,
        env=os.environ | small,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = [line.partition(": mIoU ")[0] for line in done.stdout.splitlines() if "mIoU" in line]
    assert names == ["fcn", "deeplabv1", "deeplabv2", "aspp_local", "aspp"]
