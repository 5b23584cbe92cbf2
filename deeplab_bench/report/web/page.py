"""The sections of the page, and the templates around them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from deeplab_bench.report import page
from deeplab_bench.report.captions import (
    GLOSSARY,
    describe_atrous,
    describe_learning_curves,
    make_anchor,
)
from deeplab_bench.report.formats import ROOT, render_formats
from deeplab_bench.report.marks import find_marks
from deeplab_bench.report.phrases import explain_undecided
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import SIGNIFICANT
from deeplab_bench.report.tables import build_accuracy
from deeplab_bench.report.tradeoff import Expense, list_expenses
from deeplab_bench.report.web import charts, tradeoff, training
from deeplab_bench.report.web.figures import scroll_sideways
from deeplab_bench.report.web.pictures import (
    MENDED,
    SPOILT,
    build_iterations,
    build_samples,
    encode_given,
    encode_png,
    list_colours,
)
from deeplab_bench.report.web.provenance import describe_provenance, shorten_machines
from deeplab_bench.results.files import get_notes_file
from deeplab_bench.results.records import CRFRecord

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
ENVIRONMENT = Environment(
    loader=PackageLoader("deeplab_bench.report.web", ""), autoescape=True, trim_blocks=True
)
FIGURE_PX = 640
FIRST_COLUMNS = ("model", "miou_mean", "interval", "rank")  # of the accuracy; for narrow screens


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a finding in Markdown, and what shows it."""

    heading: str
    finding: str = ""
    content: list[Markup] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return "section-" + make_anchor(self.heading)

    def __bool__(self) -> bool:
        return bool(self.finding or self.content)


def render(
    results: Results,
    texts: Mapping[str, str],
    images: Mapping[str, bytes],
    findings: Mapping[str, str],
) -> str:
    """Return the page as HTML: findings, the tables in ``texts``, the figures in ``images``."""
    shown = {name: shorten_machines(text, results) for name, text in texts.items()}
    sections = list_sections(results, shown, images, findings)
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
    notes = get_notes_file(results.profile)
    differences = filter(None, (findings.get("lowest"), findings.get("ties")))
    return [
        Section(
            "Accuracy",
            findings.get("best", ""),
            [charts.draw_miou(results), *show_accuracy(results)],
        ),
        Section(
            "Classes",
            findings.get("classes", ""),
            [charts.draw_per_class(results), *fold("Table", show_table(texts, "per_class"))],
        ),
        Section(
            "Object size",
            "",
            [charts.draw_object_size(results), *fold("Table", show_table(texts, "object_size"))],
        ),
        Section(
            "Boundaries",
            "",
            [charts.draw_boundaries(results), *fold("Table", show_table(texts, "boundaries"))],
        ),
        Section("Differences", "\n\n".join(differences), show_differences(results, texts)),
        Section("Beside the papers", findings.get("orderings", ""), show_paper(results, texts)),
        Section("Accuracy and cost", findings.get("cost", ""), show_cost(results, texts)),
        Section("Context", findings.get("fields", ""), show_context(results, texts, images)),
        Section("Atrous convolution", "", show_atrous(images)),
        Section("Ways of inference", "", show_table(texts, "inference")),
        Section("Fully connected CRF", findings.get("crf", ""), show_crf(results, texts)),
        Section("Rules of scoring", findings.get("audit", ""), show_table(texts, "protocol_audit")),
        Section("Models of others", "", show_table(texts, "label_files")),
        Section("Samples", "", show_samples(results)),
        Section(
            "Training",
            "",
            [
                *show_learning_curves(results),
                *fold("Speed of training", show_table(texts, "training_speed")),
            ],
        ),
        Section(
            "Notes",
            "",
            fold("Notes by hand", [convert(notes.read_text(encoding="utf-8"))])
            if notes.is_file()
            else [],
        ),
        Section(
            "Provenance",
            "",
            [
                convert("### Schedule\n\n" + page.describe_schedule(results)),
                convert(describe_provenance(results)),
            ],
        ),
        Section("Glossary", "", fold("All terms", show_glossary())),
    ]


def show_accuracy(results: Results) -> list[Markup]:
    """Show the table of accuracy with the columns first that a narrow screen has to show."""
    table = build_accuracy(results)
    columns = list(dict.fromkeys([*FIRST_COLUMNS, *table.text]))
    arranged = replace(table, text=table.text[columns], bold=table.bold[columns])
    texts = render_formats(arranged, "accuracy", results)
    return show_table({k: shorten_machines(text, results) for k, text in texts.items()}, "accuracy")


def show_differences(results: Results, texts: Mapping[str, str]) -> list[Markup]:
    if len(results.models) == 1:
        return []
    star = f"A star: the two models differ, p < {SIGNIFICANT} after Holm's correction for all pairs"
    undecided = explain_undecided(results)
    return [
        charts.draw_comparisons(results),
        convert(
            "Points of mIoU, the row's model minus the column's. "
            f"{f'Not tested: {undecided}' if undecided else star}."
        ),
        *fold("Table", show_table(texts, "comparisons")),
    ]


def show_paper(results: Results, texts: Mapping[str, str]) -> list[Markup]:
    table = show_table(texts, "paper")
    return [charts.draw_paper(results), *table] if table else []


def show_cost(results: Results, texts: Mapping[str, str]) -> list[Markup]:
    """Show accuracy over latency; the other costs are folded."""
    if not results.speeds:
        return []
    first, *others = list_expenses(results)
    folded = [chart for expense in others for chart in draw_expense(results, expense)]
    return [
        *draw_expense(results, first),
        convert(
            "Symbol: median. Horizontal line: to the 90th percentile. Vertical line: 95 % interval."
        ),
        *fold(" and ".join(each.name for each in others), folded),
        *fold("Table", show_table(texts, "speed")),
    ]


def draw_expense(results: Results, expense: Expense) -> list[Markup]:
    hardware = expense.list_hardware(results)
    return [tradeoff.draw_tradeoff(results, expense, name) for name in hardware]


def show_context(
    results: Results, texts: Mapping[str, str], images: Mapping[str, bytes]
) -> list[Markup]:
    """Show receptive fields beside the accuracy of pixels by the context that they need."""
    parts = []
    if "plots/receptive_field.png" in images:
        parts.append(show_figure(images, "receptive_field", "receptive fields by model"))
    if results.runs[0].context_radius:
        parts.append(charts.draw_context_radius(results))
    sides = [Markup("<div>{}</div>").format(part) for part in parts]
    both = [Markup('<div class="beside">{}</div>').format(Markup("").join(sides))] if sides else []
    names = ("context_radius", "receptive_field")
    return [*both, *fold("Tables", [part for name in names for part in show_table(texts, name)])]


def show_atrous(images: Mapping[str, bytes]) -> list[Markup]:
    if "plots/atrous.png" not in images:
        return []
    what = "a 3x3 kernel at three rates, and its valid weights by rate"
    return [show_figure(images, "atrous", what), convert(describe_atrous().format_markdown(ROOT))]


def show_figure(images: Mapping[str, bytes], name: str, what: str) -> Markup:
    """Show a figure, framed, because it is white in the dark, too."""
    source = encode_png(images[f"plots/{name}.png"])
    image = Markup('<img class="framed" alt="{}" src="{}">').format(what, source)
    return scroll_sideways(image, FIGURE_PX)


def show_crf(results: Results, texts: Mapping[str, str]) -> list[Markup]:
    """Show the table, and what the iterations change on the first images."""
    table = fold("Table", show_table(texts, "crf"))
    runs = first_crf_runs(results)
    if not runs:
        return table
    changes = {"mended by the CRF": f"rgb{MENDED}", "spoilt": f"rgb{SPOILT}"}
    sliders = [
        ENVIRONMENT.get_template("slider.html.jinja").render(slider=build_iterations(results, run))
        for run in runs
    ]
    return [show_given(results, changes), *map(Markup, sliders), *table]


def first_crf_runs(results: Results) -> list[CRFRecord]:
    """List a run of the CRF for each model, that of the first seed."""
    runs = {run.model: run for run in reversed(results.crf_runs)} if results.has_samples else {}
    return [runs[model] for model in results.models if model in runs]


def show_samples(results: Results) -> list[Markup]:
    if not results.has_samples:
        return []
    slider = ENVIRONMENT.get_template("slider.html.jinja").render(slider=build_samples(results))
    return [show_given(results, {}), Markup(slider)]


def show_given(results: Results, more_colours: Mapping[str, str]) -> Markup:
    """Show the images and the ground truth, with the meaning of the colours."""
    colours = {**list_colours(results), **more_colours}
    template = ENVIRONMENT.get_template("given.html.jinja")
    return Markup(template.render(pictures=encode_given(results), colours=colours))


def show_learning_curves(results: Results) -> list[Markup]:
    """Show the losses and, if there are validation curves, the mIoU."""
    drawn = (
        "In colour: the mean over the seeds, and from the lowest to the highest. Grey: the other "
        "models."
    )
    caption = describe_learning_curves(results)
    if caption is None:
        return [training.draw_losses(results), convert(drawn)]
    return [
        convert("### Learning curves, training and validation"),
        training.draw_losses(results),
        training.draw_validation(results),
        convert(f"{drawn} Dashed: the validation loss."),
        convert(caption.format_markdown(ROOT)),
    ]


def show_table(texts: Mapping[str, str], name: str) -> list[Markup]:
    """Show a table and its caption, without the alert: the page begins with it."""
    text = texts.get(f"tables/{name}.md", "")
    shown = [line for line in text.splitlines() if not line.startswith(">")]
    table = Markup('<div class="data">{}</div>').format(convert("\n".join(shown)))
    return [table] if text else []


def fold(title: str, content: list[Markup]) -> list[Markup]:
    """Put content behind a title that opens it."""
    inside = Markup("").join(content)
    opened = Markup("<details><summary>{}</summary>{}</details>").format(title, inside)
    return [opened] if content else []


def show_glossary() -> list[Markup]:
    """Show the glossary without its title, its headings below that of the section."""
    path = Path(GLOSSARY)
    if not path.is_file():
        return []
    _, _, terms = path.read_text(encoding="utf-8").partition("\n")
    return [convert(re.sub("^#", "##", terms, flags=re.MULTILINE))]


def convert(text: str) -> Markup:
    """Convert Markdown to HTML. Links into the glossary stay on the page."""
    local = text.replace(f"{ROOT}{GLOSSARY}", "").replace(ROOT, "")
    return Markup(re.sub(r"<(h[2-4])>(.*?)</\1>", add_anchor, MARKDOWN.render(local)))


def add_anchor(heading: re.Match[str]) -> str:
    tag, text = heading.groups()
    return f'<{tag} id="{make_anchor(text)}">{text}</{tag}>'
