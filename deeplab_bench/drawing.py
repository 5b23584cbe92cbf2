"""The style of figures, and their bytes. Equal figures give equal bytes."""

from collections.abc import Sequence
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

BACKGROUND = "background"  # the name of a class that is no object
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
    "text.parse_math": False,  # a name may have $ in it
    "xtick.color": "0.3",
    "xtick.labelcolor": "black",
    "ytick.color": "0.3",
    "ytick.labelcolor": "black",
}


def encode(figure: Figure, suffix: str, dpi: float = 160) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    figure.savefig(buffer, format=suffix, metadata=metadata, dpi=dpi)
    return buffer.getvalue()


def label_classes(names: Sequence[str]) -> list[str]:
    """Return the names of the classes; in place of one that the font cannot show, its index."""
    font = get_font(findfont(FontProperties()))
    return [
        name if all(font.get_char_index(ord(character)) for character in name) else f"class {index}"
        for index, name in enumerate(names)
    ]


def make_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
