import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_bench.data import camvid
from deeplab_bench.data.archives import DownloadError, unpack
from deeplab_bench.data.voc_layout import DataError

NAMES = {"train": ["0006R0_f00930", "0001TP_006690"], "val": ["0016E5_07959"]}
SIZE = (6, 4)


def label_of(name: str) -> np.ndarray:
    """Make a label as the publisher stores it, with every value from 0 to 11."""
    rng = np.random.default_rng(sum(name.encode()))
    return rng.permutation(np.arange(24) % 12).reshape(SIZE[::-1]).astype(np.uint8)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a small copy of the repository's `CamVid` folder, with the digests of its labels."""
    folder = tmp_path / "CamVid"
    rng = np.random.default_rng(0)
    for split, names in NAMES.items():
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        digest = hashlib.sha256()
        for name in names:
            pixels = rng.integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{name}.png")
            Image.fromarray(label_of(name)).save(folder / f"{split}annot" / f"{name}.png")
        for name in sorted(names):
            values = [255 if value == 11 else value for value in label_of(name).flat]
            digest.update(name.encode() + b"\n" + bytes(values))
        lines = [
            f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n"
            for name in names
        ]
        (folder / f"{split}.txt").write_text("".join(lines))
        monkeypatch.setitem(camvid.PAIRS, split, len(names))
        monkeypatch.setitem(camvid.LABELS_SHA256, split, digest.hexdigest())
    return folder


def refused(published: Path, split: str) -> str:
    destination = published.parent / "voc"
    with pytest.raises(DataError) as caught:
        camvid.convert(published, destination)
    message = str(caught.value)
    assert message.startswith(f"CamVid {split} in {published}: ")
    assert "unpack the archive again" in message
    assert "\n" not in message
    assert [path.name for path in destination.parent.iterdir()] == ["CamVid"]
    return message


def test_writes_voc_layout(published: Path, tmp_path: Path) -> None:
    camvid.convert(published, tmp_path / "voc")
    written = {
        path.relative_to(tmp_path / "voc").as_posix()
        for path in (tmp_path / "voc").rglob("*")
        if path.is_file()
    }
    names = [name for names in NAMES.values() for name in names]
    assert written == {
        "classes.txt",
        *(f"ImageSets/Segmentation/{split}.txt" for split in NAMES),
        *(f"{kind}/{n}.png" for n in names for kind in ("JPEGImages", "SegmentationClass")),
    }
    assert (tmp_path / "voc" / "classes.txt").read_text().split() == list(camvid.CLASSES)
    for split, listed in NAMES.items():
        listing = tmp_path / "voc" / "ImageSets" / "Segmentation" / f"{split}.txt"
        assert listing.read_text() == "".join(f"{name}\n" for name in sorted(listed))


def test_images_and_labels(published: Path, tmp_path: Path) -> None:
    camvid.convert(published, tmp_path / "voc")
    for split, names in NAMES.items():
        for name in names:
            original = (published / split / f"{name}.png").read_bytes()
            assert (tmp_path / "voc" / "JPEGImages" / f"{name}.png").read_bytes() == original
            with Image.open(tmp_path / "voc" / "SegmentationClass" / f"{name}.png") as image:
                assert image.mode == "P"
                palette = image.getpalette()
                values = np.asarray(image)
            assert palette is not None
            assert palette[3:6] == [128, 0, 0]
            assert palette[-3:] == [224, 224, 192]
            label = label_of(name)
            assert (values[label == 11] == 255).all()
            assert (values[label < 11] == label[label < 11]).all()


def test_from_the_archive(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(published, root / camvid.MEMBERS_UNDER)
    shutil.make_archive(str(tmp_path / "archive"), "zip", root)
    unpack(tmp_path / "archive.zip", tmp_path / "raw", members_under=camvid.MEMBERS_UNDER)
    camvid.convert(tmp_path / "raw", tmp_path / "voc")
    assert len(list((tmp_path / "voc" / "SegmentationClass").iterdir())) == 3


@pytest.mark.parametrize("split", NAMES)
def test_wrong_label(published: Path, split: str) -> None:
    name = NAMES[split][0]
    label = label_of(name)
    label[0, 0] = (label[0, 0] + 1) % 12
    Image.fromarray(label).save(published / f"{split}annot" / f"{name}.png")
    assert "the labels differ from the published ones" in refused(published, split)


def test_swapped_names(published: Path) -> None:
    first, second = (published / "trainannot" / f"{name}.png" for name in NAMES["train"])
    first.rename(published / "other")
    second.rename(first)
    (published / "other").rename(second)
    assert "the labels differ from the published ones" in refused(published, "train")


def test_value_beyond_the_classes(published: Path) -> None:
    path = published / "valannot" / f"{NAMES['val'][0]}.png"
    Image.fromarray(np.full(SIZE[::-1], 12, dtype=np.uint8)).save(path)
    assert f"{path} has the value 12" in refused(published, "val")


def test_colour_label(published: Path) -> None:
    path = published / "valannot" / f"{NAMES['val'][0]}.png"
    Image.new("RGB", SIZE).save(path)
    assert str(path) in refused(published, "val")


def test_sizes_differ(published: Path) -> None:
    path = published / "val" / f"{NAMES['val'][0]}.png"
    Image.new("RGB", (3, 3)).save(path)
    assert f"{path} is (3, 3)" in refused(published, "val")


@pytest.mark.parametrize("folder", ["val", "valannot"])
def test_missing_or_broken_file(published: Path, folder: str) -> None:
    path = published / folder / f"{NAMES['val'][0]}.png"
    path.write_bytes(b"not a picture")
    assert str(path) in refused(published, "val")
    path.unlink()
    assert str(path) in refused(published, "val")


def test_number_of_pairs(published: Path) -> None:
    listing = published / "train.txt"
    listing.write_text(listing.read_text().splitlines()[0])
    assert "the list has 1 pairs instead of 2" in refused(published, "train")
    listing.unlink()
    assert str(listing) in refused(published, "train")


def test_destination_in_use(published: Path, tmp_path: Path) -> None:
    camvid.convert(published, tmp_path / "voc")
    with pytest.raises(DownloadError, match=re.escape(f"{tmp_path / 'voc'} already exists")):
        camvid.convert(published, tmp_path / "voc")
