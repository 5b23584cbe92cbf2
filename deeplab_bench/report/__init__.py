"""Tables, figures and a page for each profile, from its declared results and nothing else."""

from deeplab_bench.report.results import ReportError, load_results, write
from deeplab_bench.settings.params import Params

__all__ = ["ReportError", "write_report"]


def write_report(params: Params, profile: str) -> None:
    """Write everything under ``results/<profile>`` that is made from its results.

    Raises:
        ReportError: a declared result is missing or unfit; nothing was written.
    """
    # Here, so that `python -m deeplab_bench.report.tables` finds its module not yet imported.
    from deeplab_bench.report import comparisons, page, paper, plots, tables
    from deeplab_bench.report import receptive_field as fields

    results = load_results(params, profile)
    texts = tables.render(results)
    for part in (comparisons, paper, fields):
        texts |= part.render(results)
    texts["README.md"] = page.render(results, texts)
    images = plots.render(results) | fields.render_figure(results)
    for name, content in ({k: text.encode() for k, text in texts.items()} | images).items():
        write(results.folder / name, content)
