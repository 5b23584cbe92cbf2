"""The panel of validation images, their ground truth and the predictions, a strip each.

Pixels are drawn one to one, those of large photographs thinned out.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.paths import sample_images_file, sample_labels_file, samples_file
from deeplab_bench.report.results import ReportError, Results

DPI = 100
MAX_WIDTH_PX = 1440
GAP_PX = 4
LEGEND_COLUMNS = 6


def panel_file(results: Results) -> str:
    """Beside the other figures if it may be published: photographs stay out of the repository."""
    return "plots/samples.png" if results.generated else "photographs.png"


def panel(results: Results) -> Figure:
    """
    Raises:
        ReportError: a strip is missing, or not of the size of the others.
    """
    strips = read_strips(results)
    rows = [spaced(results, thinned(strip)) for strip in strips.values()]
    gap = np.full((GAP_PX, *rows[0].shape[1:]), 255, dtype=np.uint8)
    pixels = np.concatenate([part for row in rows for part in (row, gap)])[:-GAP_PX]
    figure = framed(pixels, list(strips), key(results, strips))
    figure.suptitle(
        f"{results.profile}: the first validation images, models of seed {results.seeds[0]}",
        ha="left",
        x=0.01,
        y=1 - 0.08 / figure.get_figheight(),
        va="top",
    )
    return figure


def read_strips(results: Results) -> dict[str, Image.Image]:
    strips: dict[str, Image.Image] = {}
    for name, path in strip_files(results).items():
        if not path.is_file():
            raise ReportError(f"{path} is missing: run `dvc repro`")
        with Image.open(path) as image:
            strips[name] = image.copy()
        size, expected = strips[name].size, strips["input"].size
        if size != expected:
            raise ReportError(f"{path} is of {size} px, the images of {expected}: run `dvc repro`")
    return strips


def strip_files(results: Results) -> dict[str, Path]:
    profile, seed = results.profile, results.seeds[0]
    given = {"input": sample_images_file(profile), "ground truth": sample_labels_file(profile)}
    return given | {model: samples_file(profile, model, seed) for model in results.models}


def thinned(strip: Image.Image) -> Pixels:
    step = math.ceil(strip.width / MAX_WIDTH_PX)
    return np.asarray(strip.convert("RGB"))[::step, ::step]


def spaced(results: Results, strip: Pixels) -> Pixels:
    """Part the images of a generated set, which are all of one known size."""
    data = results.params.profile[results.profile].data
    if data.dataset != "shapes" or data.image_size >= strip.shape[1]:
        return strip
    tiles = np.split(strip, range(data.image_size, strip.shape[1], data.image_size), axis=1)
    gap = ((0, 0), (0, GAP_PX), (0, 0))
    return np.concatenate([np.pad(tile, gap, constant_values=255) for tile in tiles], axis=1)


def framed(pixels: Pixels, names: list[str], patches: list[Patch]) -> Figure:
    """The pixels with a name left of each row and the legend beneath."""
    height, width = (side / DPI for side in pixels.shape[:2])
    left, top = round(0.3 + 0.08 * max(map(len, names)), 2), 0.4
    bottom = 0.1 + 0.22 * math.ceil(len(patches) / LEGEND_COLUMNS)
    size = (left + width, bottom + height + top)
    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    box = (left / size[0], bottom / size[1], width / size[0], height / size[1])
    axes = figure.add_axes(box, frameon=False)
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.grid(visible=False)
    pitch = (len(pixels) + GAP_PX) / len(names)
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * pitch for row in range(len(names))], names)
    axes.tick_params(length=0)
    figure.legend(
        handles=patches, loc="lower center", ncols=LEGEND_COLUMNS, borderaxespad=0.2, fontsize=8
    )
    return figure


def key(results: Results, strips: Mapping[str, Image.Image]) -> list[Patch]:
    """The colour of every class, and of void where there is any."""
    truth = strips["ground truth"]
    palette = np.array(truth.getpalette(), dtype=float).reshape(-1, 3) / 255
    names = dict(enumerate(results.runs[0].classes))
    if VOID in np.unique(np.asarray(truth)):
        names[VOID] = "void, not scored"
    return [
        Patch(facecolor=palette[index], edgecolor="0.3", lw=0.5, label=name)
        for index, name in names.items()
    ]
