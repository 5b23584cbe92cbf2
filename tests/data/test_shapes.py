import hashlib
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from deeplab_bench.data import shapes
from deeplab_bench.data.context_radius import compute_context_radii
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.data.shapes import (
    CLASSES,
    RADII,
    Coordinates,
    Piece,
    ShapesData,
    draw_object,
    draw_rotation,
    draw_scene,
    draw_texture,
    fill_outline,
    find_rim,
    generate,
)
from deeplab_bench.data.voc_layout import VocFolder, check

SIZE = 64
NEIGHBOURS = np.ones((3, 3), dtype=bool)
# In outline's coordinates: the area, and the largest distance between two points.
EXTENTS = {
    "disc": (0.8 * math.pi, 2 * math.sqrt(0.8)),
    "ring": (0.7 * math.pi, 2.0),
    "triangle": (2.4 * 1.8 / 2, 2.4),
    "cross": (2 * 2.2 * 0.7 - 0.7**2, 2 * math.hypot(1.1, 0.35)),
}


def pixels_of(folder: VocFolder, split: str) -> list[tuple[Pixels, Pixels]]:
    pairs = []
    for name in folder.names(split):
        with (
            Image.open(folder.image_path(name)) as image,
            Image.open(folder.label_path(name)) as label,
        ):
            pairs.append((np.asarray(image), np.asarray(label)))
    return pairs


def make(root: Path, *, seed: int = 0, size: int = SIZE, train: int = 3, val: int = 1) -> VocFolder:
    folder = VocFolder(root)
    generate(folder, seed=seed, image_size=size, images={"train": train, "val": val})
    return folder


def diameter_of(mask: NDArray[np.bool_]) -> float:
    points = np.argwhere(mask)
    return float(pdist(points[ConvexHull(points).vertices]).max())


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Pixels, Pixels]]:
    drawn = [draw_scene(np.random.RandomState([7, index]), SIZE) for index in range(120)]
    return [(scene.image, scene.label) for scene in drawn]


def test_pixels_are_the_same_on_every_machine(tmp_path: Path) -> None:
    folder = make(tmp_path)
    digest = hashlib.sha256()
    for image, label in pixels_of(folder, "train") + pixels_of(folder, "val"):
        digest.update(image.tobytes() + label.tobytes())
    assert digest.hexdigest() == "ea3cd4df3060b850689bcacf2a81458b591bdab330129b2707a2210ec4d5c0c8"


def test_is_a_sound_folder(tmp_path: Path) -> None:
    folder = make(tmp_path, size=40)
    assert folder.names("train") == ["train_00000", "train_00001", "train_00002"]
    assert folder.names("val") == ["val_00000"]
    assert folder.classes() == list(CLASSES)
    for split in ("train", "val"):
        check(folder, folder.names(split), len(CLASSES), title=split)
        for image, label in pixels_of(folder, split):
            assert image.shape == (40, 40, 3)
            assert label.shape == (40, 40)


def test_context_radii_lie_beside_the_labels_of_val(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (path,) = (tmp_path / "ContextRadius").iterdir()
    assert path == folder.context_radius_path("val_00000")
    scene = draw_scene(np.random.RandomState([0, 1, 0]), SIZE)
    pieces = [(piece.mask, shapes.find_differences(piece)) for piece in scene.pieces]
    with Image.open(path) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(image, compute_context_radii(pieces, (SIZE, SIZE)))


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, second, other = (make(tmp_path / str(i), seed=i // 2).root for i in range(3))
    assert contents(first) == contents(second)
    ours, theirs = contents(first), contents(other)
    assert all(ours[name] != theirs[name] for name in ours if name.endswith(".png"))


def test_more_images_leave_the_first_as_they_were(tmp_path: Path) -> None:
    few, many = contents(make(tmp_path / "0").root), contents(make(tmp_path / "1", train=5).root)
    assert all(many[name] == few[name] for name in few if name.endswith(".png"))


def test_no_image_occurs_twice(tmp_path: Path) -> None:
    folder = make(tmp_path, train=8, val=8)
    pairs = pixels_of(folder, "train") + pixels_of(folder, "val")
    assert len({image.tobytes() for image, _ in pairs}) == len(pairs)


def test_a_single_object_is_in_the_image_and_of_no_split(tmp_path: Path) -> None:
    data = ShapesData(dataset="shapes", seed=0, image_size=SIZE, train_images=3, val_images=1)
    classes = set()
    for index in range(40):
        image, label = data.draw_object(index, 64)
        random = np.random.RandomState([0, shapes.OBJECTS_STREAM, index])
        scene = draw_scene(random, 64, alone=True)
        np.testing.assert_array_equal(image, scene.image)
        *clutter, piece = scene.pieces
        assert {scrap.name for scrap in clutter} == {"scrap"}
        assert piece.name == CLASSES[label]
        assert set(np.unique(scene.label)) <= {0, label, 255}
        squared_radius = 1 / np.sum(np.square(np.gradient(piece.u)), axis=0).mean()
        assert piece.mask.sum() > 0.8 * EXTENTS[piece.name][0] * squared_radius
        classes.add(label)
    assert classes == {1, 2, 3, 4}
    size = 40
    own = data.model_copy(update={"image_size": size}).draw_object(0, size)[0].tobytes()
    folder = make(tmp_path, size=size)
    pairs = pixels_of(folder, "train") + pixels_of(folder, "val")
    assert own not in {image.tobytes() for image, _ in pairs}


def test_every_class_is_common(scenes: list[tuple[Pixels, Pixels]]) -> None:
    images_with = [sum((label == index).any() for _, label in scenes) for index in range(5)]
    assert images_with[0] > 0.9 * len(scenes)
    assert min(images_with[1:]) > 0.25 * len(scenes)
    assert max(images_with[1:]) < 1.5 * min(images_with[1:])


def test_void_separates_all_labels(scenes: list[tuple[Pixels, Pixels]]) -> None:
    for _, label in scenes:
        for index in range(len(CLASSES)):
            own = label == index
            around = binary_dilation(own, NEIGHBOURS) & ~own
            assert (label[around] == 255).all()


def test_void_is_a_thin_rim(scenes: list[tuple[Pixels, Pixels]]) -> None:
    void = np.mean([(label == 255).mean() for _, label in scenes])
    assert 0.03 < void < 0.12
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = random.random((9, 12)) < random.random()
        inside = binary_erosion(mask, NEIGHBOURS, border_value=1)
        around = binary_dilation(mask, NEIGHBOURS) & ~inside
        assert np.array_equal(find_rim(mask), around)


@pytest.mark.parametrize("name", CLASSES[1:])
def test_outlines(name: str) -> None:
    v, u = np.mgrid[-150:151, -150:151] / 100
    mask = fill_outline(name, u, v)
    area, diameter = EXTENTS[name]
    assert mask.sum() * 0.01**2 == pytest.approx(area, rel=0.02)
    assert diameter_of(mask) * 0.01 == pytest.approx(diameter, rel=0.02)
    assert np.array_equal(mask, mask[:, ::-1])
    assert mask[150, 150] == (name != "ring")


@pytest.mark.parametrize("name", CLASSES[1:])
def test_turned_objects_keep_their_size(name: str) -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    masks = [draw_object(np.random.RandomState(i), name, x, y, 12.0).mask for i in range(60)]
    whole = [m for m in masks if not (m[[0, -1]].any() or m[:, [0, -1]].any())]
    assert len({mask.tobytes() for mask in whole}) > 10
    area, diameter = EXTENTS[name]
    for mask in whole:
        assert mask.sum() == pytest.approx(12**2 * area, rel=0.06)
        assert diameter_of(mask) == pytest.approx(12 * diameter, abs=3)


def test_rotation() -> None:
    turns = np.array([draw_rotation(np.random.RandomState(seed)) for seed in range(200)])
    assert np.hypot(*turns.T) == pytest.approx(1.0)
    angles = np.degrees(np.arctan2(*turns.T[::-1]))
    lying = angles > 45
    assert 0.4 < lying.mean() < 0.6
    for upright in (angles[~lying], angles[lying] - 90):
        assert -18 < upright.min() < -15 and 15 < upright.max() < 18


def test_objects_reach_from_a_fifth_of_the_image_to_all_of_it() -> None:
    for _, diameter in EXTENTS.values():
        assert 0.15 < diameter * min(RADII) < 0.25
        assert 0.7 < diameter * max(RADII) < 1
    steps = [larger / smaller for smaller, larger in pairwise(RADII)]
    assert min(steps) > 1.2 and max(steps) < 1.45


def test_objects_cover_little_or_most_of_an_image(scenes: list[tuple[Pixels, Pixels]]) -> None:
    shares = [(label == i).mean() for _, label in scenes for i in range(1, 5) if (label == i).any()]
    assert min(shares) < 0.01
    assert max(shares) > 0.3


def test_large_objects_lie_behind_small(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, int, NDArray[np.bool_]]] = []

    def spy(
        random: np.random.RandomState,
        name: str,
        x: Coordinates,
        y: Coordinates,
        radius: float,
        margin: int,
    ) -> Piece:
        piece = draw_object(random, name, x, y, radius, margin)
        drawn.append((radius, CLASSES.index(name), piece.mask))
        return piece

    monkeypatch.setattr(shapes, "draw_object", spy)
    counts = set()
    for seed in range(20):
        drawn.clear()
        label = draw_scene(np.random.RandomState(seed), 32).label
        counts.add(len(drawn))
        radii = [radius for radius, _, _ in drawn]
        assert radii == sorted(radii, reverse=True)
        for y, x in np.argwhere(label != 255):
            in_front = [index for _, index, mask in drawn if mask[y, x]]
            assert label[y, x] == (in_front[-1] if in_front else 0)
    assert counts == {1, 2, 3}


def test_colour_does_not_tell_the_class(scenes: list[tuple[Pixels, Pixels]]) -> None:
    colours = [
        [image[label == i].mean(axis=0) for image, label in scenes if (label == i).sum() > 8]
        for i in range(1, len(CLASSES))
    ]
    means = np.array([np.mean(values, axis=0) for values in colours])
    spread = np.min([np.std(values, axis=0) for values in colours], axis=0)
    assert (np.ptp(means, axis=0) < 0.6 * spread).all()


def test_clutter_is_as_bright_as_objects(scenes: list[tuple[Pixels, Pixels]]) -> None:
    bright = np.concatenate([label[image.mean(axis=2) > 130] for image, label in scenes])
    assert 0.05 < (bright == 0).mean() < 0.5


def test_light_and_noise_rarely_saturate(scenes: list[tuple[Pixels, Pixels]]) -> None:
    pixels = np.array([image for image, _ in scenes])
    assert ((pixels == 0) | (pixels == 255)).mean() < 0.01


def test_texture_has_two_colours() -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    for seed in range(20):
        stripes = draw_texture(np.random.RandomState(seed), x, y, (130, 210))
        dark, *light = np.unique(stripes.reshape(-1, 3), axis=0)
        assert (dark >= 130).all() and (dark < 210).all()
        assert len(light) <= 1
        assert all(((other - dark >= 5) & (other - dark < 30)).all() for other in light)
