"""Figures as SVG and PNG, the same bytes from the same results."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import pairwise
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWNBASE
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from deeplab_bench.report import captions as notes
from deeplab_bench.report.plausibility import MARK, implausible, marked
from deeplab_bench.report.results import SIZES, Cost, Results, Speed
from deeplab_bench.report.samples import DPI, crf_panel, crf_panel_file, panel, panel_file
from deeplab_bench.report.statistics import SIGNIFICANT
from deeplab_bench.report.tables import (
    TRIMAPS,
    class_means,
    history,
    near_boundaries,
    pixels,
    summarise,
    summarise_miou,
)

# Okabe and Ito's colours that stand out from white. With 7 colours, 8 markers and 4 line styles the
# first 56 models look different from each other.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#767676")
MARKERS = "osD^vphX"
LINES = ("-", "--", ":", "-.")
STYLE = {
    "axes.edgecolor": "0.3",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.dpi": 100,
    "figure.titlesize": 10,
    "figure.titleweight": "bold",
    "font.size": 9,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "deeplab-bench",
    "xtick.color": "0.3",
    "xtick.labelcolor": "black",
    "ytick.color": "0.3",
    "ytick.labelcolor": "black",
}
MOST_LABELS = 14
# Where a label may stand: points to the right and up, horizontal and vertical alignment.
PLACES = (
    (7, 0, "left", "center"),
    (7, 7, "left", "bottom"),
    (7, -7, "left", "top"),
    (-7, 0, "right", "center"),
    (-7, 7, "right", "bottom"),
    (-7, -7, "right", "top"),
    (7, 18, "left", "bottom"),
    (7, -18, "left", "top"),
    (-7, 18, "right", "bottom"),
    (-7, -18, "right", "top"),
)


@dataclass(frozen=True)
class Expense:
    """What a model costs: ``range_of`` is from the symbol to the end of a horizontal ``line``."""

    key: str
    name: str
    label: str
    range_of: Callable[[Cost], tuple[float, float]]
    line: str = ""
    of_hardware: bool = True


EXPENSES = (
    Expense(
        "latency",
        "latency",
        "Latency of one image (ms)",
        lambda cost: (cost.latency_ms.p50, cost.latency_ms.p90),
        "symbol: median · horizontal line: to the 90th percentile",
    ),
    Expense(
        "flops",
        "FLOPs",
        "GFLOPs of one image",
        lambda cost: (cost.flops / 1e9,) * 2,
        of_hardware=False,
    ),
    Expense("memory", "memory", "Peak memory (MiB)", lambda cost: (cost.peak_memory_mib,) * 2),
)


def render(results: Results) -> dict[str, bytes]:
    """Every figure of a profile, by file name."""
    figures: dict[str, Callable[[Results], Figure]] = {
        "miou": miou,
        "per_class": per_class,
        "training_curves": training_curves,
        "object_size": object_size,
        "boundaries": boundaries,
    }
    if len(results.models) > 1:
        figures["comparisons"] = comparisons
    if results.runs[0].context_radius:
        figures["context_radius"] = context_radius
    for expense in EXPENSES if results.speeds else ():
        figures[expense.key] = partial(tradeoff, expense=expense)
    files: dict[str, bytes] = {}
    with matplotlib.style.context(STYLE, after_reset=True):
        for name, draw in figures.items():
            files |= files_of(name, partial(draw, results))
        files[panel_file(results)] = encoded(panel(results), "png", dpi=DPI)
        for model in results.params.run.crf:
            slide = crf_panel(results, model)
            files[crf_panel_file(results, model)] = encoded(slide, "png", dpi=DPI)
    return files


def files_of(name: str, draw: Callable[[], Figure]) -> dict[str, bytes]:
    """A figure in both formats, by file name."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = draw()
        return {f"plots/{name}.{suffix}": encoded(figure, suffix) for suffix in ("svg", "png")}


def encoded(figure: Figure, suffix: str, dpi: float = 160) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    figure.savefig(buffer, format=suffix, metadata=metadata, dpi=dpi)
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def look(results: Results, model: str) -> tuple[str, str, str]:
    """A model's colour, marker and line style, the same in every figure and profile."""
    index = list(results.params.models).index(model)
    lines = LINES[index // len(COLOURS) % len(LINES)]
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], lines


def miou(results: Results) -> Figure:
    scores = results.scores()
    summary = summarise_miou(results)
    order = ranking(scores)
    figure = new_figure(6.4, 1.3 + 0.34 * len(order))
    axes = figure.subplots()
    dots(axes, results, scores, "miou", summary.loc[order])
    means = [f"{mean:.1f}" for mean in summary.loc[order, "mean"]]
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(order)), means)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    label = legend_of_dots(results, notes.varied(results))
    label = label.replace("symbol", "symbol and number")
    axes.set(title=f"{results.profile}: mean IoU", xlabel=f"mIoU (%)\n{label}")
    return figure


def object_size(results: Results) -> Figure:
    scores = results.scores()
    order = ranking(scores)
    figure = new_figure(7.6, 1.7 + 0.34 * len(order))
    title = f"{results.profile}: mean IoU by object size (square root of area)"
    figure.suptitle(title, ha="left", x=0.01)
    panels = figure.subplots(1, len(SIZES), sharex=True, sharey=True)
    for axes, size, label in zip(panels, SIZES, size_labels(results), strict=True):
        column = f"miou_{size}"
        dots(axes, results, scores, column, summarise(scores, column).loc[order])
        axes.set_title(label, weight="normal")
        axes.xaxis.set_major_locator(MaxNLocator(4))
    over = "seeds" if len(results.seeds) > 1 else ""
    figure.supxlabel(f"mIoU (%)\n{legend_of_dots(results, over)}", fontsize=9)
    return figure


def ranking(scores: pd.DataFrame) -> list[str]:
    """The models from the lowest to the highest mean mIoU."""
    return list(summarise(scores, "miou").sort_values("mean", kind="stable").index)


def names(results: Results, models: Iterable[str]) -> list[str]:
    """The models with a mark at those that are implausible."""
    found = implausible(results)
    return [marked(model, found) for model in models]


def dots(
    axes: Axes, results: Results, scores: pd.DataFrame, column: str, summary: pd.DataFrame
) -> None:
    """A row per model of ``summary``: each seed's score, their mean and its interval."""
    for position, (model, row) in enumerate(summary.iterrows()):
        colour, marker, _ = look(results, str(model))
        seeds = scores.loc[scores["model"] == model, column]
        axes.plot([row["ci95_low"], row["ci95_high"]], [position] * 2, color=colour, lw=2)
        if len(seeds) > 1:
            axes.plot(seeds, [position + 0.24] * len(seeds), ".", color=colour, ms=4, alpha=0.7)
        axes.plot(row["mean"], position, marker, color=colour, ms=7, mec="white", mew=0.8)
    axes.set_yticks(range(len(summary)), names(results, summary.index))
    axes.set_ylim(-0.6, len(summary) - 0.4)
    axes.grid(axis="y", visible=False)


def legend_of_dots(results: Results, over: str) -> str:
    seeds = len(results.seeds)
    parts = [f"dots: {seeds} seeds", "symbol: mean"] if seeds > 1 else ["symbol: the one seed"]
    parts += [f"line: 95 % interval over {over}"] if over else []
    return " · ".join(parts) + legend_of_marks(results)


def legend_of_marks(results: Results) -> str:
    return f"\n{MARK} implausible" if implausible(results) else ""


def size_labels(results: Results) -> list[str]:
    edges = [f"{edge:.0f}" for edge in results.runs[0].object_size.edges_px]
    if len(edges) != 2:
        return list(SIZES)
    ranges = (f"up to {edges[0]}", f"{edges[0]} to {edges[1]}", f"over {edges[1]}")
    return [f"{size}: {span} px" for size, span in zip(SIZES, ranges, strict=True)]


def per_class(results: Results) -> Figure:
    means = class_means(results).loc[ranking(results.scores())[::-1]]
    means.index = pd.Index(names(results, means.index))
    figure = new_figure(2.6 + 0.58 * means.shape[1], 1.6 + 0.34 * len(means))
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    sns.heatmap(
        means,
        ax=axes,
        annot=True,
        fmt=".1f",
        cmap="cividis",
        linewidths=0.6,
        cbar_kws={"label": "IoU (%)"},
    )
    axes.grid(visible=False)
    axes.tick_params(length=0)
    if max(len(str(name)) for name in means) > 10:
        slant(axes)
    axes.set(title=f"{results.profile}: IoU by class", xlabel="", ylabel="")
    if means.isna().any(axis=None):
        axes.set_xlabel("grey: in neither ground truth nor prediction")
    return figure


def comparisons(results: Results) -> Figure:
    """The upper triangle of differences, each model less those that are lower."""
    compared = results.compared
    order = ranking(results.scores())[::-1]
    marks = np.where(compared["p_holm"] < SIGNIFICANT, "*", "")
    shown = compared.assign(text=compared["difference"].map("{:.1f}".format) + marks)
    differences, texts = (
        shown.pivot(index="model", columns="other", values=column).loc[order[:-1], order[1:]]
        for column in ("difference", "text")
    )
    side = len(order) - 1
    figure = new_figure(2.6 + 0.48 * side, 1.9 + 0.34 * side)
    axes = figure.subplots()
    sns.heatmap(
        differences,
        ax=axes,
        annot=texts.fillna(""),
        fmt="",
        annot_kws={"fontsize": 8},
        cmap="cividis",
        linewidths=0.6,
        cbar_kws={"label": "Difference (points)"},
    )
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_yticks(axes.get_yticks(), names(results, order[:-1]))
    axes.set_xticks(axes.get_xticks(), names(results, order[1:]))
    slant(axes)
    axes.set(title=f"{results.profile}: mIoU of the row's model less the column's", ylabel="")
    significance = f"* differs, p < {SIGNIFICANT} after Holm's correction"
    axes.set_xlabel(significance + legend_of_marks(results))
    return figure


def slant(axes: Axes) -> None:
    """Long labels along the bottom."""
    axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")


def training_curves(results: Results) -> Figure:
    curves = history(results).groupby(["model", "iteration"], sort=False)["loss"]
    band = curves.agg(["mean", "min", "max"])
    columns = legend_columns(results)
    figure = new_figure(5.3 + 1.9 * columns, 3.6 if columns == 1 else 5.4)
    axes = figure.subplots()
    for model in results.models:
        colour, _, line = look(results, model)
        curve = band.loc[model]
        axes.plot(curve.index, curve["mean"], line, color=colour, lw=1.4, label=model)
        axes.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.15, lw=0)
    figure.legend(loc="outside right upper", ncols=columns)
    seeds = len(results.seeds)
    spread = f"\nline: mean of {seeds} seeds · band: lowest to highest" if seeds > 1 else ""
    axes.set_yscale("log")
    axes.yaxis.set(
        major_locator=LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)),
        major_formatter="{x:g}",
        minor_locator=NullLocator(),
    )
    axes.set(title=f"{results.profile}: training loss", ylabel="Cross-entropy")
    axes.set_xlabel(f"Iteration{spread}")
    axes.margins(x=0.01)
    return figure


def boundaries(results: Results) -> Figure:
    """mIoU within each width and boundary IoU, of the networks and after the CRF's iterations."""
    columns = legend_columns(results)
    figure = new_figure(6.8 + 1.9 * columns, 4.2 if columns == 1 else 5.4)
    bands, contours = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    widths = list(TRIMAPS.values())
    networks = near_boundaries(results.scores())
    refined = near_boundaries(results.refined_scores()) if results.crf_runs else networks.head(0)
    for model in results.models:
        colour, marker, line = look(results, model)
        marks: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "lw": 1.4}
        *within, before = networks.loc[model]
        bands.plot(widths, within, ls=line, label=model, **marks)
        contours.plot(0, before, **marks)
        if model in refined.index:
            *within, after = refined.loc[model]
            contours.plot([0, 1], [before, after], color=colour, ls=":", lw=1.4)
            marks |= {"ls": ":", "mfc": "white"}
            bands.plot(widths, within, label=f"{model} + CRF", **marks)
            contours.plot(1, after, **marks)
    log_ticks(bands, widths)
    contours.set_xticks(*((0, 1), ("network", "+ CRF")) if results.crf_runs else ((), ()))
    contours.margins(x=0.3)
    figure.legend(loc="outside right upper", ncols=columns)
    title = f"{results.profile}: mean IoU near boundaries"
    bands.set(title=title, ylabel="mIoU within the band, boundary IoU (%)")
    seeds = len(results.seeds)
    means = f"\nmean of {seeds} seeds" if seeds > 1 else ""
    bands.set_xlabel(f"Width of the band on either side of a boundary (px){means}")
    contours.set_xlabel("Boundary IoU")
    return figure


def context_radius(results: Results) -> Figure:
    """Beside how far each model's effective receptive field reaches: (s - 1) / 2 of a side s."""
    reach = {run.model: (run.effective.after.size_px - 1) / 2 for run in results.fields}
    columns = legend_columns(results)
    figure = new_figure(5.6 + 1.9 * columns, 4.2 if columns == 1 else 5.4)
    axes = figure.subplots()
    accuracy = results.radius_scores().groupby(["model", "largest_px"], sort=False)["accuracy"]
    band = accuracy.agg(["mean", "min", "max"])
    for model in results.models:
        colour, marker, line = look(results, model)
        curve = band.loc[model]
        label = f"{model} ({reach[model]:.0f})" if model in reach else model
        axes.plot(curve.index, curve["mean"], line, color=colour, marker=marker, ms=5, label=label)
        axes.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.1, lw=0)
        if model in reach:
            top = axes.get_xaxis_transform()
            axes.plot(
                reach[model], 1, marker=CARETDOWNBASE, color=colour, transform=top, clip_on=False
            )
    radii = band.index.unique("largest_px")
    log_ticks(axes, list(radii))
    axes.set_xlim(radii[0] / 1.2, radii[-1] * 1.2)
    figure.legend(loc="outside right upper", ncols=columns)
    title = f"{results.profile}: accuracy by the context that a pixel needs"
    axes.set(title=title, ylabel="Pixel accuracy (%)")
    seeds = len(results.seeds)
    spread = f"\nline: mean of {seeds} seeds · band: lowest to highest" if seeds > 1 else ""
    field = "\ntriangle and number: reach of the effective receptive field (px)" if reach else ""
    axes.set_xlabel(f"Context radius, up to (px){spread}{field}")
    return figure


def log_ticks(axes: Axes, values: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def legend_columns(results: Results) -> int:
    return math.ceil(len(results.models) / 20)


def tradeoff(results: Results, expense: Expense) -> Figure:
    """mIoU against what a model costs on every hardware, or on any where that is the same."""
    hardware = results.params.run.hardware[: None if expense.of_hardware else 1]
    summary = summarise_miou(results)
    many = len(results.models) > MOST_LABELS
    columns = legend_columns(results) if many else 0
    figure = new_figure(1.6 + 3.8 * len(hardware) + 1.9 * columns, 5.4 if many else 4.2)
    panels = figure.subplots(1, len(hardware), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, hardware, strict=True):
        speeds = {speed.model: speed for speed in results.speeds if speed.hardware == name}
        tradeoff_points(axes, results, summary, speeds, expense)
        size = pixels(next(iter(speeds.values())).input_size)
        on = f"{name}, " if expense.of_hardware else ""
        axes.set_title(f"{on}{size} px", weight="normal")
    panels[0].set_ylabel("mIoU (%)")
    figure.suptitle(f"{results.profile}: accuracy and {expense.name}", ha="left", x=0.01)
    figure.supxlabel(tradeoff_label(results, expense), fontsize=9)
    if many:
        lines, names = panels[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside right upper", ncols=columns)
        return figure
    figure.draw_without_rendering()
    for axes in panels:
        place_labels(axes)
    return figure


def tradeoff_label(results: Results, expense: Expense) -> str:
    over = notes.varied(results)
    vertical = f"vertical line: 95 % interval over {over}" if over else ""
    front = "dashed: the best at up to that cost"
    return "\n".join(filter(None, (expense.label, expense.line, vertical, front)))


def tradeoff_points(
    axes: Axes,
    results: Results,
    summary: pd.DataFrame,
    speeds: Mapping[str, Speed],
    expense: Expense,
) -> None:
    costs = {model: expense.range_of(speed.trained) for model, speed in speeds.items()}
    for model, (cost, highest) in costs.items():
        colour, marker, _ = look(results, model)
        row = summary.loc[model]
        axes.plot([cost] * 2, [row["ci95_low"], row["ci95_high"]], color=colour, lw=1.4)
        axes.plot([cost, highest], [row["mean"]] * 2, color=colour, lw=1.4)
        axes.plot(cost, row["mean"], marker, color=colour, ms=7, mec="white", mew=0.8, label=model)
    means = summary["mean"].to_dict()
    points = [(cost, means[model]) for model, (cost, _) in costs.items()]
    draw_front(axes, pareto_front(points), max(cost for cost, _ in points))
    axes.margins(x=0.2, y=0.1)


def draw_front(axes: Axes, front: Sequence[tuple[float, float]], most: float) -> None:
    """Steps up to the cost ``most``, a line each, so that labels keep clear of no more than it."""
    style: dict[str, Any] = {"color": "0.55", "ls": "--", "lw": 1, "zorder": 1.5}
    for (cost, score), (next_cost, next_score) in pairwise([*front, (most, front[-1][1])]):
        axes.plot([cost, next_cost], [score] * 2, **style)
        axes.plot([next_cost] * 2, [score, next_score], **style)


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (cost, score) those that none beats at up to their cost, from the cheapest."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def place_labels(axes: Axes) -> None:
    """Name the labelled points of a laid-out figure beside them, where least is covered."""
    points = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    taken = [line.get_window_extent().padded(1) for line in axes.lines]
    for point in points:
        x, y = np.asarray(point.get_xydata())[0]
        label = axes.annotate(
            str(point.get_label()), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=8
        )
        place = min(PLACES, key=lambda place: covered(moved(label, place), taken, axes))
        taken.append(moved(label, place))


def moved(label: Annotation, place: tuple[int, int, str, str]) -> Bbox:
    right, up, side, level = place
    label.xyann = (right, up)
    label.set(ha=side, va=level)
    return label.get_window_extent()


def covered(box: Bbox, taken: list[Bbox], axes: Axes) -> int:
    inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
    return int(box.count_overlaps(taken)) + (0 if inside else 100)
