"""The page of a profile, and the results in the top-level README.

``python -m deeplab_bench.report.page`` rewrites the latter; with ``--check`` it only says whether
that is due.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from deeplab_bench.errors import UserError
from deeplab_bench.report import captions as notes
from deeplab_bench.report.plausibility import MARK, implausible
from deeplab_bench.report.results import ReportError, Results, write
from deeplab_bench.report.samples import crf_panel_file, panel_file
from deeplab_bench.report.tables import summarise_miou
from deeplab_bench.results.files import RESULTS

README = Path("README.md")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
README_PROFILES = ("quick", "camvid")


def render(results: Results, files: Mapping[str, str]) -> str:
    """Markdown, with the tables out of ``files`` and the figures by relative path."""
    hand_written = results.folder / "NOTES.md"
    blocks = [
        f"# Results: {results.profile}",
        summary(results),
        notes.implausible(implausible(results)),
        hand_written.read_text(encoding="utf-8").strip() if hand_written.is_file() else "",
        "## Accuracy",
        figure("miou", "mIoU of every model with its interval"),
        files["tables/accuracy.md"],
        *comparison_blocks(files),
        *paper_blocks(files),
        "## Accuracy by class",
        figure("per_class", "IoU of every model and class"),
        files["tables/per_class.md"],
        "## Accuracy by size of the objects",
        figure("object_size", "mIoU of every model for small, medium and large objects"),
        files["tables/object_size.md"],
        "## Accuracy near boundaries",
        figure("boundaries", "mIoU of every model over the width of the band, and boundary IoU"),
        files["tables/boundaries.md"],
        *context_radius_blocks(results),
        *field_blocks(files),
        *(["## Ways of inference", files["tables/inference.md"]] if results.inferences else []),
        *crf_blocks(results, files),
        *audit_blocks(files),
        *speed_blocks(results, files),
        "## Training",
        figure("training_curves", "training loss of every model"),
        schedule(results),
        "## Samples",
        samples(results),
        "## Files and regeneration",
        regeneration(results),
    ]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def summary(results: Results) -> str:
    miou = summarise_miou(results)
    best = str(miou["mean"].idxmax())
    top = miou.loc[best]
    name = f"`{best}`" + (f" {MARK}" if best in implausible(results) else "")
    interval = (
        f" (95 % interval {top['ci95_low']:.1f} to {top['ci95_high']:.1f})"
        if notes.varied(results)
        else ""
    )
    return (
        f"{count(len(results.models), 'model')}, each trained with {notes.seeds(results)}, under "
        f"one protocol on {data_set(results)}. The highest mean mIoU is that of "
        f"{name}: {top['mean']:.1f} %{interval}."
    )


def data_set(results: Results) -> str:
    return results.params.profile[results.profile].data.describe(notes.images(results))


def speed_blocks(results: Results, files: Mapping[str, str]) -> list[str]:
    if not results.speeds:
        return []
    training = files.get("tables/training_speed.md")
    return [
        "## Speed",
        *(figure(name, f"mIoU against {name}") for name in ("latency", "flops", "memory")),
        files["tables/speed.md"],
        *(["## Speed of training", training] if training else []),
    ]


def comparison_blocks(files: Mapping[str, str]) -> list[str]:
    table = files.get("tables/comparisons.md")
    if table is None:
        return []
    image = figure("comparisons", "differences of mIoU between every two models")
    return ["## Comparisons of every two models", image, table]


def field_blocks(files: Mapping[str, str]) -> list[str]:
    table = files.get("tables/receptive_field.md")
    image = figure("receptive_field", "receptive field of every model, before and after training")
    return ["## Receptive field", image, table] if table else []


def paper_blocks(files: Mapping[str, str]) -> list[str]:
    table = files.get("tables/paper.md")
    return ["## Beside the papers", table] if table else []


def context_radius_blocks(results: Results) -> list[str]:
    note = notes.context_radius(results)
    image = figure("context_radius", "pixel accuracy of every model over the context radius")
    return ["## Accuracy by context radius", image, note] if note else []


def audit_blocks(files: Mapping[str, str]) -> list[str]:
    table = files.get("tables/protocol_audit.md")
    return ["## Other rules of scoring", table] if table else []


def crf_blocks(results: Results, files: Mapping[str, str]) -> list[str]:
    if not results.crf_runs:
        return []
    slides = [crf_slide(results, model) for model in results.params.run.crf]
    return ["## Fully connected CRF", files["tables/crf.md"], *slides]


def crf_slide(results: Results, model: str) -> str:
    if results.generated:
        return figure(f"crf_{model}", f"{model} before and after iterations of the CRF", "png")
    return f"Photographs stay out of the repository: `{crf_panel_file(results, model)}` is local."


def schedule(results: Results) -> str:
    training = results.params.profile[results.profile].training
    height, width = training.crop_size
    low, high = training.random_scale
    rows = {
        "Iterations": training.iterations,
        "Batch": count(training.batch_size, "crop") + f" of {height}x{width} px",
        "Learning rate": f"{training.base_lr:g}, poly policy of power {training.poly_power:g}",
        "Optimiser": f"SGD, momentum {training.momentum:g}, weight decay {training.weight_decay:g}",
        "Augmentation": f"scale {low:g} to {high:g}, random crop"
        + (", horizontal flip" if training.horizontal_flip else ""),
        "Precision": training.precision,
        "Time per run": durations(results),
    }
    table = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["| Setting | Value |", "|:--|:--|", *table]) + "\n\n" + departures(results)


def departures(results: Results) -> str:
    """The models with a schedule of their own."""
    own = {m: results.params.models[m].get("training", {}) for m in results.models}
    return " ".join(
        f"`{model}` departs from it: {', '.join(f'{k} {v}' for k, v in settings.items())}."
        for model, settings in own.items()
        if settings
    )


def durations(results: Results) -> str:
    seconds = [timing.training_seconds for timing in results.timings]
    total = sum(seconds) / 60
    return f"{min(seconds):.0f} to {max(seconds):.0f} s of training, {total:.0f} min in all"


def samples(results: Results) -> str:
    if results.generated:
        return figure("samples", "images, ground truth and every model's prediction", "png")
    return f"Photographs stay out of the repository: `{panel_file(results)}` is made locally."


def regeneration(results: Results) -> str:
    return (
        f"```sh\nmake repro PROFILE={results.profile}\n```\n\n"
        "runs what is missing or out of date and writes this page. Tables are in [tables](tables) "
        "as CSV, Markdown and LaTeX, figures in [plots](plots) as SVG and PNG, each run's scores "
        "in [runs](runs), its times in [timings](timings)."
    )


def figure(name: str, alternative: str, suffix: str = "svg") -> str:
    return f"![{alternative}](plots/{name}.{suffix})"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def update_readme(readme: Path, results: Path) -> None:
    """Put the committed results between the README's markers."""
    write(readme, with_results(readme, results).encode())


def with_results(readme: Path, results: Path) -> str:
    """
    Raises:
        ReportError: the markers or the first profile's table are missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ReportError(f"{readme} needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{excerpts(readme, results)}\n\n{END}{after}"


def excerpts(readme: Path, results: Path) -> str:
    blocks = []
    for profile in README_PROFILES:
        table = results / profile / "tables" / "accuracy.md"
        link = (results / profile).relative_to(readme.parent).as_posix()
        if table.is_file():
            image = f"![mIoU on {profile}]({link}/plots/miou.svg)"
            heading = f"### [{profile}]({link}/README.md)"
            blocks += [heading, image, table.read_text(encoding="utf-8").strip()]
        elif profile == README_PROFILES[0]:
            raise ReportError(f"{table} is missing: run `dvc repro`")
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put the results into the top-level README.")
    parser.add_argument("--check", action="store_true", help="only fail if they are not in it")
    check = parser.parse_args().check
    try:
        stale = with_results(README, RESULTS) != README.read_text(encoding="utf-8")
        if check and stale:
            sys.exit(f"{README} is stale: run `python -m deeplab_bench.report.page`")
        if stale:
            update_readme(README, RESULTS)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
