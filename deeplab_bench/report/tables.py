"""Tables of accuracy: class, object size, boundary, way of inference, CRF, scoring variant."""

import json

import pandas as pd

from deeplab_bench.report import captions, latex, statistics
from deeplab_bench.report.formats import (
    HEADINGS,
    Table,
    find_best,
    format_cells,
    format_changes,
    format_csv,
    mark_none,
    merge_interval,
    put_in_brackets,
    render_formats,
)
from deeplab_bench.report.marks import MARKS, mark_models
from deeplab_bench.report.results import ReportError, Results
from deeplab_bench.report.summaries import (
    NEAR_BOUNDARIES,
    average_classes,
    average_near_boundaries,
    collect_losses,
    collect_validation,
    summarise,
    summarise_all_miou,
)
from deeplab_bench.results.files import RESULTS
from deeplab_bench.results.records import SIZES
from deeplab_bench.settings.params import Params

OF_OTHERS = "label files"  # in place of an architecture
BEST_NEAR_BOUNDARIES = {"miou_mean", *NEAR_BOUNDARIES}
SIZE_COLUMNS = [f"miou_{size}" for size in SIZES]
GAIN_INTERVAL = ["gain_low", "gain_high"]
# Published code whose rule of scoring a variant is, by its source; of the others, none is known.
AS_IN = {
    "protocol": "FCN, mmseg, deeplab-pytorch",
    "resized_labels": "torchvision (to a short side of 520)",
    "centre_crop": "VainF's DeepLabV3+ with crop_val (after a resize)",
    "mean_of_images_absent_zero": "torchmetrics 1.6 MeanIoU",
    "absent_zero": "HRNet, semseg",
    "present_in_truth": "Detectron2",
}


def render(results: Results) -> dict[str, str]:
    """Return the tables of accuracy and the numbers for DVC, by file name."""
    tables = {
        "accuracy": build_accuracy(results),
        "per_class": build_per_class(results),
        "object_size": build_object_size(results),
        "boundaries": build_boundaries(results),
    }
    if results.runs[0].context_radius:
        tables["context_radius"] = build_context_radius(results)
    if results.inferences:
        tables["inference"] = build_inference(results)
    if results.crf_runs:
        tables["crf"] = build_crf(results)
    if results.audits or results.label_files:
        tables["protocol_audit"] = build_protocol_audit(results)
    files = {"metrics.json": format_metrics(results)}
    files["tables/training_curves.csv"] = format_csv(collect_losses(results))
    if results.curves:
        files["tables/validation_curves.csv"] = format_csv(collect_validation(results))
    for name, table in tables.items():
        files |= render_formats(table, name, results)
    return files


def build_accuracy(results: Results) -> Table:
    data = collect_accuracy(results)
    text = arrange_accuracy(format_cells(data), results.undecided_because)
    title = f"Accuracy on the profile {results.profile}"
    best = find_best(data, text.columns)
    return Table(title, data, text, best, captions.describe_accuracy(results))


def arrange_accuracy(text: pd.DataFrame, undecided_because: str = "") -> pd.DataFrame:
    """Merge the formatted columns that are read together, and leave out those of the marks."""
    text = merge_interval(text)
    ends = text["rank_low"] + " to " + text["rank_high"]
    ranked = text["rank"] + " (" + (undecided_because or ends) + ")"
    text["rank"] = ranked.where(text["rank"] != "", "")
    both = text["output_stride"] + "/" + text["eval_output_stride"]
    text["output_stride"] = both.where(text["output_stride"] != "", "")
    text = text.drop(columns=["eval_output_stride", "rank_low", "rank_high", *MARKS])
    return text.rename(columns={"output_stride": "output_strides"})


def collect_accuracy(results: Results) -> pd.DataFrame:
    """Return a row for each model, with every column of the CSV file.

    Models of others have no rank: the seeds of their networks are unknown.
    """
    runs = {run.model: run for run in results.runs}
    scores = results.all_scores()
    miou = summarise_all_miou(results).rename(columns={"mean": "miou_mean", "std": "miou_std"})
    ranks = statistics.rank_models(miou.loc[list(runs), "miou_mean"], results.compared)
    means = scores.groupby("model", sort=False).mean()
    columns = {
        "architecture": dict.fromkeys(miou.index, OF_OTHERS)
        | {model: run.architecture for model, run in runs.items()},
        "seeds": scores.groupby("model", sort=False).size(),
        "params_m": {model: run.parameters / 1e6 for model, run in runs.items()},
        **collect_output_strides(results),
        **collect_gflops(results),
        **miou,
        **ranks.reindex(miou.index).astype("Int64"),
        "pixel_accuracy_mean": means["pixel_accuracy"],
        **means[SIZE_COLUMNS],
        **{mark: dict.fromkeys(miou.index, "") | found for mark, found in results.warnings.items()},
    }
    return pd.DataFrame(columns, index=miou.index).reset_index(names="model")


def collect_output_strides(results: Results) -> dict[str, dict[str, str]]:
    """Return the output strides of training and of the plain way of inference, by model.

    Those of two phases of training are separated by a comma. An architecture without this argument
    has none.
    """
    experiments = {m: results.params.experiment(results.profile, m) for m in results.models}
    trained = {
        model: [str(phase.arguments.get("output_stride", "")) for phase in experiment.phases]
        for model, experiment in experiments.items()
    }
    return {
        "output_stride": {m: ", ".join(dict.fromkeys(strides)) for m, strides in trained.items()},
        "eval_output_stride": {model: strides[-1] for model, strides in trained.items()},
    }


def collect_gflops(results: Results) -> dict[str, dict[str, float]]:
    """Return the GFLOPs of one image by model, at the stride of the accuracy; none if not timed."""
    gflops = {speed.model: speed.trained.flops / 1e9 for speed in results.speeds}
    return {"gflops": gflops} if gflops else {}


def build_per_class(results: Results) -> Table:
    means = average_classes(results, results.all_scores())
    data = means.reset_index(names="model")
    best = find_best(data, data.columns, highest=means.columns)
    title = f"IoU by class on the profile {results.profile}"
    caption = captions.describe_per_class(results)
    return Table(title, data, format_cells(data), best, caption, results.runs[0].classes)


def build_object_size(results: Results) -> Table:
    """Build the mIoU of each model near small, medium and large objects, with intervals."""
    scores = results.all_scores()
    by_size = [
        summarise(scores, column)
        .add_prefix(f"{column}_")
        .rename(columns={f"{column}_mean": column})
        for column in SIZE_COLUMNS
    ]
    data = pd.concat(by_size, axis="columns").reset_index(names="model")
    text = format_cells(data)
    for column in SIZE_COLUMNS:
        text = put_in_brackets(text, column, f"{column}_ci95_low", f"{column}_ci95_high")
    text = text[["model", *SIZE_COLUMNS]]
    title = f"mIoU by size of the objects on the profile {results.profile}"
    best = find_best(data, text.columns)
    return Table(title, data, text, best, captions.describe_object_size(results))


def build_boundaries(results: Results) -> Table:
    """Build mIoU within each width of the true boundaries, and boundary IoU."""
    miou = summarise_all_miou(results).rename(columns={"mean": "miou_mean", "std": "miou_std"})
    near = average_near_boundaries(results.all_scores())
    data = miou.join(near).reset_index(names="model")
    text = merge_interval(format_cells(data))
    best = find_best(data, text.columns, highest=BEST_NEAR_BOUNDARIES)
    title = f"Accuracy near boundaries on the profile {results.profile}"
    return Table(title, data, text, best, captions.describe_boundaries(results))


def build_context_radius(results: Results) -> Table:
    """Build the accuracy of pixels by the context that they need, mean over seeds."""
    means = results.radius_scores().pivot_table("accuracy", "model", "largest_px", sort=False)
    columns = means.rename(columns="radius_{}_px".format).rename_axis(columns=None)
    data = columns.reset_index(names="model")
    best = find_best(data, data.columns, highest=data.columns[1:])
    title = f"Accuracy by context radius on the profile {results.profile}"
    return Table(title, data, format_cells(data), best, captions.describe_context_radius(results))


def build_protocol_audit(results: Results) -> Table:
    """Build a row for each audited model and scoring variant: mIoU, and gain over the protocol."""
    scores, by = results.audit_scores(), ["model", "variant"]
    miou, gain = summarise(scores, "miou", by), summarise(scores, "gain", by)
    data = miou[["mean"]].rename(columns={"mean": "miou_mean"})
    data[["gain", *GAIN_INTERVAL]] = gain.drop(columns="std")
    data = data.reset_index()
    data["as_in"] = data["variant"].map(AS_IN).fillna("")
    text = format_cells(data)
    gains = put_in_brackets(format_changes(data[["gain", *GAIN_INTERVAL]]), "gain", *GAIN_INTERVAL)
    shown = gains["gain"].where(data["variant"] != "protocol", "")
    text["gain"] = shown.where(data["miou_mean"].notna(), "not applicable")
    text = text.drop(columns=GAIN_INTERVAL)
    title = f"Scoring variants on the profile {results.profile}"
    best = mark_none(data, text.columns)
    return Table(title, data, text, best, captions.describe_protocol_audit(results))


def build_inference(results: Results) -> Table:
    """Build a row for each way of inference and model: mIoU, and gain over one pass."""
    by = ["inference", "model"]
    plain = results.scores().set_index(["model", "seed"])["miou"]
    scores = results.inference_scores().set_index(["model", "seed"])
    scores["gain"] = scores["miou"] - plain
    resampled = results.resampled_inferences
    gained = resampled.sub(results.resampled, axis="columns", level="model")
    miou, gain = (
        summarise(scores, column, by, statistics.estimate_over_images(varied, results.group_count))
        for column, varied in (("miou", resampled), ("gain", gained))
    )
    data = miou.rename(columns={"mean": "miou_mean"}).drop(columns="std")
    data[["gain", *GAIN_INTERVAL]] = gain.drop(columns="std")
    data = data.reset_index()
    settings = [describe_inference(results, *row) for row in data[by].to_numpy()]
    data.insert(2, "settings", settings)
    text = format_cells(data)
    for value, low, high in (("miou_mean", "ci95_low", "ci95_high"), ("gain", *GAIN_INTERVAL)):
        text = put_in_brackets(text, value, low, high)
    title = f"Ways of inference on the profile {results.profile}"
    best = find_best(data, text.columns)
    return Table(title, data, text, best, captions.describe_inference(results))


def describe_inference(results: Results, name: str, model: str) -> str:
    """Describe the settings of a way of inference."""
    settings = results.params.inference[name]
    arguments = results.params.experiment(results.profile, model).arguments_at(
        settings.output_stride
    )
    stride = [f"output_stride {arguments['output_stride']}"] if "output_stride" in arguments else []
    scales = ", ".join(f"{scale:g}" for scale in settings.scales)
    return ", ".join([*stride, f"scales {scales}", *(["flip"] if settings.flip else [])])


def build_crf(results: Results) -> Table:
    data = collect_crf(results)
    text, several = merge_interval(format_cells(data)), data["miou_std"].notna()
    gain = format_changes(data[["gain_mean", "gain_ci95_low", "gain_ci95_high"]])
    low_to_high = " (" + gain["gain_ci95_low"] + " to " + gain["gain_ci95_high"] + ")"
    shown = gain["gain_mean"] + low_to_high.where(several, "")
    text["gain_mean"] = shown.where(data["iteration"] > 0, "")
    text = text.drop(columns=["gain_ci95_low", "gain_ci95_high"])
    text = text.rename(columns={"interval": "interval_over_seeds"})
    models = [part for _, part in data.groupby("model", sort=False)]
    best = pd.concat(
        [find_best(part, text.columns, highest=BEST_NEAR_BOUNDARIES) for part in models]
    )
    title = f"Fully connected CRF on the profile {results.profile}"
    return Table(title, data, text, best, captions.describe_crf(results))


def collect_crf(results: Results) -> pd.DataFrame:
    """Return a row for each model and iteration."""
    scores, by = results.crf_scores(), ["model", "iteration"]
    miou = summarise(scores, "miou", by).rename(columns={"mean": "miou_mean", "std": "miou_std"})
    gain = summarise(scores, "gain", by).drop(columns="std").add_prefix("gain_")
    groups = scores.groupby(by, sort=False)
    near = groups[NEAR_BOUNDARIES].mean()
    data = groups.size().to_frame("seeds").join([miou, gain, near])
    return data.reset_index()


def format_metrics(results: Results) -> str:
    """Format JSON for ``dvc metrics``, which ignores lists and nulls."""
    miou = summarise_all_miou(results).drop(columns="std").rename(columns={"mean": "miou"})
    rows = (miou / 100).round(6).iterrows()
    return json.dumps({model: row.dropna().to_dict() for model, row in rows}, indent=2) + "\n"


def format_accuracy(params: Params, profile: str) -> str:
    """Format the table of accuracy for a terminal: the columns that LaTeX has.

    Raises:
        ReportError: the table is missing, or shows other models than ``params`` declares.
    """
    path = RESULTS / profile / "tables" / "accuracy.csv"
    if not path.is_file():
        raise ReportError(f"{path} is missing: run `dvc repro`")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(table["model"]) != (*params.run.models, *params.run.label_files):
        raise ReportError(f"{path} does not show the models of params.yaml: run `dvc repro`")
    table = table.reindex(columns=[*table, *(MARKS.keys() - set(table))], fill_value="")
    found = {m: dict(table.loc[table[m] != "", ["model", m]].values) for m in MARKS}
    marks = mark_models(profile, found)
    table["model"] = [marks.add_to(model) for model in table["model"]]
    kept = arrange_accuracy(table).drop(columns=latex.LEFT_OUT["accuracy"], errors="ignore")
    headings = HEADINGS | latex.SHORT | {"pixel_accuracy_mean": "Pixels (%)"}
    text = kept.rename(columns=headings).to_markdown(
        index=False,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(kept.columns) - 1)),
    )
    folder, seeds = path.parents[1], ", ".join(table["seeds"].unique())
    notes = f"{marks.describe()}. " if marks else ""
    return (
        f"{folder}: scores in percent, seeds: {seeds}\n\n{text}\n\n"
        f"{notes}All columns: {folder / 'README.md'}\n"
    )
