"""Interactive charts. Each is the HTML of one element, which needs plotly.js on the page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from deeplab_bench.report.figures import choose_look
from deeplab_bench.report.marks import find_marks
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import is_significant
from deeplab_bench.report.summaries import (
    average_classes,
    collect_losses,
    order_by_miou,
    summarise_all_miou,
    summarise_miou,
)
from deeplab_bench.report.tradeoff import EXPENSES

ROW_PX, AXES_PX = 34, 110
BACKGROUND = "background"
OUTLINE = {"color": "#888", "width": 1}


def draw_miou(results: Results) -> Markup:
    """Draw mean mIoU with its interval, the highest on top."""
    summary = summarise_all_miou(results).loc[order_by_miou(results.all_scores())]
    mean = summary["mean"]
    figure = go.Figure(
        go.Scatter(
            x=mean,
            y=label(results, summary.index),
            mode="markers",
            marker={"color": colours(results, summary.index), "size": 11, "line": OUTLINE},
            error_x={
                "type": "data",
                "array": summary["ci95_high"] - mean,
                "arrayminus": mean - summary["ci95_low"],
                "color": "#888",
            },
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
        )
    )
    return finish(figure, "miou", AXES_PX + ROW_PX * len(summary), xaxis={"title": "mIoU (%)"})


def draw_comparisons(results: Results) -> Markup:
    """Draw every difference, the row's model minus the column's; decided ones have a star."""
    order = order_by_miou(results.scores())[::-1]
    names = label(results, order)
    values = np.full((len(order), len(order)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    hover = texts.copy()
    for row in list[Any](results.compared.itertuples()):
        for first, other, sign in ((row.model, row.other, 1), (row.other, row.model, -1)):
            place = order.index(str(first)), order.index(str(other))
            ends = sorted((sign * row.ci95_low, sign * row.ci95_high))
            values[place] = sign * row.difference
            texts[place] = f"{values[place]:+.1f}" + "*" * is_significant(row.p_holm)
            hover[place] = f"{first} minus {other}: {values[place]:+.2f} points<br>"
            hover[place] += f"{ends[0]:.2f} to {ends[1]:.2f}, p (Holm) {row.p_holm:.4f}"
    largest = float(np.nanmax(np.abs(values))) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=names,
            y=names,
            text=texts,
            texttemplate="%{text}",
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale="RdBu",
            zmin=-largest,
            zmax=largest,
            colorbar={"title": "points"},
        )
    )
    height = 2 * AXES_PX + ROW_PX * len(order)
    return finish(figure, "comparisons", height, yaxis={"autorange": "reversed"})


def draw_per_class(results: Results) -> Markup:
    """Draw the IoU by class. The background is left out, whose IoU is high for all."""
    scores = results.all_scores()
    means = average_classes(results, scores).loc[order_by_miou(scores)[::-1]]
    means = means.drop(columns=[name for name in means if name == BACKGROUND and len(means) > 1])
    figure = go.Figure(
        go.Heatmap(
            z=means.to_numpy(),
            x=[str(name) for name in means],
            y=label(results, means.index),
            texttemplate="%{z:.1f}",
            hovertemplate="%{y}, %{x}: %{z:.1f} %<extra></extra>",
            colorscale="Cividis",
            colorbar={"title": "IoU (%)"},
        )
    )
    height = AXES_PX + ROW_PX * len(means)
    return finish(figure, "per_class", height, yaxis={"autorange": "reversed"})


def draw_tradeoff(results: Results) -> Markup:
    """Draw mIoU over the median latency on the first hardware."""
    latency, miou = EXPENSES[0], summarise_miou(results)["mean"]
    hardware = results.params.run.hardware[0]
    speeds = {speed.model: speed for speed in results.speeds if speed.hardware == hardware}
    figure = go.Figure()
    for model, speed in speeds.items():
        figure.add_scatter(
            x=[latency.range_of(speed.trained)[0]],
            y=[miou[model]],
            name=label(results, [model])[0],
            mode="markers",
            marker={"color": colours(results, [model])[0], "size": 13, "line": OUTLINE},
            hovertemplate="%{x:.3g} ms, %{y:.1f} %<extra>" + model + "</extra>",
        )
    axes: dict[str, Any] = {"xaxis": {"title": f"{latency.label}, {hardware}"}}
    return finish(figure, "tradeoff", 420, **axes, yaxis={"title": "mIoU (%)"})


def draw_curves(results: Results) -> Markup:
    """Draw the mean training loss over the seeds; a click on a name hides its curve."""
    curves = collect_losses(results).groupby(["model", "iteration"], sort=False)["loss"].mean()
    figure = draw_lines(results, curves, "iteration %{x}: %{y:.3f}", "lines", width=1.5)
    axes: dict[str, Any] = {"xaxis": {"title": "Iteration"}}
    return finish(figure, "curves", 420, **axes, yaxis={"title": "Cross-entropy", "type": "log"})


def draw_context_radius(results: Results) -> Markup:
    """Draw the accuracy of pixels by the context that they need."""
    scores = results.radius_scores().groupby(["model", "largest_px"], sort=False)["accuracy"]
    accuracy = scores.mean()
    figure = draw_lines(results, accuracy, "up to %{x} px: %{y:.1f} %", "lines+markers")
    ticks = [int(radius) for radius in accuracy.index.unique("largest_px")]
    axis = {"title": "Context radius, up to (px)", "type": "log", "tickvals": ticks}
    return finish(figure, "context_radius", 420, xaxis=axis, yaxis={"title": "Pixel accuracy (%)"})


def draw_lines(
    results: Results, curves: "pd.Series[float]", hover: str, mode: str, width: float = 2
) -> go.Figure:
    """Draw a line for each model; ``curves`` are indexed by ``model``, then by the position."""
    figure = go.Figure()
    for model in results.models:
        curve = curves.xs(model, level="model")
        figure.add_scatter(
            x=curve.index,
            y=curve,
            name=label(results, [model])[0],
            mode=mode,
            line={"color": colours(results, [model])[0], "width": width},
            hovertemplate=f"{hover}<extra>{model}</extra>",
        )
    return figure


def finish(figure: go.Figure, name: str, height: int, **layout: Mapping[str, Any]) -> Markup:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": -0.25},
        **layout,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    config = {"responsive": True, "displayModeBar": False}
    return Markup(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"chart-{name}", config=config
        )
    )


def label(results: Results, models: Any) -> list[str]:
    marks = find_marks(results)
    return [marks.add_to(str(model)) for model in models]


def colours(results: Results, models: Any) -> list[str]:
    return [choose_look(results, str(model))[0] for model in models]
