"""Figures of accuracy and training, and the rendering of every figure of a profile."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.markers import CARETDOWNBASE
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from deeplab_bench.drawing import BACKGROUND, label_classes, make_figure
from deeplab_bench.report import atrous_figure, phrases, receptive_field, tradeoff
from deeplab_bench.report.figures import (
    choose_look,
    count_legend_columns,
    explain_marks,
    render_figure,
    render_panel,
    set_log_ticks,
    slant_labels,
)
from deeplab_bench.report.formats import TRIMAPS
from deeplab_bench.report.marks import find_marks
from deeplab_bench.report.results import Results
from deeplab_bench.report.samples import (
    DPI,
    draw_crf_panel,
    draw_panel,
    name_crf_panel,
    name_panel,
)
from deeplab_bench.report.statistics import SIGNIFICANT, is_significant
from deeplab_bench.report.summaries import (
    average_classes,
    average_near_boundaries,
    chain_curves,
    collect_fits,
    collect_losses,
    collect_validation,
    order_by_miou,
    summarise,
    summarise_all_miou,
    summarise_curves,
)
from deeplab_bench.results.records import SIZES

PANEL_COLUMNS = 4


def render(results: Results) -> dict[str, bytes]:
    """Return every figure of a profile by file name."""
    figures: dict[str, Callable[[Results], Figure]] = {
        "miou": draw_miou,
        "per_class": draw_per_class,
        "training_curves": draw_training_curves,
        "object_size": draw_object_size,
        "boundaries": draw_boundaries,
    }
    if len(results.models) > 1:
        figures["comparisons"] = draw_comparisons
    if results.runs[0].context_radius:
        figures["context_radius"] = draw_context_radius
    files = render_samples(results) if results.has_samples else {}  # first, as one may be missing
    for name, draw in figures.items():
        files |= render_figure(name, partial(draw, results))
    return files | tradeoff.render(results) | atrous_figure.render()


def render_samples(results: Results) -> dict[str, bytes]:
    """Return the figures made from sample pictures."""
    files = {name_panel(results): render_panel(partial(draw_panel, results), DPI)}
    for model in results.params.run.crf:
        draw_crf = partial(draw_crf_panel, results, model)
        files[name_crf_panel(results, model)] = render_panel(draw_crf, DPI)
    return files | receptive_field.render_figure(results)


def draw_miou(results: Results) -> Figure:
    scores = results.all_scores()
    summary = summarise_all_miou(results)
    order = order_by_miou(scores)
    figure = make_figure(6.4, 1.3 + 0.34 * len(order))
    axes = figure.subplots()
    draw_dots(axes, results, scores, "miou", summary.loc[order])
    means = [f"{mean:.1f}" for mean in summary.loc[order, "mean"]]
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(order)), means)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    label = explain_dots(results, phrases.describe_scope(results))
    label = label.replace("symbol", "symbol and number")
    axes.set(title=f"{results.profile}: mean IoU", xlabel=f"mIoU (%)\n{label}")
    return figure


def draw_object_size(results: Results) -> Figure:
    scores = results.all_scores()
    order = order_by_miou(scores)
    figure = make_figure(7.6, 1.7 + 0.34 * len(order))
    title = f"{results.profile}: mean IoU by object size (square root of area)"
    figure.suptitle(title, ha="left", x=0.01)
    panels = figure.subplots(1, len(SIZES), sharex=True, sharey=True)
    for axes, size, label in zip(panels, SIZES, phrases.label_sizes(results), strict=True):
        column = f"miou_{size}"
        draw_dots(axes, results, scores, column, summarise(scores, column).loc[order])
        axes.set_title(label, weight="normal")
        axes.xaxis.set_major_locator(MaxNLocator(4))
    over = "seeds" if len(results.seeds) > 1 else ""
    figure.supxlabel(f"mIoU (%)\n{explain_dots(results, over)}", fontsize=9)
    return figure


def label_models(results: Results, models: Iterable[str]) -> list[str]:
    """Return the models' names with their marks."""
    marks = find_marks(results)
    return [marks.add_to(model) for model in models]


def draw_dots(
    axes: Axes, results: Results, scores: pd.DataFrame, column: str, summary: pd.DataFrame
) -> None:
    """Draw a row for each model of ``summary``: the scores of its seeds, mean and interval."""
    for position, (model, row) in enumerate(summary.iterrows()):
        colour, marker, _ = choose_look(results, str(model))
        seeds = scores.loc[scores["model"] == model, column]
        axes.plot([row["ci95_low"], row["ci95_high"]], [position] * 2, color=colour, lw=2)
        if len(seeds) > 1:
            axes.plot(seeds, [position + 0.24] * len(seeds), ".", color=colour, ms=4, alpha=0.7)
        axes.plot(row["mean"], position, marker, color=colour, ms=7, mec="white", mew=0.8)
    axes.set_yticks(range(len(summary)), label_models(results, summary.index))
    axes.set_ylim(-0.6, len(summary) - 0.4)
    axes.grid(axis="y", visible=False)


def explain_dots(results: Results, over: str) -> str:
    seeds = len(results.seeds)
    parts = [f"dots: {seeds} seeds", "symbol: mean"] if seeds > 1 else ["symbol: the one seed"]
    parts += [f"line: 95 % interval over {over}"] if over else []
    return " · ".join(parts) + explain_marks(find_marks(results))


def draw_per_class(results: Results) -> Figure:
    """Draw the IoU by class; that of the background is high for all, and is left out."""
    scores = results.all_scores()
    means = average_classes(results, scores).loc[order_by_miou(scores)[::-1]]
    means.index = pd.Index(label_models(results, means.index))
    means = means.set_axis(label_classes(results.runs[0].classes), axis="columns")
    few = means.drop(columns=BACKGROUND, errors="ignore")
    without = f", without {BACKGROUND}" if 0 < few.shape[1] < means.shape[1] else ""
    means = few if without else means
    figure = make_figure(2.6 + 0.58 * means.shape[1], 1.6 + 0.34 * len(means))
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
    axes.tick_params(axis="y", labelrotation=0)  # seaborn turns names that seem to overlap
    if max(len(str(name)) for name in means) > 10:
        slant_labels(axes)
    absent = "grey: in neither ground truth nor prediction" if means.isna().any(axis=None) else ""
    label = (absent + explain_marks(find_marks(results))).strip()
    axes.set(title=f"{results.profile}: IoU by class{without}", xlabel=label, ylabel="")
    return figure


def draw_comparisons(results: Results) -> Figure:
    """Draw the difference of every two models: blue where the row's is higher, red where lower."""
    compared = results.compared
    order = list(dict.fromkeys([*compared["model"], *compared["other"]]))  # from the highest mean
    mirrored = compared.rename(columns={"model": "other", "other": "model"})
    mirrored["difference"] *= -1
    both = pd.concat([compared, mirrored])
    largest = both["difference"].max() or 1.0  # the colour of no difference is in the middle
    rounded = both["difference"].map("{:+.1f}".format).replace(["+0.0", "-0.0"], "0.0")
    shown = both.assign(text=rounded + np.where(is_significant(both["p_holm"]), "*", ""))
    differences, texts = (
        shown.pivot(index="model", columns="other", values=column).loc[order, order]
        for column in ("difference", "text")
    )
    figure = make_figure(2.6 + 0.5 * len(order), 2.1 + 0.34 * len(order))
    axes = figure.subplots()
    sns.heatmap(
        differences,
        ax=axes,
        annot=texts.fillna(""),
        fmt="",
        annot_kws={"fontsize": 7.5},
        cmap="RdBu",
        vmin=-largest,
        vmax=largest,
        linewidths=0.6,
        cbar_kws={"label": "Difference (points)"},
    )
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_yticks(axes.get_yticks(), label_models(results, order), rotation=0)
    axes.set_xticks(axes.get_xticks(), label_models(results, order))
    slant_labels(axes)
    title = f"{results.profile}: mIoU of the row's model\nminus the column's"
    undecided = phrases.explain_undecided(results)
    tests = (
        f"not tested: {undecided}"
        if undecided
        else f"* differs, p < {SIGNIFICANT} after Holm's correction"
    )
    axes.set(title=title, xlabel=tests + explain_marks(find_marks(results)), ylabel="")
    return figure


def draw_training_curves(results: Results) -> Figure:
    """Draw the losses and, if there are validation curves, the mIoU below them."""
    columns = min(len(results.models), PANEL_COLUMNS)
    rows = math.ceil(len(results.models) / columns)
    width, height = 1.2 + 2.1 * columns, 1.0 + 1.7 * rows
    if results.curves:
        figure = make_figure(width, 2 * height)
        (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False)
        draw_losses(upper, results, rows, columns)
        draw_validation(lower, results, rows, columns)
        upper.supxlabel("Iteration · dashed: validation loss", fontsize=9)
        images = f"\nvalidation: {phrases.count_curve_images(results)},\nat the end all of them"
    else:
        figure = lower = make_figure(width, height)
        draw_losses(figure, results, rows, columns)
        images = ""
    grey = " · grey: the other models" if len(results.models) > 1 else ""
    below = f"{images}{explain_band(results)}{grey}{explain_marks(find_marks(results))}"
    lower.supxlabel(f"Iteration{below}", fontsize=9)
    return figure


def draw_losses(figure: FigureBase, results: Results, rows: int, columns: int) -> None:
    """Draw the training loss, and dashed the validation loss, if it is known."""
    bands = summarise_curves(collect_losses(results), "loss")
    panels = draw_panels(figure, results, bands, rows, columns)
    first = panels[0]
    first.set_yscale("log")
    first.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 5)),
        major_formatter="{x:g}",
        minor_locator=NullLocator(),
    )
    if results.curves:
        validation = summarise_curves(collect_validation(results), "loss")["mean"]
        for model, axes in zip(results.models, panels, strict=True):
            curve, (colour, *_) = validation.loc[model], choose_look(results, model)
            axes.plot(curve.index, curve, "--", color=colour, lw=1.2)
    else:
        place_fits(results, panels, 0.95, "top")
    figure.suptitle(f"{results.profile}: training loss", ha="left", x=0.01)
    figure.supylabel("Cross-entropy", fontsize=9)


def draw_validation(figure: FigureBase, results: Results, rows: int, columns: int) -> None:
    """Draw the validation mIoU."""
    bands = summarise_curves(collect_validation(results), "miou")
    panels = draw_panels(figure, results, bands, rows, columns)
    panels[0].set_xlim(left=0)
    place_fits(results, panels, 0.05, "bottom")
    figure.suptitle(f"{results.profile}: validation mIoU", ha="left", x=0.01)
    figure.supylabel("mIoU (%)", fontsize=9)


def draw_panels(
    figure: FigureBase, results: Results, bands: pd.DataFrame, rows: int, columns: int
) -> list[Axes]:
    """Draw a panel for each model: its curve, and those of the others in grey."""
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    marks, others = find_marks(results), chain_curves(bands)
    for model, axes in zip(results.models, panels, strict=False):
        colour, _, _ = choose_look(results, model)
        axes.plot(others["iteration"], others["mean"], color="0.8", lw=0.7)
        curve = bands.loc[model]
        axes.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.2, lw=0)
        axes.plot(curve.index, curve["mean"], color=colour, lw=1.4)
        axes.set_title(marks.add_to(model), weight="normal", fontsize=9, loc="center")
        axes.margins(x=0.01)
    panels[0].xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[len(results.models) :]:
        axes.set_visible(False)
    return panels[: len(results.models)]


def place_fits(results: Results, panels: Sequence[Axes], y: float, side: str) -> None:
    for text, axes in zip(collect_fits(results).values(), panels, strict=True):
        axes.text(0.97, y, text, transform=axes.transAxes, ha="right", va=side, size=7.5)


def explain_band(results: Results) -> str:
    seeds = len(results.seeds)
    return f"\nline: mean of {seeds} seeds · band: lowest to highest" if seeds > 1 else ""


def draw_boundaries(results: Results) -> Figure:
    """Draw mIoU within each width, and boundary IoU, without and with the CRF."""
    marks, columns = find_marks(results), count_legend_columns(results)
    figure = make_figure(6.8 + 1.9 * columns, 4.2 if columns == 1 else 5.4)
    bands, contours = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    widths = list(TRIMAPS.values())
    networks = average_near_boundaries(results.scores())
    crf = average_near_boundaries(results.refined_scores()) if results.crf_runs else None
    for model in results.models:
        colour, marker, line = choose_look(results, model)
        style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "lw": 1.4}
        *within, before = networks.loc[model]
        bands.plot(widths, within, ls=line, label=marks.add_to(model), **style)
        contours.plot(0, before, **style)
        if crf is not None and model in crf.index:
            *within, after = crf.loc[model]
            contours.plot([0, 1], [before, after], color=colour, ls=":", lw=1.4)
            style |= {"ls": ":", "mfc": "white"}
            bands.plot(widths, within, label=f"{marks.add_to(model)} + CRF", **style)
            contours.plot(1, after, **style)
    set_log_ticks(bands, widths)
    contours.set_xticks(*((0, 1), ("network", "+ CRF")) if results.crf_runs else ((), ()))
    contours.margins(x=0.3)
    figure.legend(loc="outside right upper", ncols=columns)
    title = f"{results.profile}: mean IoU near boundaries"
    bands.set(title=title, ylabel="mIoU within the band, boundary IoU (%)")
    seeds = len(results.seeds)
    means = f"\nmean of {seeds} seeds" if seeds > 1 else ""
    means += explain_marks(marks)
    bands.set_xlabel(f"Width of the band on either side of a boundary (px){means}")
    contours.set_xlabel("Boundary IoU")
    return figure


def draw_context_radius(results: Results) -> Figure:
    """Draw accuracy by context radius, and the reach of each effective receptive field.

    A field with sides of s pixels reaches (s - 1) / 2 pixels.
    """
    reach = {run.model: (run.effective.after.size_px - 1) / 2 for run in results.fields}
    marks, columns = find_marks(results), count_legend_columns(results)
    figure = make_figure(5.6 + 1.9 * columns, 4.2 if columns == 1 else 5.4)
    axes = figure.subplots()
    accuracy = results.radius_scores().groupby(["model", "largest_px"], sort=False)["accuracy"]
    band = accuracy.agg(["mean", "min", "max"])
    for model in results.models:
        colour, marker, line = choose_look(results, model)
        curve, label = band.loc[model], marks.add_to(model)
        if model in reach:
            label = f"{label} ({reach[model]:.0f})"
        axes.plot(curve.index, curve["mean"], line, color=colour, marker=marker, ms=5, label=label)
        axes.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.1, lw=0)
        if model in reach:
            top = axes.get_xaxis_transform()
            axes.plot(
                reach[model], 1, marker=CARETDOWNBASE, color=colour, transform=top, clip_on=False
            )
    radii = band.index.unique("largest_px")
    set_log_ticks(axes, list(radii))
    axes.set_xlim(radii[0] / 1.2, radii[-1] * 1.2)
    figure.legend(loc="outside right upper", ncols=columns)
    title = f"{results.profile}: accuracy by the context that a pixel needs"
    axes.set(title=title, ylabel="Pixel accuracy (%)")
    field = "\ntriangle and number: reach of the effective receptive field (px)" if reach else ""
    below = f"{explain_band(results)}{field}{explain_marks(marks)}"
    axes.set_xlabel(f"Context radius, up to (px){below}")
    return figure
