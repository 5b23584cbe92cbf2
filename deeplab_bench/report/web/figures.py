"""The style of the charts, and the names and colours of models in them."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.colors import hex_to_rgb

from deeplab_bench.report.figures import choose_look
from deeplab_bench.report.marks import find_marks
from deeplab_bench.report.results import Results

ROW_PX, AXES_PX = 34, 110
PHONE_PX = 360  # the width of the page on a phone
GREY = "#888"
OUTLINE = {"color": GREY, "width": 1}


def finish(
    figure: go.Figure, name: str, height: int, least_width: int = PHONE_PX, **layout: Any
) -> Markup:
    """Return the chart as HTML. Where the page is less wide than ``least_width`` px, it scrolls.

    No finger or mouse moves the axes, so that they scroll the page.
    """
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 10, "t": 30 if figure.layout.annotations else 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": -0.25},
        dragmode=False,
        **layout,
    )
    figure.update_xaxes(automargin=True, fixedrange=True)
    figure.update_yaxes(automargin=True, fixedrange=True)
    config = {"responsive": True, "displayModeBar": False}
    chart = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"chart-{name}", config=config
    )
    return scroll_sideways(Markup(chart), least_width)


def scroll_sideways(content: Markup, least_width: int) -> Markup:
    """Put content in a box that scrolls where the page is less wide than ``least_width`` px."""
    if least_width <= PHONE_PX:
        return Markup('<div class="chart">{}</div>').format(content)
    return Markup(
        '<p class="hint">Scroll sideways to see all.</p>\n'
        '<div class="chart scroll"><div style="min-width: {}px">{}</div></div>'
    ).format(least_width, content)


def label(results: Results, models: Iterable[Any]) -> list[str]:
    """Return the models' names with their marks."""
    marks = find_marks(results)
    return [marks.add_to(str(model)) for model in models]


def colour(results: Results, model: Any) -> str:
    return choose_look(results, str(model))[0]


def colours(results: Results, models: Iterable[Any]) -> list[str]:
    return [colour(results, model) for model in models]


def fade(hexadecimal: str) -> str:
    """Return a colour that lets what is behind it shine through."""
    return f"rgba{(*hex_to_rgb(hexadecimal), 0.2)}"


def make_error(mean: "pd.Series[float]", ends: pd.DataFrame) -> dict[str, Any]:
    """Return the line from ``ci95_low`` to ``ci95_high``."""
    above, below = ends["ci95_high"] - mean, mean - ends["ci95_low"]
    lengths = {"array": above.tolist(), "arrayminus": below.tolist()}
    return {"type": "data", **lengths, "color": GREY}
