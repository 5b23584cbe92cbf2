"""A generated segmentation set that needs multi-scale context.

Every class shares its texture with all others and with the clutter, so that only an object's
global outline tells its class: a pixel inside a triangle and one inside a disc look alike until the
object's corners are seen. Objects go from a tenth of the image to larger than it.

Pixels come from integers, IEEE's exactly rounded operations and a frozen random stream alone, so
that they are the same on every machine.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.context_radius import Mask, context_radii
from deeplab_bench.data.voc_layout import VOID, Pixels, VocFolder, write_label

CLASSES = ("background", "disc", "ring", "triangle", "cross")
RADII = (0.06, 0.08, 0.11, 0.15, 0.2, 0.27, 0.36, 0.48, 0.62)  # of the image's side
VOID_RIM_PX = 1
CLUTTER = 8
GROUND, FIGURE = (20, 80), (130, 210)

DISC, HOLE = math.sqrt(0.8), math.sqrt(0.3)  # radii, in an outline's coordinates
# Unit vectors about 15 degrees apart, by half-angle tangents and quarter turns.
TANGENTS = [0.069 * step for step in range(-5, 6, 2)]
EIGHTHS = [((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)) for t in TANGENTS]
QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))
DIRECTIONS = [(a * c - b * s, a * s + b * c) for a, b in EIGHTHS for c, s in QUARTERS]
# The half planes a u + b v <= c that hold a shape, or touch it from within, along its edges.
EDGES: dict[str, list[tuple[float, float, float]]] = {
    "disc": [(a, b, DISC) for a, b in DIRECTIONS],
    "ring": [line for a, b in DIRECTIONS for line in ((a, b, 1.0), (a, b, -HOLE))],
    "triangle": [(0, 1, 0.7), (1.5, -1, 1.1), (-1.5, -1, 1.1)],
    "cross": [(a, b, c) for a, b in QUARTERS for c in (1.1, 0.35)],
    "scrap": [(a, b, 1.0) for a, b in QUARTERS],
}

Grid = NDArray[np.float64]
Pixel = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """A thing in a scene: where it lies (H, W), covered by none, and coordinates of its own."""

    name: str
    mask: Mask
    u: Grid
    v: Grid


@dataclass(frozen=True)
class Scene:
    """An image (H, W, 3), its label (H, W), and the pieces that were drawn, back to front."""

    image: Pixels
    label: Pixels
    pieces: list[Piece]


def generate(folder: VocFolder, *, seed: int, image_size: int, images: dict[str, int]) -> None:
    """Write a split of so many ``images`` for each name, in Pascal VOC's layout.

    The split ``val`` has context radii (``context_radii``) beside its labels.
    Images are PNGs: JPEG decoders differ between machines.
    """
    for sub in ("JPEGImages", "SegmentationClass", "ContextRadius", "ImageSets/Segmentation"):
        (folder.root / sub).mkdir(parents=True, exist_ok=True)
    (folder.root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    for stream, (split, count) in enumerate(images.items()):
        names = [f"{split}_{index:05d}" for index in range(count)]
        for index, name in enumerate(tqdm(names, desc=f"generating {split}", unit="image")):
            random = np.random.RandomState([seed, stream, index])
            scene = draw_scene(random, image_size)
            Image.fromarray(scene.image).save(folder.root / "JPEGImages" / f"{name}.png")
            write_label(folder.label_path(name), scene.label)
            if split == "val":
                pieces = [(piece.mask, differences(piece)) for piece in scene.pieces]
                radii = context_radii(pieces, scene.label.shape)
                Image.fromarray(radii).save(folder.context_radius_path(name), optimize=True)
        listing = folder.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")


def draw_scene(random: np.random.RandomState, size: int) -> Scene:
    """A square scene, large objects behind small, clutter behind all."""
    y, x = np.mgrid[:size, :size]
    image = texture(random, x, y, GROUND)
    label = np.zeros((size, size), dtype=np.uint8)
    pieces = []
    for _ in range(CLUTTER):
        scrap = draw_scrap(random, x, y)
        image[scrap.mask] = texture(random, x[scrap.mask], y[scrap.mask], FIGURE)
        pieces.append(scrap)
    count = random.randint(1, 4)
    for radius in sorted(random.choice(RADII, size=count), reverse=True):
        index = random.randint(1, len(CLASSES))
        piece = draw_object(random, CLASSES[index], x, y, radius * size)
        image[piece.mask] = texture(random, x[piece.mask], y[piece.mask], FIGURE)
        label[piece.mask] = index
        label[rim(piece.mask)] = VOID
        pieces.append(piece)
    return Scene(expose(random, image, x, y), label, pieces)


def draw_object(
    random: np.random.RandomState, name: str, x: Pixel, y: Pixel, radius: float
) -> Piece:
    """An object of this class; its coordinates are those of ``outline``."""
    u, v = placed(random, x, y)
    u, v = u / radius, v / radius
    return Piece(name, outline(name, u, v), u, v)


def placed(random: np.random.RandomState, x: Pixel, y: Pixel) -> tuple[Grid, Grid]:
    """Coordinates in pixels that are turned at random, their origin a pixel of the image."""
    size = len(x)
    cosine, sine = rotation(random)
    dx, dy = x - float(random.randint(size)), y - float(random.randint(size))
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def outline(name: str, u: Grid, v: Grid) -> Mask:
    """The shape of a class in coordinates of its own, of about unit radius."""
    wide, high, squared = np.abs(u), np.abs(v), u * u + v * v
    match name:
        case "disc":
            return squared <= 0.8
        case "ring":
            return (squared <= 1.0) & (squared >= 0.3)
        case "triangle":
            return (v <= 0.7) & (wide * 1.5 <= v + 1.1)
        case "cross":
            return ((wide <= 1.1) & (high <= 0.35)) | ((high <= 1.1) & (wide <= 0.35))
    raise ValueError(f"no outline for class {name!r}")


def draw_scrap(random: np.random.RandomState, x: Pixel, y: Pixel) -> Piece:
    """Clutter: a splinter of no class, as fine as the smallest objects' parts.

    Its own coordinates go from -1 to 1 along either side.
    """
    u, v = placed(random, x, y)
    length, breadth = random.randint(3, 10), random.randint(1, 3)
    u, v = u / length, v / (breadth / 2)
    return Piece("scrap", (np.abs(u) <= 1) & (np.abs(v) <= 1), u, v)


def differences(piece: Piece) -> Iterator[Mask]:
    """Where each of a piece's look-alikes differs from it by more than a rim's width."""
    beside_the_rim = ~rim(piece.mask)
    for other in look_alikes(piece.name, piece.u, piece.v):
        yield (other != piece.mask) & beside_the_rim


def look_alikes(name: str, u: Grid, v: Grid) -> Iterator[Mask]:
    """What shares a stretch of this shape's outline and is, or may be, of another class.

    Of unknown size, place and turn: along a straight line through any edge or tangent there may be
    a triangle or a cross so large that the rest of it is out of sight; a disc and a ring of equal
    size differ in the hole alone.
    """
    if name == "disc":
        yield outline("ring", u / DISC, v / DISC)
    if name == "ring":
        yield outline("disc", u * DISC, v * DISC)
    for a, b, c in EDGES[name]:
        yield a * u + b * v <= c


def rotation(random: np.random.RandomState) -> tuple[float, float]:
    """Cosine and sine of a random angle, by half-angle tangents: exact without a math library."""
    t = random.randint(-150, 151) / 1000
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return (cosine, sine) if random.randint(2) else (-sine, cosine)


def texture(
    random: np.random.RandomState, x: Pixel, y: Pixel, shades: tuple[int, int]
) -> NDArray[np.int64]:
    """Stripes of two colours, period and direction random, at pixels (x, y): (..., 3), 0-255."""
    a, b = random.randint(-8, 9, size=2)
    period = random.randint(24, 80)
    dark = random.randint(*shades, size=3)
    light = dark + random.randint(5, 30, size=3)
    stripes = (a * x + b * y) % period < period // 2
    return np.where(stripes[..., None], light, dark)


def rim(mask: Mask) -> Mask:
    """The pixels within ``VOID_RIM_PX`` of the outline, on both of its sides."""
    padded = np.pad(mask, VOID_RIM_PX, mode="edge")
    span = 2 * VOID_RIM_PX + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (span, span))
    some, every = windows.any(axis=(2, 3)), windows.all(axis=(2, 3))
    return np.not_equal(some, every)


def expose(random: np.random.RandomState, image: Pixel, x: Pixel, y: Pixel) -> Pixels:
    """Light that falls off across the image, and noise."""
    size = len(x)
    across, down = random.randint(-96, 97, size=2)
    light = 256 + (across * (2 * x - size) + down * (2 * y - size)) // (2 * size)
    noise = random.randint(-8, 9, size=(2, *image.shape)).sum(axis=0)
    return np.clip(image * light[..., None] // 256 + noise, 0, 255).astype(np.uint8)
