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
from deeplab_bench.results.files import get_notes_file
from deeplab_bench.results.records import EvaluationRecord, read_record
from deeplab_bench.settings.experiment import PRETRAINED
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.training import Training
from deeplab_bench.writing import write_bytes

PAGE_ROOT = "../../"  # from the folder of the page
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
README_PROFILES = ("quick", "voc_animals")


def render(results: Results, files: Mapping[str, str], findings: Mapping[str, str]) -> str:
    """Return the page in Markdown: findings, the tables in ``files``, links to the figures."""
    notes = get_notes_file(results.profile)
    blocks = [
        f"# Results: {results.profile}",
        summarise(results),
        find_marks(results).format_alert(),
        "\n".join(f"- {finding}" for finding in findings.values()),
        notes.read_text(encoding="utf-8").strip() if notes.is_file() else "",
        f"All terms are explained in the [glossary]({PAGE_ROOT}{GLOSSARY}).",
        *show_table("Accuracy", "accuracy", files, show_figure("miou", "mean mIoU by model")),
        *show_table(
            "Comparisons of every two models",
            "comparisons",
            files,
            show_figure("comparisons", "difference of mIoU between every two models"),
        ),
        *show_table("Beside the papers", "paper", files),
        *show_table(
            "Accuracy by class", "per_class", files, show_figure("per_class", "IoU by class")
        ),
        *show_table(
            "Accuracy by size of the objects",
            "object_size",
            files,
            show_figure("object_size", "mIoU for small, medium and large objects"),
        ),
        *show_table(
            "Accuracy near boundaries",
            "boundaries",
            files,
            show_figure("boundaries", "mIoU by width of the band, and boundary IoU"),
        ),
        *show_context_radius(results),
        *show_table(
            "Receptive field",
            "receptive_field",
            files,
            show_figure("receptive_field", "receptive fields before and after training"),
        ),
        *show_atrous(),
        *show_table("Ways of inference", "inference", files),
        *show_table("Fully connected CRF", "crf", files),
        *(show_crf_panel(results, model) for model in results.params.run.crf),
        *show_table("Scoring variants", "protocol_audit", files),
        *show_table("Models of others beside ours", "label_files", files),
        *show_table(
            "Speed",
            "speed",
            files,
            *(show_figure(name, f"mIoU over {name}") for name in ("latency", "flops", "memory")),
        ),
        *show_table("Speed of training", "training_speed", files),
        "## Training",
        show_figure("training_curves", "training loss by model"),
        describe_schedule(results),
        "## Samples",
        show_samples(results),
        "## Files and regeneration",
        describe_files(results),
    ]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def show_table(heading: str, name: str, files: Mapping[str, str], *images: str) -> list[str]:
    """Return a section with a table and its figures; empty if there is no such table."""
    table = files.get(f"tables/{name}.md")
    return [f"## {heading}", *images, table.replace(ROOT, PAGE_ROOT)] if table else []


def show_figure(name: str, description: str, suffix: str = "svg") -> str:
    return f"![{description}](plots/{name}.{suffix})"


def summarise(results: Results) -> str:
    return (
        f"{count(len(results.models), 'model')}, each trained with "
        f"{phrases.count_seeds(results)}, under one protocol on {describe_data_set(results)}."
    )


def describe_data_set(results: Results) -> str:
    return results.data.describe(phrases.count_images(results))


def show_context_radius(results: Results) -> list[str]:
    caption = captions.describe_context_radius(results)
    if caption is None:
        return []
    image = show_figure("context_radius", "pixel accuracy by context radius")
    return ["## Accuracy by context radius", image, caption.format_markdown(PAGE_ROOT)]


def show_atrous() -> list[str]:
    image = show_figure("atrous", "a 3x3 kernel at three rates, and its valid weights by rate")
    caption = captions.describe_atrous().format_markdown(PAGE_ROOT)
    return ["## Atrous convolution", image, caption]


def show_crf_panel(results: Results, model: str) -> str:
    if results.generated:
        return show_figure(f"crf_{model}", f"{model} before and after the CRF's iterations", "png")
    return f"Photographs are not published: `{name_crf_panel(results, model)}` exists locally."


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


def describe_files(results: Results) -> str:
    return (
        f"```sh\nmake repro PROFILE={results.profile}\n```\n\n"
        "runs what is missing or out of date and writes this page, and `report.html`: the same "
        "with interactive charts, in one file that is not in git. Tables are in [tables](tables) "
        "as CSV, Markdown and LaTeX, figures in [plots](plots) as SVG and PNG, the scores of each "
        "run in [runs](runs), its times in [timings](timings)."
    )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def update_readme(readme: Path, results: Path) -> None:
    """Put the results in the folder ``results`` between the README's markers.

    Raises:
        ReportError: the markers or the table of the first profile are missing.
    """
    write_bytes(readme, insert_results(readme, results).encode())


def is_readme_current(readme: Path, results: Path) -> bool:
    """Return whether ``update_readme`` would change nothing.

    Raises:
        ReportError: the markers or the table of the first profile are missing.
    """
    return insert_results(readme, results) == readme.read_text(encoding="utf-8")


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
