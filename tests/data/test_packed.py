import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_archives import Usage
from test_voc_layout import add_pair, make_folder

from deeplab_bench.data.packed import compute_data_sha256, load_split
from deeplab_bench.data.packing import pack
from deeplab_bench.data.pixels import DataError, Pixels, write_label
from deeplab_bench.data.voc_layout import VocFolder

CLASSES = ["ground", "tree"]
NAMES = {"train": ["c", "a", "b"], "val": ["d"]}
SHAPES = {"a": (4, 6), "b": (6, 4), "c": (5, 3), "d": (1, 7)}


def label_of(name: str) -> Pixels:
    random = np.random.default_rng(sum(name.encode()))
    return random.choice(np.array([0, 1, 255], dtype=np.uint8), SHAPES[name])


@pytest.fixture
def source(tmp_path: Path) -> VocFolder:
    splits = {split: {name: label_of(name) for name in names} for split, names in NAMES.items()}
    folder = make_folder(tmp_path / "source", splits)
    folder.image_path("b").unlink()
    add_pair(folder, "b", label_of("b"), "jpg")
    return folder


@pytest.fixture
def packed(source: VocFolder, tmp_path: Path) -> Path:
    pack(source, NAMES, CLASSES, tmp_path / "packed")
    return tmp_path / "packed"


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(source: VocFolder, packed: Path, name: str) -> None:
    split = load_split(packed, name)
    assert len(split) == len(NAMES[name])
    assert (split.names, split.classes) == (NAMES[name], CLASSES)
    assert split.sizes == [SHAPES[image] for image in NAMES[name]]
    for index, image in enumerate(NAMES[name]):
        with Image.open(source.image_path(image)) as file:
            assert np.array_equal(split.image(index), np.asarray(file))
        assert np.array_equal(split.label(index), label_of(image))
        assert split.image(index).dtype == split.label(index).dtype == np.uint8


def test_pixels_cannot_be_written_to(packed: Path) -> None:
    split = load_split(packed, "train")
    for pixels in (split.image(0), split.label(0)):
        with pytest.raises(ValueError, match="read-only"):
            pixels[:] = 0


def test_no_room_to_pack(
    source: VocFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that an image and its label need four bytes a pixel."""
    needed = 4 * sum(height * width for height, width in SHAPES.values())
    folder = tmp_path / "packed"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9**9, 9**9, needed - 1))
    with pytest.raises(DataError) as caught:
        pack(source, NAMES, CLASSES, folder)
    assert f"{needed} more bytes are needed, {needed - 1} are free" in str(caught.value)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9**9, 9**9, needed))
    pack(source, NAMES, CLASSES, folder)
    assert sum(path.stat().st_size for path in folder.glob("*.bin")) == needed


def test_digest_repeats(source: VocFolder, packed: Path, tmp_path: Path) -> None:
    before = compute_data_sha256(packed)
    pack(source, NAMES, CLASSES, packed)
    pack(source, NAMES, CLASSES, tmp_path / "elsewhere")
    assert compute_data_sha256(packed) == compute_data_sha256(tmp_path / "elsewhere") == before


def change_image(source: VocFolder, _: list[str]) -> None:
    with Image.open(source.image_path("a")) as file:
        image = np.array(file)
    image[3, 5, 2] ^= 1
    Image.fromarray(image).save(source.image_path("a"))


def change_label(source: VocFolder, _: list[str]) -> None:
    label = label_of("a")
    label[3, 5] ^= 1
    write_label(source.label_path("a"), label)


def change_size(source: VocFolder, _: list[str]) -> None:
    """Store the same bytes in another shape."""
    with Image.open(source.image_path("a")) as file:
        image = np.asarray(file)
    Image.fromarray(image.reshape(6, 4, 3)).save(source.image_path("a"))
    write_label(source.label_path("a"), label_of("a").reshape(6, 4))


def rename(source: VocFolder, names: list[str]) -> None:
    names[1] = "e"
    source.image_path("a").rename(source.root / "JPEGImages" / "e.png")
    source.label_path("a").rename(source.label_path("e"))


def reorder(_: VocFolder, names: list[str]) -> None:
    names.sort()


@pytest.mark.parametrize("change", [change_image, change_label, change_size, rename, reorder])
def test_digest_changes(
    source: VocFolder, packed: Path, change: Callable[[VocFolder, list[str]], None]
) -> None:
    before = compute_data_sha256(packed)
    names = {split: list(listed) for split, listed in NAMES.items()}
    change(source, names["train"])
    pack(source, names, CLASSES, packed)
    assert compute_data_sha256(packed) != before


def test_digest_changes_with_the_classes(source: VocFolder, packed: Path) -> None:
    before = compute_data_sha256(packed)
    pack(source, NAMES, CLASSES[::-1], packed)
    assert compute_data_sha256(packed) != before


def test_context_radii_are_packed_and_vouched_for(
    source: VocFolder, packed: Path, tmp_path: Path
) -> None:
    """Check that radii are packed only for a split in which every image has them."""
    before = compute_data_sha256(packed)
    assert load_split(packed, "val").context_radius(0) is None
    source.context_radius_path("a").parent.mkdir()
    for name in NAMES["val"] + NAMES["train"][:1]:
        Image.fromarray(label_of(name) // 2).save(source.context_radius_path(name))
    pack(source, NAMES, CLASSES, packed)
    assert compute_data_sha256(packed) != before
    assert load_split(packed, "train").context_radius(0) is None
    np.testing.assert_array_equal(load_split(packed, "val").context_radius(0), label_of("d") // 2)
    (packed / "val.context_radii.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"context_radii\.bin is missing or incomplete"):
        load_split(packed, "val")


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
def test_arrays_that_are_not_whole(packed: Path, kind: str, damage: str) -> None:
    path = packed / f"train.{kind}.bin"
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] if damage == "cut" else content + b"x")
    command = "dvc repro --single-item --force prepare@packed"
    with pytest.raises(
        DataError, match=re.escape(f"{path} is missing or incomplete: run `{command}`")
    ):
        load_split(packed, "train")
    load_split(packed, "val")


def test_missing_manifest(packed: Path) -> None:
    manifest = packed / "manifest.json"
    manifest.unlink()
    expected = re.escape(f"{manifest} is missing: run `dvc repro prepare@packed`")
    with pytest.raises(DataError, match=expected):
        load_split(packed, "train")


def test_interrupted_packing_leaves_no_manifest(source: VocFolder, packed: Path) -> None:
    source.label_path("d").unlink()
    with pytest.raises(FileNotFoundError):
        pack(source, NAMES, CLASSES, packed)
    assert not (packed / "manifest.json").exists()
