"""Tests that the README shows the committed results."""

from pathlib import Path

from deeplab_bench.report.page import is_readme_current

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_the_committed_results() -> None:
    assert is_readme_current(ROOT / "README.md", ROOT / "results")
