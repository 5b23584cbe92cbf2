"""The files of figures, the looks of models, and labels."""

import math
from collections.abc import Callable, Iterable, Sequence

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from deeplab_bench.drawing import STYLE, encode
from deeplab_bench.report.marks import MARKS, RED, Marks
from deeplab_bench.report.results import Results

# Okabe and Ito's colours that stand out from white, grey, and two of Tol's. Colour and marker tell
# the first 40 models apart, the line style 40 more each.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#767676"),
    *("#882255", "#999933"),
)
MARKERS = "osD^vphX"
LINES = ("-", "--", ":", "-.")


def render_figure(name: str, draw: Callable[[], Figure]) -> dict[str, bytes]:
    """Return the figure as SVG and PNG by file name. The labels of marked models are red."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = draw()
        redden(find_labels(figure))
        return {f"plots/{name}.{suffix}": encode(figure, suffix) for suffix in ("svg", "png")}


def render_panel(draw: Callable[[], Figure], dpi: float) -> bytes:
    """Return a figure of photographs as PNG."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = draw()
        redden(find_labels(figure))
        return encode(figure, "png", dpi)


def choose_look(results: Results, model: str) -> tuple[str, str, str]:
    """Return a model's colour, marker and line style, the same in every figure and profile."""
    index = [*results.params.networks, *results.params.files_of_others].index(model)
    lines = LINES[index // math.lcm(len(COLOURS), len(MARKERS)) % len(LINES)]
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], lines


def find_labels(figure: Figure) -> Iterable[Text]:
    """Yield the texts that may name a model: ticks, titles, annotations and legends."""
    for axes in figure.axes:
        yield from (axes.title, *axes.texts)
        for axis in (axes.xaxis, axes.yaxis):
            yield from axis.get_ticklabels()
    for legend in figure.legends:
        yield from legend.get_texts()


def redden(labels: Iterable[Text]) -> None:
    """Colour the labels that have a mark red."""
    symbols = {mark.symbol for mark in MARKS.values()}
    for label in labels:
        if symbols & set(label.get_text()):
            label.set_color(RED)


def explain_marks(marks: Marks) -> str:
    """Return a line below an axis label that says what the marks mean."""
    return f"\n{marks.describe()}" if marks else ""


def slant_labels(axes: Axes) -> None:
    """Rotate long labels of the horizontal axis."""
    axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")


def set_log_ticks(axes: Axes, values: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def count_legend_columns(results: Results) -> int:
    return math.ceil(len(results.models) / 20)
