"""Tables as CSV, Markdown and LaTeX; ``python -m deeplab_bench.report.tables`` prints one."""

import argparse
import json
import math
import sys
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.measures.boundaries import TRIMAP_WIDTHS
from deeplab_bench.report import captions as notes
from deeplab_bench.report import statistics
from deeplab_bench.report.plausibility import implausible, marked
from deeplab_bench.report.results import SIZES, Quartiles, ReportError, Results
from deeplab_bench.report.statistics import Source
from deeplab_bench.results.files import RESULTS
from deeplab_bench.settings.params import Params, load_params

TRIMAPS = {f"trimap_{width}_px": width for width in TRIMAP_WIDTHS}
HEADINGS = {
    "model": "Model",
    "other": "Over",
    "architecture": "Architecture",
    "seeds": "Seeds",
    "hardware": "Hardware",
    "input": "Input (px)",
    "params_m": "Parameters (M)",
    "gflops": "GFLOPs",
    "miou_mean": "mIoU (%)",
    "inference": "Inference",
    "settings": "Settings",
    "gain": "Gain (points)",
    "interval": "95 % interval",
    "interval_over_seeds": "95 % over seeds",
    "rank": "Rank",
    "pixel_accuracy_mean": "Pixel accuracy (%)",
    "boundary_miou": "Boundary IoU (%)",
    "rule": "Rule",
    **{f"miou_{size}": f"{size.capitalize()} (%)" for size in SIZES},
    "iteration": "Iteration",
    "gain_mean": "Beyond the network",
    **{trimap: f"Within {width} px (%)" for trimap, width in TRIMAPS.items()},
    "latency_p50_ms": "Latency, p50 (ms)",
    "latency_p90_ms": "p90 (ms)",
    "latency_p99_ms": "p99 (ms)",
    "latency_relative": "Latency (reference)",
    "output_stride": "Output stride",
    "images_per_second": "Images/s",
    "batch_size": "Batch",
    "peak_memory_mib": "Peak memory (MiB)",
    "field_px": "Theoretical (px)",
    "field_stride_px": "Stride (px)",
    "field_share": "Seen (%)",
    "effective_before_px": "Effective, before (px)",
    "effective_after_px": "Effective, after (px)",
    "effective_share": "Effective, after (%)",
    "half_before_px": "Half, before (px)",
    "half_after_px": "Half, after (px)",
    "crf_seconds": "CRF (s)",
    "crop": "Crop (px)",
    "precision": "Precision",
    "step_ms": "Step (ms)",
    "step_relative": "Step (reference)",
    "paper": "Paper",
    "row": "Row",
    "published": "Published (%)",
    "published_difference": "Published (points)",
    "difference": "Difference (points)",
    "p_value": "p",
    "p_holm": "p (Holm)",
    "verdict": "Verdict",
    "ordering": "Ordering",
    "reason": "Because of",
}
HIGHEST = {"miou_mean", "pixel_accuracy_mean", *(f"miou_{s}" for s in SIZES), "images_per_second"}
NEAR_BOUNDARIES = [*TRIMAPS, "boundary_miou"]
BOUNDARY_HIGHEST = {"miou_mean", *NEAR_BOUNDARIES}
LOWEST = {"latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_relative"}
LOWEST |= {"step_ms", "step_relative"}
GAIN_INTERVAL = ("gain_low", "gain_high")
DECIMALS = {
    "params_m": 3,
    "gflops": 3,
    "loss": 5,
    "field_px": 0,
    "crf_seconds": 3,
    "p_value": 5,
    "p_holm": 5,
}
LATEX = str.maketrans({character: f"\\{character}" for character in "_%&#${}"})


@dataclass(frozen=True)
class Table:
    """``data`` for machines; ``text`` for people, bold where ``best``, a ``note`` beneath."""

    title: str
    data: pd.DataFrame
    text: pd.DataFrame
    best: pd.DataFrame
    note: str


def render(results: Results) -> dict[str, str]:
    """Every table of a profile, by file name."""
    tables = {
        "accuracy": accuracy(results),
        "per_class": per_class(results),
        "object_size": object_size(results),
        "boundaries": boundaries(results),
    }
    if results.inferences:
        tables["inference"] = inference(results)
    if results.speeds:
        tables["speed"] = speed(results)
    if any(speed.training for speed in results.speeds):
        tables["training_speed"] = training_speed(results)
    if results.crf_runs:
        tables["crf"] = crf(results)
    if results.audits:
        tables["protocol_audit"] = protocol_audit(results)
    files = {"metrics.json": metrics_json(results)}
    files["tables/training_curves.csv"] = csv(history(results))
    for name, table in tables.items():
        files |= files_of(table, name, results)
    return files


def with_marks(table: Table, results: Results) -> Table:
    """The table with its implausible models marked, and the reasons beneath."""
    found, text = implausible(results), table.text.copy()
    for column in text.columns.intersection(["model", "other"]):
        text[column] = [marked(name, found) for name in text[column]]
    return replace(table, text=text, note=notes.joined(table.note, notes.implausible(found)))


def files_of(table: Table, name: str, results: Results) -> dict[str, str]:
    """A table in every format, by file name, its implausible models marked."""
    table = with_marks(table, results)
    return {
        f"tables/{name}.csv": csv(table.data),
        f"tables/{name}.md": markdown(table),
        f"tables/{name}.tex": latex(table, f"tab:{results.profile}-{name}"),
    }


def summarise(
    scores: pd.DataFrame,
    column: str,
    by: str | list[str] = "model",
    over_images: Mapping[Hashable, Source] | None = None,
) -> pd.DataFrame:
    """Per model, or group of ``by``: ``mean``, ``std`` and the 95 % interval of the mean.

    The interval is over seeds and, where ``over_images`` says how the means vary with them, images.
    """
    images = over_images or {}
    seeds = scores.groupby(by, sort=False)[column]
    rows = [
        statistics.estimate(group.dropna(), *([images[name]] if name in images else []))
        for name, group in seeds
    ]
    columns = ["mean", "std", "ci95_low", "ci95_high"]
    return pd.DataFrame(rows, index=seeds.size().index, columns=columns)


def summarise_miou(results: Results) -> pd.DataFrame:
    """mIoU per model in percent, its interval over seeds and images."""
    over_images = statistics.over_images(results.resampled, results.images)
    return summarise(results.scores(), "miou", over_images=over_images)


def accuracy(results: Results) -> Table:
    data = accuracy_data(results)
    text = formatted(data)
    text = with_interval(text)
    text["rank"] += " (" + text["rank_low"] + " to " + text["rank_high"] + ")"
    text = text.drop(columns=["rank_low", "rank_high", "implausible"])
    title = f"Accuracy on the profile {results.profile}"
    return Table(title, data, text, best_of(data, text.columns), notes.accuracy(results))


def accuracy_data(results: Results) -> pd.DataFrame:
    runs = {run.model: run for run in results.runs}
    scores = results.scores()
    miou = summarise_miou(results).rename(columns={"mean": "miou_mean", "std": "miou_std"})
    means = scores.groupby("model", sort=False).mean()
    columns = {
        "architecture": {model: run.architecture for model, run in runs.items()},
        "seeds": scores.groupby("model", sort=False).size(),
        "params_m": {model: run.parameters / 1e6 for model, run in runs.items()},
        **miou,
        **statistics.ranks(miou["miou_mean"], results.compared),
        "pixel_accuracy_mean": means["pixel_accuracy"],
        **{f"miou_{size}": means[f"miou_{size}"] for size in SIZES},
        "implausible": dict.fromkeys(miou.index, "") | implausible(results),
    }
    return pd.DataFrame(columns, index=miou.index).reset_index(names="model")


def with_interval(text: pd.DataFrame) -> pd.DataFrame:
    """Of formatted columns: mean and standard deviation in one, both ends in another."""
    spread = (" ± " + text["miou_std"]).where(text["miou_std"] != "", "")
    shown = text.assign(miou_mean=text["miou_mean"] + spread, miou_std=interval_text(text))
    return shown.drop(columns=["ci95_low", "ci95_high"]).rename(columns={"miou_std": "interval"})


def interval_text(text: pd.DataFrame) -> "pd.Series[str]":
    """Both ends, of formatted columns; nothing where they are empty."""
    return (text["ci95_low"] + " to " + text["ci95_high"]).where(text["ci95_low"] != "", "")


def per_class(results: Results) -> Table:
    means = class_means(results)
    data = means.reset_index(names="model")
    best = best_of(data, data.columns, highest=means.columns)
    title = f"IoU by class on the profile {results.profile}"
    return Table(title, data, formatted(data), best, notes.per_class(results))


def class_means(results: Results) -> pd.DataFrame:
    """IoU in percent, (model, class), NaN for a class that no run of the model could score."""
    names = {f"iou_{name}": name for name in results.runs[0].classes}
    means = results.scores().groupby("model", sort=False)[list(names)].mean()
    return means.rename(columns=names)


def object_size(results: Results) -> Table:
    """mIoU of every model near small, medium and large objects, each with its interval."""
    scores = results.scores()
    columns = [f"miou_{size}" for size in SIZES]
    by_size = [
        summarise(scores, column)
        .add_prefix(f"{column}_")
        .rename(columns={f"{column}_mean": column})
        for column in columns
    ]
    data = pd.concat(by_size, axis="columns").reset_index(names="model")
    text = formatted(data)
    for column in columns:
        low, high = f"{column}_ci95_low", f"{column}_ci95_high"
        interval = " [" + text[low] + ", " + text[high] + "]"
        text[column] += interval.where(data[low].notna(), "")
    text = text[["model", *columns]]
    title = f"mIoU by size of the objects on the profile {results.profile}"
    return Table(title, data, text, best_of(data, text.columns), notes.object_size(results))


def near_boundaries(scores: pd.DataFrame) -> pd.DataFrame:
    """mIoU within each width and boundary IoU by model, in percent, mean over seeds."""
    return scores.groupby("model", sort=False)[NEAR_BOUNDARIES].mean()


def boundaries(results: Results) -> Table:
    """mIoU within so many pixels of the ground truth's boundaries, and boundary IoU."""
    miou = summarise_miou(results).rename(columns={"mean": "miou_mean", "std": "miou_std"})
    data = miou.join(near_boundaries(results.scores())).reset_index(names="model")
    text = with_interval(formatted(data))
    best = best_of(data, text.columns, highest=BOUNDARY_HIGHEST)
    title = f"Accuracy near boundaries on the profile {results.profile}"
    return Table(title, data, text, best, notes.boundaries(results))


def protocol_audit(results: Results) -> Table:
    """A row per audited model and rule: its mIoU, and what it adds to the protocol's."""
    scores, by = results.audit_scores(), ["model", "rule"]
    miou, gain = summarise(scores, "miou", by), summarise(scores, "gain", by)
    data = miou[["mean"]].rename(columns={"mean": "miou_mean"})
    data[["gain", "gain_low", "gain_high"]] = gain.drop(columns="std")
    data = data.reset_index()
    text = formatted(data)
    changes = data[["gain", *GAIN_INTERVAL]].map("{:+.2f}".format)
    interval = " [" + changes["gain_low"] + ", " + changes["gain_high"] + "]"
    shown = changes["gain"] + interval.where(data["gain_low"].notna(), "")
    text["gain"] = shown.where(data["rule"] != "protocol", "").where(
        data["miou_mean"].notna(), "not applicable"
    )
    text = text.drop(columns=[*GAIN_INTERVAL])
    title = f"Scores by other rules on the profile {results.profile}"
    best = pd.DataFrame(False, index=data.index, columns=text.columns)
    return Table(title, data, text, best, notes.protocol_audit(results))


def inference(results: Results) -> Table:
    """Every model under every declared way of inference, and what that gains over one pass."""
    by = ["inference", "model"]
    plain = results.scores().set_index(["model", "seed"])["miou"]
    scores = results.inference_scores().set_index(["model", "seed"])
    scores["gain"] = scores["miou"] - plain
    resampled = results.resampled_inferences
    gained = resampled.sub(results.resampled, axis="columns", level="model")
    miou, gain = (
        summarise(scores, column, by, statistics.over_images(varied, results.images))
        for column, varied in (("miou", resampled), ("gain", gained))
    )
    data = miou.rename(columns={"mean": "miou_mean"}).drop(columns="std")
    data[["gain", "gain_low", "gain_high"]] = gain.drop(columns="std")
    data = data.reset_index()
    data.insert(2, "settings", [inference_settings(results, *row) for row in data[by].to_numpy()])
    text = formatted(data)
    for value, low, high in (("miou_mean", "ci95_low", "ci95_high"), ("gain", *GAIN_INTERVAL)):
        text[value] += (" [" + text[low] + ", " + text[high] + "]").where(data[low].notna(), "")
        text = text.drop(columns=[low, high])
    title = f"Ways of inference on the profile {results.profile}"
    return Table(title, data, text, best_of(data, text.columns), notes.inference(results))


def inference_settings(results: Results, name: str, model: str) -> str:
    settings = results.params.inference[name]
    arguments = results.params.experiment(results.profile, model).arguments_for(settings)
    scales = ", ".join(f"{scale:g}" for scale in settings.scales)
    mirrored = ", flip" if settings.flip else ""
    return f"output_stride {arguments['output_stride']}, scales {scales}{mirrored}"


def speed(results: Results) -> Table:
    """A row per model and output stride; throughput and CRF are of the training's, the first."""
    crf_seconds = crf_seconds_per_image(results)
    rows = [
        {
            "model": speed.model,
            "hardware": speed.hardware,
            "input": pixels(speed.input_size),
            "output_stride": str(cost.output_stride or ""),
            "params_m": cost.parameters / 1e6,
            "gflops": cost.flops / 1e9,
            "latency_p50_ms": cost.latency_ms.p50,
            "latency_p90_ms": cost.latency_ms.p90,
            "latency_p99_ms": cost.latency_ms.p99,
            **with_quartiles("latency_relative", cost.relative_latency),
            "images_per_second": max(speed.images_per_second.values()) if is_trained else math.nan,
            "batch_size": speed.best_batch if is_trained else "",
            "peak_memory_mib": cost.peak_memory_mib,
            "crf_seconds": crf_seconds.get(speed.model, math.nan) if is_trained else math.nan,
        }
        for speed in results.speeds
        for cost, is_trained in [(cost, cost is speed.trained) for cost in speed.output_strides]
    ]
    data = pd.DataFrame(rows)
    if not crf_seconds:
        data = data.drop(columns="crf_seconds")
    title = f"Speed of inference on the profile {results.profile}"
    return speed_table(title, data, ("latency_relative",), notes.speed(results))


def training_speed(results: Results) -> Table:
    rows = [
        {
            "model": speed.model,
            "hardware": speed.hardware,
            "crop": pixels(training.crop_size),
            "batch_size": str(training.batch_size),
            "precision": training.precision,
            **with_quartiles("step_ms", training.step_ms),
            **with_quartiles("step_relative", training.relative_step),
            "images_per_second": training.images_per_second,
            "peak_memory_mib": training.peak_memory_mib,
        }
        for speed in results.speeds
        if (training := speed.training) is not None
    ]
    title = f"Speed of training on the profile {results.profile}"
    spread = ("step_ms", "step_relative")
    return speed_table(title, pd.DataFrame(rows), spread, notes.training_speed(results))


def speed_table(title: str, data: pd.DataFrame, spread: Collection[str], note: str) -> Table:
    """Quartiles of the columns ``spread`` go into brackets; the best is that of each hardware."""
    text = formatted(data)
    for column in spread:
        low, high = f"{column}_p25", f"{column}_p75"
        text[column] += " [" + text[low] + ", " + text[high] + "]"
        text = text.drop(columns=[low, high])
    groups = [part for _, part in data.groupby("hardware", sort=False)]
    best = pd.concat([best_of(part, text.columns) for part in groups])
    return Table(title, data, text, best, note)


def with_quartiles(name: str, found: Quartiles) -> dict[str, float]:
    return {name: found.p50, f"{name}_p25": found.p25, f"{name}_p75": found.p75}


def crf_seconds_per_image(results: Results) -> dict[str, float]:
    """By model, the mean over seeds."""
    runs = zip(results.crf_runs, results.crf_timings, strict=True)
    rows = [{"model": run.model, "seconds": timing.seconds_per_image} for run, timing in runs]
    frame = pd.DataFrame(rows, columns=["model", "seconds"])
    return {
        str(model): seconds for model, seconds in frame.groupby("model")["seconds"].mean().items()
    }


def pixels(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def crf(results: Results) -> Table:
    data = crf_data(results)
    text, several = with_interval(formatted(data)), data["miou_std"].notna()
    gain = data[["gain_mean", "gain_ci95_low", "gain_ci95_high"]].map("{:+.2f}".format)
    low_to_high = " (" + gain["gain_ci95_low"] + " to " + gain["gain_ci95_high"] + ")"
    beyond_network = data["iteration"] > 0
    text["gain_mean"] = (gain["gain_mean"] + low_to_high.where(several, "")).where(
        beyond_network, ""
    )
    text = text.drop(columns=["gain_ci95_low", "gain_ci95_high"])
    text = text.rename(columns={"interval": "interval_over_seeds"})
    models = [part for _, part in data.groupby("model", sort=False)]
    best = pd.concat([best_of(part, text.columns, highest=BOUNDARY_HIGHEST) for part in models])
    title = f"Fully connected CRF on the profile {results.profile}"
    return Table(title, data, text, best, notes.crf(results))


def crf_data(results: Results) -> pd.DataFrame:
    """A row per model and iteration."""
    scores, by = results.crf_scores(), ["model", "iteration"]
    miou = summarise(scores, "miou", by).rename(columns={"mean": "miou_mean", "std": "miou_std"})
    gain = summarise(scores, "gain", by).drop(columns="std").add_prefix("gain_")
    groups = scores.groupby(by, sort=False)
    near = groups[NEAR_BOUNDARIES].mean()
    data = groups.size().to_frame("seeds").join([miou, gain, near])
    return data.reset_index()


def history(results: Results) -> pd.DataFrame:
    """A row per logged point: ``model``, ``seed``, ``iteration``, ``loss``."""
    parts = [
        pd.DataFrame({"model": run.model, "seed": run.seed, **run.training.model_dump()})
        for run in results.runs
    ]
    return pd.concat([part.astype({"loss": float}) for part in parts], ignore_index=True)


def metrics_json(results: Results) -> str:
    """For ``dvc metrics``, which passes over lists and nulls."""
    miou = summarise_miou(results).drop(columns="std").rename(columns={"mean": "miou"})
    rows = (miou / 100).round(6).iterrows()
    return json.dumps({model: row.dropna().to_dict() for model, row in rows}, indent=2) + "\n"


def best_of(
    data: pd.DataFrame, shown: Collection[str], highest: Collection[str] = HIGHEST
) -> pd.DataFrame:
    """Which cells are the best of their column as it is printed; none where there is no other."""
    best = pd.DataFrame(False, index=data.index, columns=pd.Index(shown))
    for column in shown if len(data) > 1 else ():
        if column in highest:
            best[column] = data[column].round(2) == data[column].round(2).max()
        elif column in LOWEST:
            best[column] = data[column].round(2) == data[column].round(2).min()
    return best


def formatted(data: pd.DataFrame) -> pd.DataFrame:
    """As strings, decimals by column, NaN as nothing."""
    text = data.astype(str)
    for column in data.select_dtypes("float"):
        digits = DECIMALS.get(str(column), 2)
        text[column] = [f"{x:.{digits}f}" if pd.notna(x) else "" for x in data[column]]
    return text


def csv(data: pd.DataFrame) -> str:
    return formatted(data).to_csv(index=False, lineterminator="\n")


def markdown(table: Table) -> str:
    bold = table.text.mask(table.best, "**" + table.text + "**").rename(columns=HEADINGS)
    lines = bold.to_markdown(index=False, disable_numparse=True, colalign=alignment(table))
    return f"{lines}\n\n{table.note}\n"


def latex(table: Table, label: str) -> str:
    cells = table.text.rename(columns=HEADINGS).map(lambda cell: cell.translate(LATEX))
    cells = cells.mask(table.best.to_numpy(), r"\textbf{" + cells + "}")
    cells.columns = cells.columns.map(lambda name: name.translate(LATEX))
    form = "".join(side[0] for side in alignment(table))
    body = cells.style.hide(axis="index").to_latex(hrules=True, column_format=form)
    return (
        "% \\usepackage{booktabs}\n\\begin{table}\n\\centering\\footnotesize\n"
        f"\\caption{{{table.title.translate(LATEX)}}}\n\\label{{{label}}}\n"
        f"\\setlength{{\\tabcolsep}}{{3pt}}\n{body}\n\\par\\smallskip\n"
        f"{table.note.translate(LATEX)}\n\\end{{table}}\n"
    )


def alignment(table: Table) -> list[str]:
    words = {"model", "other", "architecture", "hardware", "paper", "row", "inference", "settings"}
    words |= {"verdict", "ordering", "reason", "precision", "rule"}
    return ["left" if column in words else "right" for column in table.text]


def accuracy_text(params: Params, profile: str) -> str:
    """The accuracy table for a terminal.

    Raises:
        ReportError: it is not there, or of other models than are declared.
    """
    path = RESULTS / profile / "tables" / "accuracy.csv"
    if not path.is_file():
        raise ReportError(f"{path} is missing: run `dvc repro`")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(table["model"]) != params.run.models:
        raise ReportError(f"{path} is not of the models of params.yaml: run `dvc repro`")
    text = table.to_markdown(index=False, tablefmt="simple", disable_numparse=True)
    return f"{path.parent.parent}: scores in percent\n\n{text}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the accuracy table of each profile.")
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help="default: run.profiles")
    chosen = parser.parse_args().profiles
    try:
        params = load_params()
        print("\n".join(accuracy_text(params, name) for name in chosen or params.run.profiles))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
