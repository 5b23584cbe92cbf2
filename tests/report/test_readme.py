"""Tests that the README shows the committed results."""

from pathlib import Path

from deeplab_bench.report.page import insert_results

ROOT = Path(__file__).resolve().parents[2]


def is_readme_current(readme: Path, results: Path) -> bool:
    return insert_results(readme, results) == readme.read_text(encoding="utf-8")


def test_the_readme_shows_the_committed_results() -> None:
    assert is_readme_current(ROOT / "README.md", ROOT / "results")
