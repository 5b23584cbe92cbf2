"""A generated data set that needs multi-scale context.

All classes and the clutter have the same textures, so only the outline of a whole object shows its
class: a pixel inside a triangle looks like one inside a disc until the object's corners are seen.
Objects are between a fifth of the image and the whole image in size.

Pixels are the same on every machine: they are computed from integers, from floating-point
operations that IEEE 754 rounds exactly, and from a random generator whose numbers never change.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from tqdm import tqdm

from deeplab_bench.data.context_radius import Mask, compute_context_radii
from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.pixels import VOID, Pixels, write_label
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.settings.base import PositiveInt

CLASSES = ("background", "disc", "ring", "triangle", "cross")
RADII = (0.1, 0.14, 0.19, 0.25, 0.32, 0.4)  # as fractions of the image's side
VOID_RIM_PX = 1
OBJECTS_STREAM = 2**32 - 1  # the random stream of single objects; those of the splits count from 0
CLUTTER = 8
GROUND, FIGURE = (20, 80), (130, 210)

DISC, HOLE = math.sqrt(0.8), math.sqrt(0.3)  # radii in the coordinates of ``fill_outline``
# Unit vectors about 15 degrees apart, from half-angle tangents and quarter turns.
TANGENTS = [0.069 * step for step in range(-5, 6, 2)]
EIGHTHS = [((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)) for t in TANGENTS]
QUARTERS = ((1, 0), (0, 1), (-1, 0), (0, -1))
DIRECTIONS = [(a * c - b * s, a * s + b * c) for a, b in EIGHTHS for c, s in QUARTERS]
# Half planes a u + b v <= c whose borders are the straight edges, or tangents, of each shape.
EDGES: dict[str, list[tuple[float, float, float]]] = {
    "disc": [(a, b, DISC) for a, b in DIRECTIONS],
    "ring": [line for a, b in DIRECTIONS for line in ((a, b, 1.0), (a, b, -HOLE))],
    "triangle": [(0, 1, 0.7), (1.5, -1, 1.1), (-1.5, -1, 1.1)],
    "cross": [(a, b, c) for a, b in QUARTERS for c in (1.1, 0.35)],
    "scrap": [(a, b, 1.0) for a, b in QUARTERS],
}

Grid = NDArray[np.float64]
Coordinates = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """An object or a scrap in a scene: its mask (H, W) without occlusion, and its coordinates.

    ``u`` and ``v`` (H, W) are the pixels' positions relative to the piece, see ``fill_outline``.
    """

    name: str
    mask: Mask
    u: Grid
    v: Grid


@dataclass(frozen=True)
class Scene:
    """An image (H, W, 3), its label (H, W), and the pieces in it from back to front."""

    image: Pixels
    label: Pixels
    pieces: list[Piece]


class ShapesData(DataSet):
    """The settings of the generated scenes."""

    generated: ClassVar[bool] = True

    dataset: Literal["shapes"]
    """The name of the data set."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """The seed of the random scenes."""
    image_size: Annotated[int, Field(ge=32)]
    """The side of an image in pixels."""
    train_images: PositiveInt
    """Images to train on."""
    val_images: PositiveInt
    """Images to score."""

    def make_voc_folder(self, downloads: Path, made: Path, unpacked: Path) -> VocFolder:
        folder = VocFolder(made)
        images = {"train": self.train_images, "val": self.val_images}
        generate(folder, seed=self.seed, image_size=self.image_size, images=images)
        return folder

    def class_names(self) -> list[str]:
        return list(CLASSES)

    def draw_object(self, index: int, size: int) -> tuple[Pixels, int]:
        random = np.random.RandomState([self.seed, OBJECTS_STREAM, index])
        scene = draw_scene(random, size, alone=True)
        return scene.image, CLASSES.index(scene.pieces[-1].name)

    def estimate_pixels(self) -> int:
        return (self.train_images + self.val_images) * self.image_size**2

    def describe(self, validation: str) -> str:
        return (
            f"generated scenes of {self.image_size}x{self.image_size} px "
            f"(`shapes`, seed {self.seed}; {self.train_images} training and {validation})"
        )


def generate(folder: VocFolder, *, seed: int, image_size: int, images: dict[str, int]) -> None:
    """Write generated splits in Pascal VOC's layout; ``images`` is the size of each by its name.

    The split ``val`` gets context radii (``compute_context_radii``), too. Images are PNGs because
    JPEG decoders differ between machines.
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
                pieces = [(piece.mask, find_differences(piece)) for piece in scene.pieces]
                radii = compute_context_radii(pieces, scene.label.shape)
                Image.fromarray(radii).save(folder.context_radius_path(name), optimize=True)
        listing = folder.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")


def draw_scene(random: np.random.RandomState, size: int, *, alone: bool = False) -> Scene:
    """Draw a random square scene: large objects behind small ones, clutter behind all objects.

    With ``alone``, there is one object, whose middle is at least its radius away from the border.
    """
    y, x = np.mgrid[:size, :size]
    image = draw_texture(random, x, y, GROUND)
    label = np.zeros((size, size), dtype=np.uint8)
    pieces = []
    for _ in range(CLUTTER):
        scrap = draw_scrap(random, x, y)
        image[scrap.mask] = draw_texture(random, x[scrap.mask], y[scrap.mask], FIGURE)
        pieces.append(scrap)
    count = 1 if alone else random.randint(1, 4)
    for radius in sorted(random.choice(RADII, size=count) * size, reverse=True):
        index = random.randint(1, len(CLASSES))
        margin = int(radius) if alone else 0
        piece = draw_object(random, CLASSES[index], x, y, radius, margin)
        image[piece.mask] = draw_texture(random, x[piece.mask], y[piece.mask], FIGURE)
        label[piece.mask] = index
        label[find_rim(piece.mask)] = VOID
        pieces.append(piece)
    return Scene(expose(random, image, x, y), label, pieces)


def draw_object(
    random: np.random.RandomState,
    name: str,
    x: Coordinates,
    y: Coordinates,
    radius: float,
    margin: int = 0,
) -> Piece:
    """Draw an object of the class ``name``; its coordinates are those of ``fill_outline``."""
    u, v = draw_coordinates(random, x, y, margin)
    u, v = u / radius, v / radius
    return Piece(name, fill_outline(name, u, v), u, v)


def draw_coordinates(
    random: np.random.RandomState, x: Coordinates, y: Coordinates, margin: int = 0
) -> tuple[Grid, Grid]:
    """Return (u, v) in pixels, rotated at random, whose origin is a random pixel of the image.

    The origin is at least ``margin`` pixels away from the border.
    """
    cosine, sine = draw_rotation(random)
    dx, dy = (axis - float(random.randint(margin, len(x) - margin)) for axis in (x, y))
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def fill_outline(name: str, u: Grid, v: Grid) -> Mask:
    """Return the mask of a class's shape, whose radius is about 1 in the coordinates (u, v)."""
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


def draw_scrap(random: np.random.RandomState, x: Coordinates, y: Coordinates) -> Piece:
    """Draw clutter: a rectangle of no class, as thin as the parts of the smallest objects.

    Its sides are at -1 and 1 in its coordinates.
    """
    u, v = draw_coordinates(random, x, y)
    length, breadth = random.randint(3, 10), random.randint(1, 3)
    u, v = u / length, v / (breadth / 2)
    return Piece("scrap", (np.abs(u) <= 1) & (np.abs(v) <= 1), u, v)


def find_differences(piece: Piece) -> Iterator[Mask]:
    """Yield the pixels where each look-alike differs from the piece, without the piece's rim."""
    beside_the_rim = ~find_rim(piece.mask)
    for other in make_look_alikes(piece.name, piece.u, piece.v):
        yield (other != piece.mask) & beside_the_rim


def make_look_alikes(name: str, u: Grid, v: Grid) -> Iterator[Mask]:
    """Yield masks that share a part of this shape's outline but may be of another class.

    Size, position and rotation of objects are unknown. So any edge or tangent of the shape may be
    the edge of a very large triangle or cross, whose other edges are not visible: a half plane. A
    disc and a ring of equal size differ only in the hole.
    """
    if name == "disc":
        yield fill_outline("ring", u / DISC, v / DISC)
    if name == "ring":
        yield fill_outline("disc", u * DISC, v * DISC)
    for a, b, c in EDGES[name]:
        yield a * u + b * v <= c


def draw_rotation(random: np.random.RandomState) -> tuple[float, float]:
    """Return cosine and sine of a random angle, without a math library's sine."""
    t = random.randint(-150, 151) / 1000
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return (cosine, sine) if random.randint(2) else (-sine, cosine)


def draw_texture(
    random: np.random.RandomState, x: Coordinates, y: Coordinates, shades: tuple[int, int]
) -> NDArray[np.int64]:
    """Return random stripes of two colours at the pixels (x, y): int64 (..., 3) from 0 to 255."""
    a, b = random.randint(-8, 9, size=2)
    period = random.randint(24, 80)
    dark = random.randint(*shades, size=3)
    light = dark + random.randint(5, 30, size=3)
    stripes = (a * x + b * y) % period < period // 2
    return np.where(stripes[..., None], light, dark)


def find_rim(mask: Mask) -> Mask:
    """Return the pixels within ``VOID_RIM_PX`` of the outline, on both of its sides."""
    padded = np.pad(mask, VOID_RIM_PX, mode="edge")
    span = 2 * VOID_RIM_PX + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (span, span))
    some, every = windows.any(axis=(2, 3)), windows.all(axis=(2, 3))
    return np.not_equal(some, every)


def expose(
    random: np.random.RandomState, image: NDArray[np.int64], x: Coordinates, y: Coordinates
) -> Pixels:
    """Apply light that changes linearly across the image, and add noise."""
    size = len(x)
    across, down = random.randint(-96, 97, size=2)
    light = 256 + (across * (2 * x - size) + down * (2 * y - size)) // (2 * size)
    noise = random.randint(-8, 9, size=(2, *image.shape)).sum(axis=0)
    return np.clip(image * light[..., None] // 256 + noise, 0, 255).astype(np.uint8)
