"""The page of a profile, and the results in the README at the repository's root."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deeplab_bench.report import captions, phrases
from deeplab_bench.report.captions import GLOSSARY
from deeplab_bench.report.formats import ROOT
from deeplab_bench.report.marks import MARKS, find_marks, mark_models
from deeplab_bench.report.results import ReportError, Results, find_outdated
from deeplab_bench.report.samples import name_crf_panel, name_panel
from deeplab_bench.report.tradeoff import list_expenses
from deeplab_bench.results.files import get_notes_file
from deeplab_bench.results.records import EvaluationRecord, read_record
from deeplab_bench.settings.experiment import PRETRAINED
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.training import Training
from deeplab_bench.writing import write_bytes

PAGE_ROOT = "../../"  # from the folder of the page
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
README_PROFILES = ("quick", "voc_animals")
# The figure of a table: the heading of its section, its file, what it shows.
FIGURES = {
    "comparisons": (
        "Comparisons of every two models",
        "comparisons",
        "difference of mIoU between every two models",
    ),
    "per_class": ("Accuracy by class", "per_class", "IoU by class"),
    "object_size": (
        "Accuracy by size of the objects",
        "object_size",
        "mIoU for small, medium and large objects",
    ),
    "boundaries": (
        "Accuracy near boundaries",
        "boundaries",
        "mIoU by width of the band, and boundary IoU",
    ),
    "context_radius": (
        "Accuracy by context radius",
        "context_radius",
        "pixel accuracy by context radius",
    ),
    "receptive_field": (
        "Receptive field",
        "receptive_field",
        "receptive fields before and after training",
    ),
    "speed": ("Accuracy and cost", "latency", "mIoU over latency"),
}
OTHERS = {  # tables that the page links to: their names, and what they have
    "paper": ("Beside the papers", "our runs and the published rows that the models cite"),
    "inference": ("Ways of inference", "mIoU at several scales and with flipped images"),
    "crf": ("Fully connected CRF", "mIoU after each iteration"),
    "protocol_audit": ("Scoring variants", "mIoU by the rules of scoring in published code"),
    "label_files": ("Models of others beside ours", "differences of mIoU"),
    "training_speed": ("Speed of training", "the cost of one step"),
}


def render(results: Results, files: Mapping[str, str], findings: Mapping[str, str]) -> str:
    """Return the page in Markdown: findings, figures, and links to the tables in ``files``."""
    blocks = [
        f"# Results: {results.profile}",
        summarise(results),
        find_marks(results).format_alert(),
        "\n".join(f"- {finding}" for finding in findings.values()),
        f"All terms are explained in the [glossary]({PAGE_ROOT}{GLOSSARY}).",
        *show_notes(results),
        "## Accuracy",
        show_figure("miou", "mean mIoU by model"),
        show_table(files.get("tables/accuracy.md", "")),
        *show_figures(files),
        "## Training",
        *show_learning_curves(results),
        describe_schedule(results),
        "## Samples",
        show_samples(results),
        "## More",
        list_more(results, files),
    ]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def show_notes(results: Results) -> list[str]:
    """Return the first paragraph of the notes, and a link to all of them."""
    path = get_notes_file(results.profile)
    if not path.is_file():
        return []
    first, _, others = path.read_text(encoding="utf-8").strip().partition("\n\n")
    link = f"[All notes](../notes/{path.name}), written by hand."
    return [first, link] if others else [first]


def show_table(table: str) -> str:
    """Return a table of its own file for the page, without the alert: the page begins with it."""
    shown = [line for line in table.splitlines() if not line.startswith(">")]
    return "\n".join(shown).replace(ROOT, PAGE_ROOT)


def show_figures(files: Mapping[str, str]) -> list[str]:
    """Return a section for each table that has a figure: the figure, and a link to the table."""
    blocks = []
    for name, (heading, figure, description) in FIGURES.items():
        if f"tables/{name}.md" in files:
            link = f"[Table](tables/{name}.md)"
            blocks += [f"## {heading}", show_figure(figure, description), link]
    return blocks


def show_figure(name: str, description: str, suffix: str = "svg") -> str:
    return f"![{description}](plots/{name}.{suffix})"


def summarise(results: Results) -> str:
    return (
        f"{count(len(results.models), 'model')}, each trained with "
        f"{phrases.count_seeds(results)}, under one protocol on {describe_data_set(results)}."
    )


def describe_data_set(results: Results) -> str:
    return results.data.describe(phrases.count_images(results))


def show_learning_curves(results: Results) -> list[str]:
    caption = captions.describe_learning_curves(results)
    if caption is None:
        return [show_figure("training_curves", "training loss by model")]
    image = show_figure("training_curves", "training and validation loss and mIoU by model")
    return [image, caption.format_markdown(PAGE_ROOT)]


def describe_schedule(results: Results) -> str:
    training = results.params.profile[results.profile].training
    height, width = training.crop_size
    low, high = training.random_scale
    rows = {
        "Iterations": training.iterations,
        "Batch": count(training.batch_size, "crop") + f" of {height}x{width} px",
        "Learning rate": f"{training.base_lr:g}, {describe_policy(training)}",
        "Optimiser": f"SGD, momentum {training.momentum:g}, weight decay {training.weight_decay:g}",
        "Augmentation": f"scale {low:g} to {high:g}, random crop"
        + (", horizontal flip" if training.horizontal_flip else ""),
        "Precision": training.precision,
        "Start": describe_start(results),
        "Time per run": describe_durations(results),
    }
    table = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["| Setting | Value |", "|:--|:--|", *table]) + "\n\n" + describe_own(results)


def describe_start(results: Results) -> str:
    """Say from which weights the profile's models start."""
    training, pretrained = results.params.profile[results.profile].training, results.pretrained
    names = {"none": "random weights", "imagenet": "ImageNet weights"}
    weights = names.get(training.weights, f"weights of `{training.weights}`")
    if training.weights == PRETRAINED and pretrained is not None:
        weights = (
            f"backbone pretrained once on {pretrained.settings['images']:,} generated images of "
            f"one object each; it names the class of {100 * pretrained.accuracy:.1f} % of "
            f"{pretrained.settings['held_out_images']:,} held-out ones"
        )
    units = "; other residual units begin as identities" if training.zero_init_residual else ""
    return weights + units


def describe_policy(training: Training) -> str:
    warmup = training.warmup_iterations
    after = f", after {count(warmup, 'iteration')} of linear warm-up" if warmup else ""
    return name_policy(training) + after


def name_policy(training: Training) -> str:
    if training.lr_policy == "poly":
        return f"poly policy of power {training.poly_power:g}"
    if training.lr_policy == "step":
        return f"times {training.step_factor:g} every {training.step_iterations} iterations"
    return "fixed"


def describe_own(results: Results) -> str:
    """Return the settings of models whose schedule differs from the profile's."""
    sentences = [
        f"`{model}`{place} has {', '.join(f'{key} {value}' for key, value in own.items())}."
        for model in results.models
        for place, own in list_own_settings(results, model)
    ]
    return " ".join(["Settings that differ:", *sentences]) if sentences else ""


def list_own_settings(results: Results, model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what differs from the profile's schedule in each phase of a model."""
    shared = results.params.profile[results.profile].training.model_dump()
    phases = results.params.experiment(results.profile, model).phases
    for number, phase in enumerate(phases, start=1):
        own = phase.training.model_dump()
        differing = {key: own[key] for key in own if own[key] != shared[key]}
        if differing:
            yield f" in phase {number}" if len(phases) > 1 else "", differing


def describe_durations(results: Results) -> str:
    seconds = [timing.training_seconds for timing in results.timings]
    total = sum(seconds) / 60
    return f"{min(seconds):.0f} to {max(seconds):.0f} s of training, {total:.0f} min in all"


def show_samples(results: Results) -> str:
    if results.generated:
        return show_figure("samples", "images, ground truth and predictions by model", "png")
    return f"Photographs are not published: `{name_panel(results)}` exists locally."


def list_more(results: Results, files: Mapping[str, str]) -> str:
    """List links to what the page does not show, and say how it is made."""
    profile = results.profile
    lines = [
        f"[{title}](tables/{name}.md): {what}"
        for name, (title, what) in OTHERS.items()
        if f"tables/{name}.md" in files
    ]
    if expenses := list_expenses(results)[1:]:  # the first one is shown
        figures = [f"over [{each.name}](plots/{each.key}.svg)" for each in expenses]
        lines.append(f"Accuracy {phrases.join_words(figures)}")
    for model in results.params.run.crf:
        panel = name_crf_panel(results, model)
        shown = f"[Images]({panel})" if results.generated else f"`{panel}` (not published): images"
        lines.append(f"{shown} of `{model}` before and after iterations of the CRF")
    lines += [
        f"[Atrous convolution](plots/atrous.svg). {captions.describe_atrous().text}",
        "All [tables](tables) as CSV, Markdown and LaTeX, all [figures](plots) as SVG and PNG, the "
        "[scores](runs) and [times](timings) of each run",
        f"`make repro PROFILE={profile}` runs what is missing or out of date, and writes this "
        f"page and `results/{profile}/report.html`, one file that is not in git: every finding "
        "with an interactive chart and its table, the notes and the glossary",
    ]
    return "\n".join(f"- {line}" for line in lines)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def update_readme(readme: Path, results: Path) -> None:
    """Put the results in the folder ``results`` between the README's markers.

    Raises:
        ReportError: the markers or the table of the first profile are missing.
    """
    write_bytes(readme, insert_results(readme, results).encode())


def insert_results(readme: Path, results: Path) -> str:
    """Return the README's text with the results of ``README_PROFILES``."""
    if not readme.is_file():
        raise ReportError(f"{readme} is missing: run from the repository's root")
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ReportError(f"{readme} needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{collect_excerpts(readme, results)}\n\n{END}{after}"


def collect_excerpts(readme: Path, results: Path) -> str:
    """Return the table of accuracy of each profile, without the list of its terms."""
    blocks = []
    for profile in README_PROFILES:
        path = results / profile / "tables" / "accuracy.md"
        link = (results / profile).relative_to(readme.parent).as_posix()
        if path.is_file():
            heading = f"### [{profile}]({link}/README.md)"
            table = path.read_text(encoding="utf-8").partition("\n\nTerms: ")[0].strip()
            blocks += [heading, find_new_marks(profile, results, table), table.replace(ROOT, "")]
        elif profile == README_PROFILES[0]:
            raise ReportError(f"{path} is missing: run `dvc repro`")
    return "\n\n".join(filter(None, blocks))


def find_new_marks(profile: str, results: Path, table: str) -> str:
    """Return an alert for models whose code has changed since the table was written."""
    paths = sorted((results / profile / "runs" / "evaluate" / PLAIN).glob("*.json"))
    runs = [read_record(path, EvaluationRecord) for path in paths]
    unmarked = [run for run in runs if f"| {run.model} {MARKS['outdated'].symbol}" not in table]
    codes = [(run.model, run.provenance.code_sha256) for run in unmarked]
    outdated = find_outdated(codes, {run.model: run.architecture for run in runs})
    reasons = {model: ", ".join(stages) for model, stages in outdated.items()}
    return mark_models(profile, {"outdated": reasons}).format_alert()
