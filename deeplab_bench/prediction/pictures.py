"""Pictures of predictions: the photograph, and each network's classes as colours over it."""

import io
import math
from collections.abc import Mapping, Sequence

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.data.pixels import Pixels, build_voc_palette
from deeplab_bench.drawing import BACKGROUND, STYLE, encode, label_classes, make_figure

OPACITY = 0.6
PANEL_INCHES = 5.0
MOST_SIDE = 1600  # pixels of a panel; larger photographs lose rows and columns
LEGEND_COLUMNS = 4


def draw_prediction(
    photograph: Pixels, labels: Mapping[str, Pixels], classes: Sequence[str]
) -> bytes:
    """Draw a photograph (H, W, 3) beside predicted class indices (H, W), by name, as a PNG.

    The legend names the classes that occur, largest first, with their mean share of the pixels.
    """
    with matplotlib.style.context(STYLE, after_reset=True):
        return encode(draw_panels(photograph, labels, classes), "png")


def draw_panels(photograph: Pixels, labels: Mapping[str, Pixels], classes: Sequence[str]) -> Figure:
    height, width = photograph.shape[:2]
    step = math.ceil(max(height, width) / MOST_SIDE)
    small = photograph[::step, ::step]
    panels = {"photograph": small} | {
        name: paint(small, label[::step, ::step], classes) for name, label in labels.items()
    }
    patches = build_legend(labels, classes)
    columns = choose_columns(len(panels), height / width)
    rows = math.ceil(len(panels) / columns)
    legend = 0.25 * math.ceil(len(patches) / LEGEND_COLUMNS) + 0.1
    panel_height = PANEL_INCHES * height / width + 0.3
    figure = make_figure(columns * PANEL_INCHES, rows * panel_height + legend)
    for index, (name, panel) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, index, title=name)
        axes.imshow(panel)
        axes.set_axis_off()
    figure.legend(handles=patches, ncols=LEGEND_COLUMNS, loc="outside lower left")
    return figure


def choose_columns(panels: int, height_to_width: float) -> int:
    """Choose among the two grids nearest to a square the one with fewer empty places."""
    fewer = max(2, math.floor(math.sqrt(panels * height_to_width)))
    columns = min((fewer + 1, fewer), key=lambda columns: -panels % columns)
    return min(panels, columns)


def paint(photograph: Pixels, label: Pixels, classes: Sequence[str]) -> Pixels:
    """Lay the colour of each pixel's class over the photograph."""
    weights = [0 if name == BACKGROUND else round(255 * OPACITY) for name in classes]
    mask = np.array(weights, dtype=np.uint8)[label]
    layers = (Image.fromarray(pixels) for pixels in (build_colours()[label], photograph, mask))
    return np.asarray(Image.composite(*layers))


def encode_image(pixels: Pixels) -> bytes:
    """Return RGB values (H, W, 3) as the bytes of a PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def build_legend(labels: Mapping[str, Pixels], classes: Sequence[str]) -> list[Patch]:
    shares = np.mean([compute_shares(label, len(classes)) for label in labels.values()], axis=0)
    names, colours = label_classes(classes), build_colours() / 255
    return [
        Patch(
            facecolor="none" if classes[index] == BACKGROUND else colours[index],
            edgecolor="0.3",
            lw=0.5,
            label=f"{names[index]}, {100 * shares[index]:.1f} %",
        )
        for index in np.argsort(-shares, kind="stable")
        if shares[index] > 0
    ]


def compute_shares(label: Pixels, num_classes: int) -> NDArray[np.float64]:
    """Compute the share of the pixels that each class has, (num_classes,)."""
    return np.bincount(label.ravel(), minlength=num_classes) / label.size


def build_colours() -> Pixels:
    """Return the colours of label PNGs, (256, 3)."""
    return np.frombuffer(build_voc_palette(), dtype=np.uint8).reshape(-1, 3)
