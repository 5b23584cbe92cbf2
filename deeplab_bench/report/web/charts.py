"""Interactive charts. Each is the HTML of one element, which needs plotly.js on the page."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.subplots import make_subplots

from deeplab_bench.drawing import BACKGROUND
from deeplab_bench.report.formats import TRIMAPS
from deeplab_bench.report.paper import build_paper
from deeplab_bench.report.phrases import label_sizes
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import is_significant
from deeplab_bench.report.summaries import (
    average_classes,
    average_near_boundaries,
    order_by_miou,
    summarise,
    summarise_all_miou,
)
from deeplab_bench.report.web.figures import (
    AXES_PX,
    GREY,
    OUTLINE,
    ROW_PX,
    colour,
    colours,
    finish,
    label,
    make_error,
)
from deeplab_bench.results.records import SIZES


def draw_miou(results: Results) -> Markup:
    """Draw mean mIoU with its interval, the highest on top."""
    summary = summarise_all_miou(results).loc[order_by_miou(results.all_scores())]
    figure = go.Figure(make_dots(results, summary))
    return finish(figure, "miou", AXES_PX + ROW_PX * len(summary), xaxis={"title": "mIoU (%)"})


def draw_object_size(results: Results) -> Markup:
    """Draw mean mIoU with its interval over seeds, a panel for each size of the objects."""
    scores = results.all_scores()
    order = order_by_miou(scores)
    figure = make_subplots(
        1,
        len(SIZES),
        shared_xaxes="all",
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=label_sizes(results),
    )
    for column, size in enumerate(SIZES, start=1):
        summary = summarise(scores, f"miou_{size}").loc[order]
        figure.add_trace(make_dots(results, summary), row=1, col=column)
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title="mIoU (%)")
    height = AXES_PX + ROW_PX * len(order)
    return finish(figure, "object_size", height, least_width=640, showlegend=False)


def make_dots(results: Results, summary: pd.DataFrame) -> go.Scatter:
    mean = summary["mean"]
    return go.Scatter(
        x=mean,
        y=label(results, summary.index),
        mode="markers",
        marker={"color": colours(results, summary.index), "size": 11, "line": OUTLINE},
        error_x=make_error(mean, summary),
        hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
    )


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
            texts[place] = format_change(values[place]) + "*" * is_significant(row.p_holm)
            hover[place] = f"{first} minus {other}: {values[place]:+.2f} points<br>"
            hover[place] += f"{ends[0]:.2f} to {ends[1]:.2f}"
            hover[place] += "" if results.undecided_because else f", p (Holm) {row.p_holm:.4f}"
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
            hoverongaps=False,
            colorscale="RdBu",
            zmin=-largest,
            zmax=largest,
            colorbar={"title": "points"},
        )
    )
    return finish(
        figure,
        "comparisons",
        2 * AXES_PX + ROW_PX * len(order),
        least_width=240 + 60 * len(order),
        xaxis={"showgrid": False},
        yaxis={"autorange": "reversed", "showgrid": False},
    )


def format_change(points: float) -> str:
    """Format a difference with its sign; one that is printed as zero has none."""
    text = f"{points:+.1f}"
    return "0.0" if float(text) == 0 else text


def draw_per_class(results: Results) -> Markup:
    """Draw the IoU by class. The background is left out, whose IoU is high for all."""
    scores = results.all_scores()
    means = average_classes(results, scores).loc[order_by_miou(scores)[::-1]]
    few = means.drop(columns=BACKGROUND, errors="ignore")
    without = f"without {BACKGROUND}" if 0 < few.shape[1] < means.shape[1] else ""
    means = few if without else means
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
    return finish(
        figure,
        "per_class",
        AXES_PX + ROW_PX * len(means),
        least_width=140 + 50 * len(means.columns),
        xaxis={"title": without},
        yaxis={"autorange": "reversed"},
    )


def draw_paper(results: Results) -> Markup:
    """Draw each published value or difference, and ours with its interval."""
    data = build_paper(results).data
    theirs, ours, title = (
        ("published", "miou_mean", "mIoU (%)")
        if "published" in data
        else ("published_difference", "difference", "Difference of mIoU (points)")
    )
    names = label(results, data["model"])
    if "other" in data:
        others = label(results, data["other"])
        names = [f"{first}<br>over {other}" for first, other in zip(names, others, strict=True)]
    rows = list(range(len(data)))
    figure = go.Figure()
    figure.add_scatter(
        x=[end for pair in zip(data[theirs], data[ours], strict=True) for end in (*pair, None)],
        y=[place for row in rows for place in (row, row, None)],
        mode="lines",
        line={"color": GREY, "width": 3},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=data[theirs],
        y=rows,
        name="published",
        mode="markers",
        marker={"symbol": "diamond", "color": "#D55E00", "size": 12, "line": OUTLINE},
        hovertemplate="published: %{x:.2f}<extra></extra>",
    )
    figure.add_scatter(
        x=data[ours],
        y=rows,
        name="ours, with 95 % interval" if data["ci95_low"].notna().any() else "ours",
        mode="markers",
        marker={"color": "#0072B2", "size": 12, "line": OUTLINE},
        error_x=make_error(data[ours], data),
        hovertemplate="ours: %{x:.2f}<extra></extra>",
    )
    if theirs == "published_difference":
        figure.add_vline(0, line_color=GREY, line_dash="dot")
    places = {"tickvals": rows, "ticktext": names, "range": [len(data) - 0.5, -0.5]}
    height = 1.5 * AXES_PX + 1.5 * ROW_PX * len(data)
    return finish(figure, "paper", int(height), xaxis={"title": title}, yaxis=places)


def draw_boundaries(results: Results) -> Markup:
    """Draw mIoU by the width of the band along boundaries, and boundary IoU on the right."""
    scored = [(average_near_boundaries(results.scores()), "", "solid", "network")]
    if results.crf_runs:
        refined = average_near_boundaries(results.refined_scores())
        scored.append((refined, " + CRF", "dot", "+ CRF"))
    lines = [
        (str(model), suffix, dash, place, row)
        for means, suffix, dash, place in scored
        for model, row in means.iterrows()
    ]
    figure = make_subplots(
        1, 2, shared_yaxes=True, column_widths=[0.8, 0.2], horizontal_spacing=0.03
    )
    widths = list(TRIMAPS.values())
    for model, suffix, dash, place, (*within, contours) in lines:
        name = label(results, [model])[0] + suffix
        style = {"color": colour(results, model)}
        figure.add_scatter(
            x=widths,
            y=within,
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line={**style, "dash": dash},
            hovertemplate=f"within %{{x}} px: %{{y:.1f}} %<extra>{name}</extra>",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=[place],
            y=[contours],
            legendgroup=name,
            showlegend=False,
            mode="markers",
            marker={**style, "size": 9, "line": OUTLINE},
            hovertemplate=f"boundary IoU: %{{y:.1f}} %<extra>{name}</extra>",
            row=1,
            col=2,
        )
    title = "Width of the band on either side of a boundary (px)"
    figure.update_xaxes(title=title, type="log", tickvals=widths, col=1)
    figure.update_xaxes(title="Boundary IoU", col=2)
    figure.update_yaxes(title="mIoU, boundary IoU (%)", col=1)
    return finish(figure, "boundaries", 480, least_width=560)


def draw_context_radius(results: Results) -> Markup:
    """Draw the accuracy of pixels by the context that they need."""
    scores = results.radius_scores().groupby(["model", "largest_px"], sort=False)["accuracy"]
    accuracy = scores.mean()
    figure = go.Figure()
    for model in results.models:
        curve = accuracy.xs(model, level="model")
        figure.add_scatter(
            x=curve.index,
            y=curve,
            name=label(results, [model])[0],
            mode="lines+markers",
            line={"color": colour(results, model)},
            hovertemplate=f"up to %{{x}} px: %{{y:.1f}} %<extra>{model}</extra>",
        )
    ticks = [int(radius) for radius in accuracy.index.unique("largest_px")]
    axis = {"title": "Context radius, up to (px)", "type": "log", "tickvals": ticks}
    return finish(figure, "context_radius", 440, xaxis=axis, yaxis={"title": "Pixel accuracy (%)"})
