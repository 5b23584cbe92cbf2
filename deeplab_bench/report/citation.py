"""What a report needs to cite a model's results: BibTeX, the table, a sentence for the methods."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from deeplab_bench.report import phrases
from deeplab_bench.report.latex import escape
from deeplab_bench.report.marks import MARKS
from deeplab_bench.report.results import ReportError, Results
from deeplab_bench.report.summaries import summarise_miou
from deeplab_bench.results.records import NO_SOURCE
from deeplab_bench.settings.published import Paper, find_published, read_published

CITATION = Path("CITATION.cff")
REFERENCES = Path(__file__).with_name("references.bib")
# What a model cites whatever its rows are: keys of results/published.yaml or of ``REFERENCES``.
DESIGNS = "deeplabv3"  # the paper that the suite is about
ARCHITECTURES = {
    "fcn": "fcn",
    "largefov": "deeplabv1",
    "aspp_sum": "deeplabv2",
    "image_pyramid": "attention",
    "encoder_decoder": "fpn",
    "cascade": "deeplabv3",
    "aspp": "deeplabv3",
    "psp": "pspnet",
    "deeplabv3plus": "deeplabv3plus",
    "unet": "unet",
}
BACKBONES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), "resnet"),
    "vgg16": "vgg",
    "efficientnet_lite0": "efficientnet",
}
DATA_SETS = {"camvid": ("camvid",), "voc2012": ("voc", "sbd")}


def cite(results: Results, model: str) -> str:
    """Return the text; the sentence has the numbers of the accuracy table.

    Raises:
        ReportError: there are no results of the model.
    """
    if model not in results.models:
        known = ", ".join(results.models)
        raise ReportError(f"results/{results.profile} has no model {model!r}: it has {known}")
    suite = YAML(typ="safe").load(CITATION)
    cited = [find_published(citation).paper for citation in results.params.citations(model)]
    entries = [*map(format_paper, cited), *map(find_entry, list_references(results, model))]
    return "\n\n".join(
        [
            "% BibTeX",
            format_software(suite),
            *dict.fromkeys(entries),
            "% the table; it needs \\usepackage{booktabs}",
            f"\\input{{{results.folder / 'tables' / 'accuracy'}}}",
            "% the methods",
            describe(results, model, suite),
        ]
    )


def list_references(results: Results, model: str) -> list[str]:
    """List the keys of the suite's paper, the architecture, the backbone and the data set."""
    experiment = results.params.experiment(results.profile, model)
    architecture = ARCHITECTURES.get(experiment.architecture)
    backbone = BACKBONES.get(experiment.arguments.get("backbone", ""))
    keys = (DESIGNS, architecture, backbone, *DATA_SETS.get(results.data.dataset, ()))
    return [key for key in keys if key is not None]


def find_entry(key: str) -> str:
    """Return the BibTeX of a key."""
    papers = read_published().papers
    if key in papers:
        return format_paper(papers[key])
    entries = REFERENCES.read_text(encoding="utf-8").strip().split("\n\n")
    return next(entry for entry in entries if f"{{{key}," in entry)


def format_software(suite: Any) -> str:
    released = suite["date-released"]
    return format_entry(
        "software",
        "deeplab-bench",
        title=f"{{{suite['title']}}}",
        author=" and ".join(f"{{{author['name']}}}" for author in suite["authors"]),
        version=suite["version"],
        year=released.year,
        month=released.month,
    )


def format_paper(paper: Paper) -> str:
    return format_entry(
        "misc",
        f"arxiv:{paper.arxiv}",
        title=f"{{{paper.title}}}",
        author=paper.authors,
        year=paper.year,
        eprint=paper.arxiv,
        archivePrefix="arXiv",
    )


def format_entry(kind: str, key: str, **fields: Any) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def describe(results: Results, model: str, suite: Any) -> str:
    """Describe in a sentence how the model was trained and scored, and its mIoU."""
    row = summarise_miou(results).loc[model]
    scope = phrases.describe_scope(results)
    interval = f", 95 % interval {row.ci95_low:.2f} to {row.ci95_high:.2f} over {scope}"
    seeds = phrases.count_seeds(results)
    over = f"mean of {seeds}" if len(results.seeds) > 1 else seeds
    data = results.data.describe(phrases.count_images(results)).replace("`", "")
    timings = zip(results.runs, results.timings, strict=True)
    sources = [
        source
        for run, timing in timings
        if run.model == model
        for source in (timing.sources or {"train": NO_SOURCE}).values()
    ]
    commits = phrases.list_commits(dict.fromkeys(sources))
    marks = [MARKS[name].meaning for name, found in results.warnings.items() if model in found]
    caution = f", and is marked as {phrases.join_words(marks)}" if marks else ""
    return escape(
        f"{model}, trained and scored by deeplab-bench {suite['version']} under the profile "
        f"{results.profile} on {data}, has an mIoU of {row['mean']:.2f} % ({over}"
        f"{interval if scope else ''}; {commits}){caution}."
    )
