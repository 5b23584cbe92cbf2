"""Receptive fields: the theoretical ones, and what the networks make of them."""

import math
import re
from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.report import captions as notes
from deeplab_bench.report.plots import files_of as figure_files
from deeplab_bench.report.plots import look, new_figure
from deeplab_bench.report.results import FieldRun, Results
from deeplab_bench.report.samples import read_strip
from deeplab_bench.report.tables import Table, files_of, formatted
from deeplab_bench.results.files import receptive_field_maps_file, sample_images_file

COLUMNS = 8
ROWS = ("on an image", "before training", "after training")
GREY = 220
COLOURS = 256  # of the figure as a PNG
MAP_COLOURS = 48  # of each map in the SVG
EMBEDDED = re.compile(rb'(?<=data:image/png;base64,)[^"]+')


def render(results: Results) -> dict[str, str]:
    return files_of(receptive_field(results), "receptive_field", results)


def render_figure(results: Results) -> dict[str, bytes]:
    """In palettes: in full colour the noise of gradients makes files three times as large."""
    files = figure_files("receptive_field", lambda: figure(results))
    return {
        name: with_palettes(content) if name.endswith("svg") else in_palette(content, COLOURS)
        for name, content in files.items()
    }


def with_palettes(svg: bytes) -> bytes:
    """The images in an SVG in palettes of their own."""
    return EMBEDDED.sub(
        lambda found: b64encode(in_palette(b64decode(found.group()), MAP_COLOURS)), svg
    )


def in_palette(png: bytes, colours: int) -> bytes:
    """An opaque image in at most so many colours."""
    buffer = BytesIO()
    with Image.open(BytesIO(png)) as image:
        image.convert("RGB").quantize(
            colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def receptive_field(results: Results) -> Table:
    data = pd.DataFrame([row(run) for run in results.fields]).astype({"field_px": float})
    text = formatted(data)
    text["field_px"] = text["field_px"].where(data["field_px"].notna(), "whole image")
    title = f"Receptive fields on the profile {results.profile}"
    unmarked = pd.DataFrame(False, data.index, text.columns)
    return Table(title, data, text, unmarked, notes.receptive_field(results))


def row(run: FieldRun) -> dict[str, str | float | None]:
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


def figure(results: Results) -> Figure:
    """A column per model: its fields on an image, its gradients before and after training."""
    columns = min(len(results.fields), COLUMNS)
    blocks = math.ceil(len(results.fields) / COLUMNS)
    height, width = results.fields[0].image_size
    drawn = new_figure(0.8 + 1.25 * columns, 1.0 + 3 * blocks * (0.3 + 1.2 * height / width))
    panels = drawn.subplots(len(ROWS) * blocks, columns, squeeze=False)
    background = image(results)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.set_visible(False)
    for index, run in enumerate(results.fields):
        block, column = divmod(index, COLUMNS)
        column_of_panels = panels[len(ROWS) * block :, column]
        draw_model(column_of_panels, results, run, background)
        if column == 0:
            for axes, label in zip(column_of_panels, ROWS, strict=False):
                axes.set_ylabel(label)
    drawn.suptitle(f"{results.profile}: receptive field of the middle pixel", ha="left", x=0.01)
    drawn.legend(
        handles=legend(), loc="outside lower center", ncols=1 if columns < 5 else len(legend())
    )
    return drawn


def draw_model(
    panels: NDArray[np.object_], results: Results, run: FieldRun, background: NDArray[np.uint8]
) -> None:
    on_image, before, after = panels[: len(ROWS)]
    on_image.imshow(background, interpolation="none")
    draw_fields(on_image, run, look(results, run.model)[0])
    theory = run.theoretical.size_px
    on_image.set_title(run.model, weight="normal", loc="center", fontsize=8)
    on_image.set_xlabel("whole image" if theory is None else f"{theory} px", fontsize=8)
    gradients = gradient_maps(results, run)
    found = (run.effective.before, run.effective.after)
    for axes, pixels, measured in zip((before, after), gradients, found, strict=True):
        axes.imshow(pixels, cmap="cividis", vmin=0, vmax=1, interpolation="none")
        label = f"{measured.size_px:.0f} px, half {measured.half_px:.0f}"
        axes.set_xlabel(label, fontsize=8)
    for axes in (on_image, before, after):
        axes.set_visible(True)


def draw_fields(axes: Axes, run: FieldRun, colour: str) -> None:
    """The theoretical field as far as it lies in the image, the effective ones as squares."""
    (top, left), (bottom, right) = run.theoretical.first_pixel, run.theoretical.last_pixel
    seen = ((left - 0.5, top - 0.5), right - left + 1, bottom - top + 1)
    axes.add_patch(Rectangle(*seen, fill=False, ec=colour, lw=3, clip_on=False))
    height, width = run.image_size
    for side, line in ((run.effective.after.size_px, "--"), (run.effective.after.half_px, ":")):
        corner = (width // 2 - side / 2, height // 2 - side / 2)
        axes.add_patch(Rectangle(corner, side, side, fill=False, ec="white", lw=2.4))
        axes.add_patch(Rectangle(corner, side, side, fill=False, ec=colour, lw=1.4, ls=line))


def legend() -> list[Line2D]:
    names = {
        "-": "theoretical, within the image",
        "--": "effective, after training",
        ":": "half of the gradient, after training",
    }
    return [Line2D([], [], color="0.2", ls=line, label=name) for line, name in names.items()]


def image(results: Results) -> NDArray[np.uint8]:
    """The first validation image; grey in place of photographs, which are not published."""
    height, width = results.fields[0].image_size
    if not results.generated:
        return np.full((height, width, 3), GREY, dtype=np.uint8)
    strip = read_strip(sample_images_file(results.profile)).convert("RGB")
    return np.asarray(strip.crop((0, 0, width, height)))


def gradient_maps(results: Results, run: FieldRun) -> list[NDArray[np.float64]]:
    """Before and after training, as roots of the largest gradient's parts: small ones show."""
    height, width = run.image_size
    maps = read_strip(receptive_field_maps_file(results.profile, run.model), (2 * width, height))
    return np.split(np.sqrt(np.asarray(maps) / 255), 2, axis=1)
