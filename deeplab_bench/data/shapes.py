"""A generated segmentation set that needs multi-scale context.

Every class shares its texture with all others and with the clutter, so that only an object's
global outline tells its class: a pixel inside a triangle and one inside a disc look alike until the
object's corners are seen. Objects go from a tenth of the image to larger than it.

Pixels come from integers, IEEE's exactly rounded operations and a frozen random stream alone, so
that they are the same on every machine.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.voc_layout import VOID, Pixels, VocFolder, write_label

CLASSES = ("background", "disc", "ring", "triangle", "cross")
RADII = (0.06, 0.08, 0.11, 0.15, 0.2, 0.27, 0.36, 0.48, 0.62)  # of the image's side
VOID_RIM_PX = 1
CLUTTER = 8
GROUND, FIGURE = (20, 80), (130, 210)

Grid = NDArray[np.float64]
Mask = NDArray[np.bool_]
Pixel = NDArray[np.int64]


def generate(folder: VocFolder, *, seed: int, image_size: int, images: dict[str, int]) -> None:
    """Write a split of so many ``images`` for each name, in Pascal VOC's layout.

    Images are PNGs: JPEG decoders differ between machines.
    """
    for sub in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder.root / sub).mkdir(parents=True, exist_ok=True)
    (folder.root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    for stream, (split, count) in enumerate(images.items()):
        names = [f"{split}_{index:05d}" for index in range(count)]
        for index, name in enumerate(tqdm(names, desc=f"generating {split}", unit="image")):
            random = np.random.RandomState([seed, stream, index])
            image, label = draw_scene(random, image_size)
            Image.fromarray(image).save(folder.root / "JPEGImages" / f"{name}.png")
            write_label(folder.label_path(name), label)
        listing = folder.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")


def draw_scene(random: np.random.RandomState, size: int) -> tuple[Pixels, Pixels]:
    """An image (size, size, 3) and its label (size, size), large objects behind small."""
    y, x = np.mgrid[:size, :size]
    image = texture(random, x, y, GROUND)
    label = np.zeros((size, size), dtype=np.uint8)
    for _ in range(CLUTTER):
        scrap = scrap_mask(random, x, y, size)
        image[scrap] = texture(random, x[scrap], y[scrap], FIGURE)
    count = random.randint(1, 4)
    for radius in sorted(random.choice(RADII, size=count), reverse=True):
        index = random.randint(1, len(CLASSES))
        mask = object_mask(random, CLASSES[index], x, y, radius * size)
        image[mask] = texture(random, x[mask], y[mask], FIGURE)
        label[mask] = index
        label[rim(mask)] = VOID
    return expose(random, image, x, y), label


def object_mask(
    random: np.random.RandomState, name: str, x: Pixel, y: Pixel, radius: float
) -> Mask:
    """Where an object of this class lies, turned at random, its centre inside the image."""
    size = len(x)
    cosine, sine = rotation(random)
    dx, dy = x - float(random.randint(size)), y - float(random.randint(size))
    u, v = (dx * cosine + dy * sine) / radius, (dy * cosine - dx * sine) / radius
    return outline(name, u, v)


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


def scrap_mask(random: np.random.RandomState, x: Pixel, y: Pixel, size: int) -> Mask:
    """Clutter: a splinter of no class, as fine as the smallest objects' parts."""
    cosine, sine = rotation(random)
    dx, dy = x - float(random.randint(size)), y - float(random.randint(size))
    u, v = dx * cosine + dy * sine, dy * cosine - dx * sine
    length, breadth = random.randint(3, 10), random.randint(1, 3)
    return (np.abs(u) <= length) & (np.abs(v) <= breadth / 2)


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
