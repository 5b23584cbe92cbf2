"""Panels of validation images: the image, the ground truth and each model's prediction.

All pixels of small images are drawn, but only some rows and columns of large photographs.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.drawing import label_classes
from deeplab_bench.report.figures import redden
from deeplab_bench.report.marks import Marks, find_marks
from deeplab_bench.report.results import ReportError, Results
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.records import CRFRecord
from deeplab_bench.settings.inference import PLAIN

DPI = 100
MAX_WIDTH_PX = 1440
GAP_PX = 4
LEGEND_COLUMNS = 6


def name_panel(results: Results) -> str:
    """Return the panel's file name, outside ``plots`` if it must not be published."""
    return "plots/samples.png" if results.generated else "photographs.png"


def draw_panel(results: Results) -> Figure:
    """Draw the predictions of every model of the first seed.

    Raises:
        ReportError: a strip is missing, or has another size than the others.
    """
    title = f"the first {results.data.scored_split} images, models of seed {results.seeds[0]}"
    return stack_strips(results, read_strips(results), title, find_marks(results))


def name_crf_panel(results: Results, model: str) -> str:
    """Return the file name of the CRF's panel of a model, see ``name_panel``."""
    return f"plots/crf_{model}.png" if results.generated else f"crf_{model}.png"


def draw_crf_panel(results: Results, model: str) -> Figure:
    """Draw a model's labels and belief maps: of the network, and after iterations of the CRF.

    The first and the last pictured iteration are drawn, not those between.

    Raises:
        ReportError: a strip is missing, or has another size than the others.
    """
    run = next(run for run in results.crf_runs if run.model == model)
    marks = find_marks(results).select([model])
    title = (
        f"fully connected CRF on {marks.add_to(model)}, seed {run.seed}; "
        "beliefs of each image's main class"
    )
    strips = read_crf_strips(results, run, {*run.pictured[:2], run.pictured[-1]})
    return stack_strips(results, strips, title, marks)


def stack_strips(
    results: Results, strips: Mapping[str, Image.Image], title: str, marks: Marks
) -> Figure:
    """Draw strips below each other, with names on the left and the classes at the bottom."""
    rows = [part_images(results, thin_out(strip)) for strip in strips.values()]
    gap = np.full((GAP_PX, *rows[0].shape[1:]), 255, dtype=np.uint8)
    pixels = np.concatenate([part for row in rows for part in (row, gap)])[:-GAP_PX]
    figure = frame_pixels(pixels, list(strips), list_classes(results, strips, marks))
    heading = figure.suptitle(
        f"{results.profile}: {title}",
        ha="left",
        x=0.01,
        y=1 - 0.08 / figure.get_figheight(),
        va="top",
    )
    redden([heading])
    return figure


def read_strips(results: Results) -> dict[str, Image.Image]:
    """Read images, ground truth and predictions; the keys are the names of their rows."""
    profile, seed, marks = results.profile, results.seeds[0], find_marks(results)
    strips = read_given_strips(profile)
    size = strips["input"].size
    runs = [RunFiles(profile, model, seed) for model in results.models]
    return strips | {marks.add_to(run.model): read_strip(run.samples(PLAIN), size) for run in runs}


def read_crf_strips(
    results: Results, run: CRFRecord, iterations: Collection[int] | None = None
) -> dict[str, Image.Image]:
    """Read images, ground truth, labels and beliefs after these iterations, or after all."""
    strips = read_given_strips(results.profile)
    width, height = strips["input"].size
    files = RunFiles(results.profile, run.model, run.seed).crf_samples
    for what in ("labels", "beliefs"):
        stack = read_strip(files[what], (width, height * len(run.pictured)))
        for row, iteration in enumerate(run.pictured):
            if iterations is None or iteration in iterations:
                after = f"iteration {iteration}" if iteration else "network"
                box = (0, row * height, width, (row + 1) * height)
                strips[f"{what}, {after}"] = stack.crop(box)
    return strips


def read_given_strips(profile: str) -> dict[str, Image.Image]:
    files = ProfileFiles(profile)
    images = read_strip(files.sample_images)
    return {"input": images, "ground truth": read_strip(files.sample_labels, images.size)}


def read_strip(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    if not path.is_file():
        raise ReportError(f"{path} is missing: run `dvc repro`")
    with Image.open(path) as image:
        strip = image.copy()
    if size and strip.size != size:
        raise ReportError(f"{path} has {strip.size} px instead of {size}: run `dvc repro`")
    return strip


def thin_out(strip: Image.Image) -> Pixels:
    """Drop rows and columns of a strip that is too wide."""
    step = math.ceil(strip.width / MAX_WIDTH_PX)
    return np.asarray(strip.convert("RGB"))[::step, ::step]


def part_images(results: Results, strip: Pixels) -> Pixels:
    """Put gaps between the images of a generated set, whose size is known."""
    data = results.params.profile[results.profile].data
    if data.dataset != "shapes" or data.image_size >= strip.shape[1]:
        return strip
    tiles = np.split(strip, range(data.image_size, strip.shape[1], data.image_size), axis=1)
    gap = ((0, 0), (0, GAP_PX), (0, 0))
    return np.concatenate([np.pad(tile, gap, constant_values=255) for tile in tiles], axis=1)


def frame_pixels(pixels: Pixels, names: list[str], patches: list[Patch]) -> Figure:
    """Draw pixels one to one, with a name left of each row and the legend at the bottom."""
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


def list_classes(results: Results, strips: Mapping[str, Image.Image], marks: Marks) -> list[Patch]:
    """List the legend: the colour of each class, of void if there is any, and the marks."""
    truth = strips["ground truth"]
    palette = np.array(truth.getpalette(), dtype=float).reshape(-1, 3) / 255
    names = dict(enumerate(label_classes(results.runs[0].classes)))
    if VOID in np.unique(np.asarray(truth)):
        names[VOID] = "void, not scored"
    patches = [
        Patch(facecolor=palette[index], edgecolor="0.3", lw=0.5, label=name)
        for index, name in names.items()
    ]
    return [*patches, Patch(fill=False, lw=0, label=marks.describe())] if marks else patches
