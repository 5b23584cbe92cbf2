import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_bench.data import camvid
from deeplab_bench.data.archives import DownloadError, unpack
from deeplab_bench.data.camvid import CamVidData
from deeplab_bench.data.packed import load_split
from deeplab_bench.data.pixels import DataError
from deeplab_bench.data.preparation import prepare

NAMES = {
    "train": ["0006R0_f00930", "0001TP_006690"],
    "val": ["0016E5_07959"],
    "test": ["Seq05VD_f00030"],
}
CONVERTED = ("train", "val")
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
    names = [name for split in CONVERTED for name in NAMES[split]]
    assert written == {
        "classes.txt",
        *(f"ImageSets/Segmentation/{split}.txt" for split in CONVERTED),
        *(f"{kind}/{n}.png" for n in names for kind in ("JPEGImages", "SegmentationClass")),
    }
    assert (tmp_path / "voc" / "classes.txt").read_text().split() == list(camvid.CLASSES)
    for split in CONVERTED:
        listing = tmp_path / "voc" / "ImageSets" / "Segmentation" / f"{split}.txt"
        assert listing.read_text() == "".join(f"{name}\n" for name in sorted(NAMES[split]))


def test_images_and_labels(published: Path, tmp_path: Path) -> None:
    camvid.convert(published, tmp_path / "voc")
    for split in CONVERTED:
        for name in NAMES[split]:
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


@pytest.mark.parametrize("split", CONVERTED)
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


def test_scores_the_test_split_where_asked(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "root" / camvid.MEMBERS_UNDER)
    shutil.make_archive(str(tmp_path / camvid.ARCHIVE.filename[:-4]), "zip", tmp_path / "root")
    data = CamVidData(dataset="camvid", val_split="test")
    prepare(data, tmp_path, tmp_path / "out")
    assert load_split(tmp_path / "out", "train").names == sorted(NAMES["train"])
    assert load_split(tmp_path / "out", "val").names == NAMES["test"]


def test_validation_is_scored_by_default() -> None:
    data = CamVidData(dataset="camvid")
    assert data.val_split == "val"
    assert data.warn() == "published figures are on CamVid's test split (233 images)"
    tested = CamVidData(dataset="camvid", val_split="test")
    assert (data.scored_split, tested.scored_split) == ("validation", "test")
    assert tested.warn() == ""
    assert tested.estimate_pixels() == (367 + 233) * 360 * 480


def test_the_test_labels_are_checked_as_far_as_known(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(camvid.LABELS_SHA256, "test", None)
    path = published / "testannot" / f"{NAMES['test'][0]}.png"
    Image.fromarray(np.full(SIZE[::-1], 12, dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match="has the value 12"):
        camvid.convert(published, tmp_path / "voc", ("train", "test"))
    Image.fromarray(np.full(SIZE[::-1], 7, dtype=np.uint8)).save(path)
    camvid.convert(published, tmp_path / "voc", ("train", "test"))


def test_frames_of_a_clip_are_grouped_in_blocks() -> None:
    """The names of the published splits: 101 frames of one clip, and 62 and 171 of two."""
    data = CamVidData(dataset="camvid")
    val = [f"0016E5_{frame:05d}" for frame in range(7959, 8160, 2)]
    assert data.group_images(val) == [0] * 26 + [1] * 25 + [2] * 25 + [3] * 25
    test = [f"0001TP_{frame:06d}" for frame in range(8550, 10381, 30)]
    test += [f"Seq05VD_f{frame:05d}" for frame in range(0, 5101, 30)]
    groups = data.group_images(test)
    assert len(test) == 233 and groups == sorted(groups)
    assert [groups.count(group) for group in range(9)] == [31, 31, 25, 24, 25, 24, 25, 24, 24]


def test_groups_do_not_depend_on_the_order_of_the_names() -> None:
    data = CamVidData(dataset="camvid")
    names = [f"{clip}_{frame:03d}" for clip in ("b", "a") for frame in range(60)]
    expected = dict(zip(names, data.group_images(names), strict=True))
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    assert dict(zip(shuffled, data.group_images(shuffled), strict=True)) == expected
    assert expected["a_000"] == 0 and expected["b_059"] == 3


@pytest.mark.parametrize(
    ("frames", "length", "sizes"), [(10, 5, [5, 5]), (7, 3, [4, 3]), (2, 25, [2]), (4, 1, [1] * 4)]
)
def test_blocks_have_equal_sizes(frames: int, length: int, sizes: list[int]) -> None:
    blocks = camvid.cut_into_blocks(frames, length)
    assert [blocks.count(block) for block in range(len(sizes))] == sizes
    assert blocks == sorted(blocks)


def test_destination_in_use(published: Path, tmp_path: Path) -> None:
    camvid.convert(published, tmp_path / "voc")
    with pytest.raises(DownloadError, match=re.escape(f"{tmp_path / 'voc'} already exists")):
        camvid.convert(published, tmp_path / "voc")
