"""The table and the figure of receptive fields, theoretical and effective."""

import math
import re
from base64 import b64decode, b64encode
from functools import partial
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.drawing import make_figure
from deeplab_bench.report import captions, figures
from deeplab_bench.report.figures import choose_look
from deeplab_bench.report.formats import (
    SHOWN_DECIMALS,
    Table,
    format_cells,
    mark_none,
    render_formats,
)
from deeplab_bench.report.marks import Marks, find_marks
from deeplab_bench.report.results import Results
from deeplab_bench.report.samples import read_strip
from deeplab_bench.report.speed_tables import format_size
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import Effective, ReceptiveFieldRecord

COLUMNS = 8
ROWS = ("on an image", "before training", "after training")
GREY = 220
PNG_COLOURS = 256  # of the figure as a PNG
MAP_COLOURS = 48  # of each map in the SVG
EMBEDDED = re.compile(rb'(?<=data:image/png;base64,)[^"]+')


def render(results: Results) -> dict[str, str]:
    """Return the table's files by name."""
    return render_formats(build_receptive_field(results), "receptive_field", results)


def render_figure(results: Results) -> dict[str, bytes]:
    """Return the figure by file name. Its images have palettes, which makes files smaller."""
    files = figures.render_figure("receptive_field", partial(draw_receptive_field, results))
    return {
        name: reduce_embedded(content)
        if name.endswith("svg")
        else reduce_colours(content, PNG_COLOURS)
        for name, content in files.items()
    }


def reduce_embedded(svg: bytes) -> bytes:
    """Reduce each image in an SVG to a palette of its own."""
    return EMBEDDED.sub(
        lambda found: b64encode(reduce_colours(b64decode(found.group()), MAP_COLOURS)), svg
    )


def reduce_colours(png: bytes, colours: int) -> bytes:
    """Reduce an opaque image to a palette of at most this many colours."""
    buffer = BytesIO()
    with Image.open(BytesIO(png)) as image:
        image.convert("RGB").quantize(
            colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def build_receptive_field(results: Results) -> Table:
    rows = [describe_field(run) for run in results.fields]
    data = pd.DataFrame(rows).astype({"field_px": float})
    text = format_cells(data, SHOWN_DECIMALS)
    text["field_px"] = text["field_px"].where(data["field_px"].notna(), "whole image")
    title = f"Receptive fields on the profile {results.profile}"
    best = mark_none(data, text.columns)
    return Table(title, data, text, best, captions.describe_receptive_field(results))


def describe_field(run: ReceptiveFieldRecord) -> dict[str, str | float | None]:
    theory, before, after = run.theoretical, run.effective.before, run.effective.after
    return {
        "model": run.model,
        "architecture": run.architecture,
        "field_px": theory.size_px,
        "field_stride_px": theory.stride_px,
        "field_share": 100 * theory.share,
        "effective_before_px": before.size_px,
        "effective_after_px": after.size_px,
        "effective_share": 100 * after.share,
        "half_before_px": before.half_px,
        "half_after_px": after.half_px,
    }


def draw_receptive_field(results: Results) -> Figure:
    """Draw a column for each model: fields on an image, gradients before and after training."""
    marks = find_marks(results)
    columns = min(len(results.fields), COLUMNS)
    blocks = math.ceil(len(results.fields) / COLUMNS)
    height, width = results.fields[0].image_size
    figure = make_figure(0.8 + 1.25 * columns, 1.0 + 3 * blocks * (0.45 + 1.2 * height / width))
    panels = figure.subplots(len(ROWS) * blocks, columns, squeeze=False)
    background = choose_background(results)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.set_visible(False)
    for index, run in enumerate(results.fields):
        block, column = divmod(index, COLUMNS)
        column_of_panels = panels[len(ROWS) * block :, column]
        draw_model(column_of_panels, results, run, background)
        column_of_panels[0].set_title(
            marks.add_to(run.model), weight="normal", loc="center", fontsize=8
        )
        if column == 0:
            for axes, label in zip(column_of_panels, ROWS, strict=False):
                axes.set_ylabel(label)
    size = format_size(results.fields[0].image_size)
    title = f"{results.profile}: receptive field of the middle pixel, input of {size} px"
    figure.suptitle(title, ha="left", x=0.01)
    lines = explain_lines(marks)
    figure.legend(handles=lines, loc="outside lower center", ncols=1 if columns < 5 else len(lines))
    return figure


def draw_model(
    panels: NDArray[np.object_],
    results: Results,
    run: ReceptiveFieldRecord,
    background: NDArray[np.uint8],
) -> None:
    on_image, before, after = panels[: len(ROWS)]
    on_image.imshow(background, interpolation="none")
    draw_fields(on_image, run, choose_look(results, run.model)[0])
    on_image.set_xlabel(label_theory(run), fontsize=7.5)
    gradients = read_gradient_maps(results, run)
    measured = (run.effective.before, run.effective.after)
    for axes, pixels, field in zip((before, after), gradients, measured, strict=True):
        axes.imshow(pixels, cmap="cividis", vmin=0, vmax=1, interpolation="none")
        axes.set_xlabel(label_effective(run, field), fontsize=7.5)
    for axes in (on_image, before, after):
        axes.set_visible(True)


def label_theory(run: ReceptiveFieldRecord) -> str:
    side = find_side(run)
    if covers_image(run):
        return "in theory:\nwhole picture" + (f" ({side} px)" if side else "")
    return f"in theory:\n{run.theoretical.size_px} px"


def label_effective(run: ReceptiveFieldRecord, field: Effective) -> str:
    side = find_side(run)
    of = f" of {side} px" if side else " px"
    return f"effective: {field.size_px:.0f}{of}\nhalf of the gradient:\nmiddle {field.half_px}{of}"


def find_side(run: ReceptiveFieldRecord) -> int | None:
    """Return the side of a square image; for others, the figure's title has both."""
    height, width = run.image_size
    return width if height == width else None


def covers_image(run: ReceptiveFieldRecord) -> bool:
    """Return whether the theoretical field covers the whole image."""
    return run.theoretical.share == 1


def draw_fields(axes: Axes, run: ReceptiveFieldRecord, colour: str) -> None:
    """Draw the theoretical field within the image, and the effective fields as squares."""
    (top, left), (bottom, right) = run.theoretical.first_pixel, run.theoretical.last_pixel
    seen = ((left - 0.5, top - 0.5), right - left + 1, bottom - top + 1)
    axes.add_patch(Rectangle(*seen, fill=False, ec=colour, lw=3, clip_on=False))
    height, width = run.image_size
    for side, line in ((run.effective.after.size_px, "--"), (run.effective.after.half_px, ":")):
        corner = (width // 2 - side / 2, height // 2 - side / 2)
        axes.add_patch(Rectangle(corner, side, side, fill=False, ec="white", lw=2.4))
        axes.add_patch(Rectangle(corner, side, side, fill=False, ec=colour, lw=1.4, ls=line))


def explain_lines(marks: Marks) -> list[Line2D]:
    """Return the entries of the legend."""
    names = {
        "-": "theoretical, within the image",
        "--": "effective, after training",
        ":": "half of the gradient, after training",
    }
    lines = [Line2D([], [], color="0.2", ls=line, label=name) for line, name in names.items()]
    return [*lines, Line2D([], [], ls="", label=marks.describe())] if marks else lines


def choose_background(results: Results) -> NDArray[np.uint8]:
    """Return the first validation image; grey for photographs, which are not published."""
    height, width = results.fields[0].image_size
    if not results.generated:
        return np.full((height, width, 3), GREY, dtype=np.uint8)
    strip = read_strip(ProfileFiles(results.profile).sample_images).convert("RGB")
    return np.asarray(strip.crop((0, 0, width, height)))


def read_gradient_maps(results: Results, run: ReceptiveFieldRecord) -> list[NDArray[np.float64]]:
    """Read the maps before and after training, (H, W) each, from 0 to 1.

    A value is the square root of (gradient / largest gradient), which makes small ones visible.
    """
    height, width = run.image_size
    maps = read_strip(
        ProfileFiles(results.profile).receptive_field_maps(run.model), (2 * width, height)
    )
    return np.split(np.sqrt(np.asarray(maps) / 255), 2, axis=1)
