"""The interactive chart of training: a panel for each model."""

import math

import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.subplots import make_subplots

from deeplab_bench.report.plots import collect_fits
from deeplab_bench.report.results import Results
from deeplab_bench.report.summaries import collect_losses
from deeplab_bench.report.web.figures import AXES_PX, GREY, colour, fade, finish, label

PANEL_COLUMNS, PANEL_PX = 4, 200


def draw_curves(results: Results) -> Markup:
    """Draw a panel for each model: its mean loss and range over seeds, the others' in grey."""
    losses = collect_losses(results).groupby(["model", "iteration"], sort=False)["loss"]
    bands = losses.agg(["mean", "min", "max"])
    fits = collect_fits(results)
    columns = min(len(results.models), PANEL_COLUMNS)
    rows = math.ceil(len(results.models) / columns)
    figure = make_subplots(
        rows,
        columns,
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.02,
        vertical_spacing=0.25 / rows,
        subplot_titles=label(results, results.models),
    )
    figure.update_annotations(font_size=13)
    ends = bands.groupby("model", sort=False).tail(1) * np.nan  # between two curves is no line
    others = pd.concat([bands, ends]).reset_index().sort_values("model", kind="stable")
    for index, model in enumerate(results.models):
        row, column = divmod(index, columns)
        place, band = {"row": row + 1, "col": column + 1}, bands.loc[model]
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
            hovertemplate="iteration %{x}: %{y:.3f}<extra></extra>",
            **place,
        )
        figure.add_annotation(
            text=fits[model].replace("\n", "<br>"),
            xref="x domain",
            yref="y domain",
            x=0.98,
            y=0.98,
            xanchor="right",
            yanchor="top",
            align="right",
            showarrow=False,
            font_size=11,
            **place,
        )
    ticks = [digit * 10**power for power in range(-4, 3) for digit in (1, 2, 5)]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_yaxes(title="Cross-entropy", col=1)
    figure.update_xaxes(title="Iteration", row=rows)
    height = AXES_PX + PANEL_PX * rows
    return finish(figure, "curves", height, least_width=180 * columns, showlegend=False)
