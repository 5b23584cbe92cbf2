"""Tables, figures and pages for each profile, made only from the results in params.yaml."""

from deeplab_bench.report import (
    comparisons,
    label_files,
    page,
    paper,
    plots,
    receptive_field,
    speed_tables,
    tables,
    web,
)
from deeplab_bench.report.findings import list_findings
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.results import ReportError
from deeplab_bench.settings.params import Params
from deeplab_bench.writing import write_bytes

__all__ = ["ReportError", "write_report"]


def write_report(params: Params, profile: str) -> None:
    """Write the tables, figures and page of a profile to ``results/<profile>``.

    Raises:
        ReportError: a declared result is missing or does not fit. Nothing is written.
    """
    results = load_results(params, profile)
    if not results.has_samples:
        print(
            f"{results.folder}/plots/receptive_field stays as it was, and pictures of predictions "
            "are left out: the samples are not in git. "
            f"`make repro PROFILE={profile}` makes both"
        )
    texts: dict[str, str] = {}
    for part in (tables, speed_tables, comparisons, paper, receptive_field, label_files):
        texts |= part.render(results)
    findings, images = list_findings(results), plots.render(results)
    texts["README.md"] = page.render(results, texts, findings)
    texts["report.html"] = web.page.render(results, texts, images, findings)
    for name, content in ({k: text.encode() for k, text in texts.items()} | images).items():
        write_bytes(results.folder / name, content)
