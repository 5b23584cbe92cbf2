"""The README's results are those that are committed."""

from pathlib import Path

from deeplab_bench.report.page import with_results

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_the_committed_results() -> None:
    readme = ROOT / "README.md"
    shown = readme.read_text(encoding="utf-8")
    assert with_results(readme, ROOT / "results") == shown, (
        "run python -m deeplab_bench.report.page"
    )
