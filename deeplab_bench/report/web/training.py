"""The interactive charts of training: a panel for each model."""

import math

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.subplots import make_subplots

from deeplab_bench.report.results import Results
from deeplab_bench.report.summaries import (
    chain_curves,
    collect_fits,
    collect_losses,
    collect_validation,
    summarise_curves,
)
from deeplab_bench.report.web.figures import AXES_PX, GREY, colour, fade, finish, label

PANEL_COLUMNS, PANEL_PX = 4, 200


def draw_losses(results: Results) -> Markup:
    """Draw the training loss, and dashed the validation loss, if it is known."""
    figure = draw_panels(results, summarise_curves(collect_losses(results), "loss"), digits=3)
    if results.curves:
        validation = summarise_curves(collect_validation(results), "loss")["mean"]
        for index, model in enumerate(results.models):
            curve = validation.loc[model]
            figure.add_scatter(
                x=curve.index,
                y=curve,
                mode="lines",
                line={"color": colour(results, model), "width": 1.5, "dash": "dash"},
                hovertemplate="iteration %{x}: %{y:.3f} in validation<extra></extra>",
                **find_place(results, index),
            )
    else:
        place_fits(figure, results, "top")
    ticks = [digit * 10**power for power in range(-4, 3) for digit in (1, 2, 5)]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return finish_panels(figure, results, "curves", "Cross-entropy")


def draw_validation(results: Results) -> Markup:
    """Draw the validation mIoU."""
    figure = draw_panels(results, summarise_curves(collect_validation(results), "miou"), digits=1)
    figure.update_xaxes(rangemode="tozero")
    place_fits(figure, results, "bottom")
    return finish_panels(figure, results, "validation", "Validation mIoU (%)")


def count_columns(results: Results) -> int:
    return min(len(results.models), PANEL_COLUMNS)


def count_rows(results: Results) -> int:
    return math.ceil(len(results.models) / count_columns(results))


def find_place(results: Results, index: int) -> dict[str, int]:
    """Return the place of the panel of a model, by its index."""
    row, column = divmod(index, count_columns(results))
    return {"row": row + 1, "col": column + 1}


def draw_panels(results: Results, bands: pd.DataFrame, digits: int) -> go.Figure:
    """Draw a panel for each model: its mean and range over seeds, the others' means in grey."""
    figure = make_subplots(
        count_rows(results),
        count_columns(results),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=0.25 / count_rows(results),
        subplot_titles=label(results, results.models),
    )
    figure.update_annotations(font_size=13)
    others = chain_curves(bands)
    for index, model in enumerate(results.models):
        place, band = find_place(results, index), bands.loc[model]
        own = colour(results, model)
        silent = {"hoverinfo": "skip", "mode": "lines", **place}
        figure.add_scatter(
            x=others["iteration"],
            y=others["mean"],
            line={"color": GREY, "width": 0.5},
            opacity=0.6,
            **silent,
        )
        figure.add_scatter(x=band.index, y=band["min"], line={"width": 0}, **silent)
        figure.add_scatter(
            x=band.index,
            y=band["max"],
            line={"width": 0},
            fill="tonexty",
            fillcolor=fade(own),
            **silent,
        )
        figure.add_scatter(
            x=band.index,
            y=band["mean"],
            mode="lines",
            line={"color": own, "width": 2},
            hovertemplate=f"iteration %{{x}}: %{{y:.{digits}f}}<extra></extra>",
            **place,
        )
    return figure


def place_fits(figure: go.Figure, results: Results, side: str) -> None:
    """Write the mIoU at the end at the top or bottom of each panel."""
    for index, text in enumerate(collect_fits(results).values()):
        figure.add_annotation(
            text=text.replace("\n", "<br>"),
            xref="x domain",
            yref="y domain",
            x=0.98,
            y=0.98 if side == "top" else 0.02,
            xanchor="right",
            yanchor=side,
            align="right",
            showarrow=False,
            font_size=11,
            **find_place(results, index),
        )


def finish_panels(figure: go.Figure, results: Results, name: str, title: str) -> Markup:
    figure.update_yaxes(title=title, col=1)
    figure.update_xaxes(title="Iteration", row=count_rows(results))
    height = AXES_PX + PANEL_PX * count_rows(results)
    return finish(figure, name, height, least_width=180 * count_columns(results), showlegend=False)
