"""Command ``readme``: put the committed results into README.md."""

from pathlib import Path

from deeplab_bench.report.page import update_readme
from deeplab_bench.results.files import RESULTS


def main() -> None:
    update_readme(Path("README.md"), RESULTS)
