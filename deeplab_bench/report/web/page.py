"""The sections of the page, and the template around them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from deeplab_bench.report import page
from deeplab_bench.report.captions import GLOSSARY, describe_context_radius, make_anchor
from deeplab_bench.report.formats import ROOT
from deeplab_bench.report.marks import find_marks
from deeplab_bench.report.results import Results
from deeplab_bench.report.web import charts
from deeplab_bench.report.web.pictures import Slider, build_iterations, build_samples, encode_png
from deeplab_bench.results.files import get_notes_file
from deeplab_bench.results.records import CRFRecord

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
ENVIRONMENT = Environment(
    loader=PackageLoader("deeplab_bench.report.web", ""), autoescape=True, trim_blocks=True
)


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a finding in Markdown, and what shows it."""

    heading: str
    finding: str = ""
    content: list[Markup] = field(default_factory=list)
    sliders: list[Slider] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return "section-" + make_anchor(self.heading)

    def __bool__(self) -> bool:
        return bool(self.finding or self.content or self.sliders)


def render(
    results: Results,
    texts: Mapping[str, str],
    images: Mapping[str, bytes],
    findings: Mapping[str, str],
) -> str:
    """Return the page as HTML: findings, the tables in ``texts``, the figures in ``images``."""
    sections = list_sections(results, texts, images, findings)
    alert = find_marks(results).format_alert().replace("[!CAUTION]", "**Caution**")
    return ENVIRONMENT.get_template("page.html.jinja").render(
        title=f"deeplab-bench: {results.profile}",
        summary=convert(page.summarise(results)),
        alert=convert(alert),
        sections=[section for section in sections if section],
        plotly=Markup(get_plotlyjs()),
        convert=convert,
    )


def list_sections(
    results: Results,
    texts: Mapping[str, str],
    images: Mapping[str, bytes],
    findings: Mapping[str, str],
) -> list[Section]:
    several = len(results.models) > 1
    ties = [charts.draw_comparisons(results)] if several else []
    cost = [charts.draw_tradeoff(results)] if results.speeds else []
    notes = get_notes_file(results.profile)
    return [
        Section(
            "Accuracy",
            findings.get("best", ""),
            [charts.draw_miou(results), *show_table(texts, "accuracy")],
        ),
        Section(
            "Classes",
            findings.get("lowest", ""),
            [charts.draw_per_class(results), *fold("Table", show_table(texts, "per_class"))],
        ),
        Section(
            "Differences",
            findings.get("ties", ""),
            [*ties, *fold("Table", show_table(texts, "comparisons"))],
        ),
        Section("Beside the papers", findings.get("orderings", ""), show_table(texts, "paper")),
        Section("Accuracy and cost", "", [*cost, *fold("Table", show_table(texts, "speed"))]),
        Section("Context", findings.get("fields", ""), show_context(results, texts, images)),
        Section(
            "Fully connected CRF",
            findings.get("crf", ""),
            fold("Table", show_table(texts, "crf")),
            [build_iterations(results, run) for run in first_crf_runs(results)],
        ),
        Section("Rules of scoring", findings.get("audit", ""), show_table(texts, "protocol_audit")),
        Section("Models of others", "", show_table(texts, "label_files")),
        Section(
            "Samples",
            sliders=[build_samples(results)] if results.has_samples else [],
        ),
        Section("Training", "", [charts.draw_curves(results)]),
        Section(
            "Notes", "", [convert(notes.read_text(encoding="utf-8"))] if notes.is_file() else []
        ),
        Section("Provenance", "", [convert(page.describe_schedule(results))]),
        Section("Glossary", "", show_glossary()),
    ]


def show_context(
    results: Results, texts: Mapping[str, str], images: Mapping[str, bytes]
) -> list[Markup]:
    """Show receptive fields, and the accuracy of pixels by the context that they need."""
    content = []
    figure = images.get("plots/receptive_field.png")
    if figure is not None:
        source = encode_png(figure)
        content.append(Markup('<img alt="receptive fields by model" src="{}">').format(source))
    caption = describe_context_radius(results)
    if caption is not None:
        content += [charts.draw_context_radius(results), convert(caption.text)]
    return [*content, *fold("Table", show_table(texts, "receptive_field"))]


def first_crf_runs(results: Results) -> list[CRFRecord]:
    """List a run of the CRF for each model, that of the first seed."""
    runs = {run.model: run for run in reversed(results.crf_runs)} if results.has_samples else {}
    return [runs[model] for model in results.models if model in runs]


def show_table(texts: Mapping[str, str], name: str) -> list[Markup]:
    """Show a table and its caption, without the alert: the page begins with it."""
    text = texts.get(f"tables/{name}.md", "")
    shown = [line for line in text.splitlines() if not line.startswith(">")]
    return [convert("\n".join(shown))] if text else []


def fold(title: str, content: list[Markup]) -> list[Markup]:
    """Put content behind a title that opens it."""
    inside = Markup("").join(content)
    opened = Markup("<details><summary>{}</summary>{}</details>").format(title, inside)
    return [opened] if content else []


def show_glossary() -> list[Markup]:
    path = Path(GLOSSARY)
    return [convert(path.read_text(encoding="utf-8"))] if path.is_file() else []


def convert(text: str) -> Markup:
    """Convert Markdown to HTML. Links into the glossary stay on the page."""
    local = text.replace(f"{ROOT}{GLOSSARY}", "").replace(ROOT, "")
    return Markup(re.sub(r"<(h[2-4])>(.*?)</\1>", add_anchor, MARKDOWN.render(local)))


def add_anchor(heading: re.Match[str]) -> str:
    tag, text = heading.groups()
    return f'<{tag} id="{make_anchor(text)}">{text}</{tag}>'
