import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_archives
import test_camvid
from PIL import Image
from pydantic import ValidationError
from test_archives import Served, Site
from test_voc_layout import VOC_COLOURS, make_folder

from deeplab_bench.data import camvid
from deeplab_bench.data.archives import DownloadError
from deeplab_bench.data.camvid import CamVidData
from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.folder import FolderData
from deeplab_bench.data.image_files import read_image
from deeplab_bench.data.packed import compute_data_sha256, load_split
from deeplab_bench.data.pixels import DataError, Pixels, write_label
from deeplab_bench.data.preparation import download, prepare
from deeplab_bench.data.samples import write_samples
from deeplab_bench.data.shapes import CLASSES, ShapesData

published = test_camvid.published
site = test_archives.site

SHAPES = ShapesData(dataset="shapes", seed=0, image_size=32, train_images=3, val_images=2)


def labels(num_classes: int = 11) -> dict[str, dict[str, Pixels]]:
    """Make two splits of labels that have every class, in sizes of their own."""
    values = np.array([*range(num_classes), 255], dtype=np.uint8)
    return {
        "train": {"b": np.stack([values, values[::-1]]), "a": values[:, None].copy()},
        "val": {"c": np.stack([values] * 3)},
    }


def given(root: Path, splits: Mapping[str, Mapping[str, Pixels]] | None = None) -> FolderData:
    classes = [f"class_{index}" for index in range(11)]
    make_folder(root, labels() if splits is None else splits, classes)
    return FolderData(dataset="folder", root=str(root))


def refused(data: FolderData | CamVidData, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare(data, folder.parent / "downloads", folder)
    message = str(caught.value)
    assert "\n" not in message
    assert not (folder / "manifest.json").exists()
    return message


def test_generated(tmp_path: Path) -> None:
    prepare(SHAPES, tmp_path / "downloads", tmp_path / "out")
    for name, count in (("train", 3), ("val", 2)):
        split = load_split(tmp_path / "out", name)
        assert split.classes == list(CLASSES)
        assert split.sizes == [(32, 32)] * count
        assert split.names == [f"{name}_{index:05d}" for index in range(count)]
        for index in range(count):
            image = tmp_path / "out" / "voc" / "JPEGImages" / f"{name}_{index:05d}.png"
            assert np.array_equal(split.image(index), read_image(image))


@pytest.mark.parametrize("dataset", ["folder", "camvid"])
def test_given_folder(tmp_path: Path, dataset: str) -> None:
    data: FolderData | CamVidData = given(tmp_path / "voc")
    classes = [f"class_{index}" for index in range(11)]
    if dataset == "camvid":
        data, classes = CamVidData(dataset="camvid", root=str(tmp_path / "voc")), [*camvid.CLASSES]
    prepare(data, tmp_path / "downloads", tmp_path / "out")
    for name, expected in labels().items():
        split = load_split(tmp_path / "out", name)
        assert split.classes == classes
        assert split.names == list(expected)
        for index, label in enumerate(expected.values()):
            assert np.array_equal(split.label(index), label)
    assert {path.name for path in tmp_path.iterdir()} == {"voc", "out"}


@pytest.mark.parametrize("changes", [{}, {"seed": 1}, {"train_images": 4}, {"image_size": 33}])
def test_same_data_same_manifest(tmp_path: Path, changes: dict[str, int]) -> None:
    digests = []
    for data in (SHAPES, SHAPES.model_copy(update=changes)):
        prepare(data, tmp_path, tmp_path / "out")
        digests.append(compute_data_sha256(tmp_path / "out"))
    assert (digests[0] == digests[1]) == (not changes)


def test_nothing_of_an_earlier_set_remains(tmp_path: Path) -> None:
    prepare(SHAPES, tmp_path, tmp_path / "out")
    prepare(given(tmp_path / "voc"), tmp_path, tmp_path / "out")
    arrays = {f"{split}.{kind}.bin" for split in ("train", "val") for kind in ("images", "labels")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", *arrays}


@pytest.mark.parametrize(
    "data",
    [
        FolderData(dataset="folder", root="/nowhere/at/all"),
        CamVidData(dataset="camvid", root="/nowhere/at/all"),
    ],
)
def test_missing_root(tmp_path: Path, data: FolderData | CamVidData) -> None:
    message = refused(data, tmp_path / "out")
    expected = "data.root /nowhere/at/all is not a folder: give a folder in Pascal VOC's layout"
    assert message == expected


@pytest.mark.parametrize("inner", [".", "voc"])
def test_root_where_the_result_goes_is_left_alone(tmp_path: Path, inner: str) -> None:
    data = given(tmp_path / "out" / inner)
    before = sorted((tmp_path / "out").rglob("*"))
    assert str(data.root) in refused(data, tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before


def test_every_image_is_its_own_group() -> None:
    names = ["clip_1", "clip_2", "b"]
    for data in (SHAPES, FolderData(dataset="folder", root=".")):
        assert data.group_images(names) == [0, 1, 2]


def test_images_of_a_folder_are_grouped_by_a_pattern() -> None:
    data = FolderData(dataset="folder", root=".", group_pattern="^[^_]+")
    names = ["clip2_1", "clip1_1", "clip2_9", "alone"]
    assert data.group_images(names) == [0, 1, 0, 2]


def test_a_pattern_that_finds_no_group_stops_before_packing(tmp_path: Path) -> None:
    data = given(tmp_path / "voc").model_copy(update={"group_pattern": "^clip[0-9]+"})
    message = refused(data, tmp_path / "out")
    assert message.startswith("data.group_pattern ^clip[0-9]+ finds nothing in c, the name of an ")


def test_a_pattern_is_a_regular_expression() -> None:
    with pytest.raises(ValidationError, match="it is no regular expression: missing \\)"):
        FolderData(dataset="folder", root=".", group_pattern="(clip")


def test_same_name_in_train_and_val(tmp_path: Path) -> None:
    splits = labels()
    splits["val"]["a"] = splits["train"]["a"]
    message = refused(given(tmp_path / "voc", splits), tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'voc'}: train and val share 1 images, such as a: ")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("dataset", ["folder", "camvid"])
def test_bad_label_stops_before_packing(tmp_path: Path, split: str, dataset: str) -> None:
    data: FolderData | CamVidData = given(tmp_path / "voc")
    if dataset == "camvid":
        data = CamVidData(dataset="camvid", root=data.root)
    prepare(data, tmp_path, tmp_path / "out")
    name, label = next(iter(labels()[split].items()))
    label[0, 0] = 11  # what the publisher of CamVid calls unlabelled
    path = tmp_path / "voc" / "SegmentationClass" / f"{name}.png"
    write_label(path, label)
    message = refused(data, tmp_path / "out")
    assert f"use labels 0 to 10, and 255 for void: 1 found: {path} has 11" in message
    assert not list(tmp_path.glob("out/*.bin"))


def relabelled(root: Path, classes: Sequence[str], values: Mapping[int, int]) -> FolderData:
    """Make a folder with these classes, where labels have other values instead of 0, 1 and 2."""
    label = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    for value, other in values.items():
        label[label == value] = other
    make_folder(root, {"train": {"a": label}, "val": {"b": label}}, classes)
    return FolderData(dataset="folder", root=str(root))


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    data = relabelled(tmp_path / "voc", ["background", "cat"], {1: 255, 2: 255})
    message = refused(data, tmp_path / "out")
    assert "no label of train has cat (1); they have 0, 255: " in message
    assert "255 is void" in message


def test_an_additional_background_in_the_classes(tmp_path: Path) -> None:
    data = relabelled(tmp_path / "voc", ["background", "cat", "dog", "cow"], {})
    message = refused(data, tmp_path / "out")
    assert "no label of train has cow (3); they have 0, 1, 2: the first line of" in message


def test_a_split_of_void_alone(tmp_path: Path) -> None:
    for split in ("train", "val"):
        splits = labels()
        splits[split] = {name: np.full_like(x, 255) for name, x in splits[split].items()}
        message = refused(given(tmp_path / split, splits), tmp_path / "out")
        assert "remove images without any pixel of the classes" in message


def test_a_class_that_val_lacks_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = labels()
    splits["val"]["c"][splits["val"]["c"] == 4] = 0
    prepare(given(tmp_path / "voc", splits), tmp_path / "downloads", tmp_path / "out")
    assert "no label of val has class_4 (4)" in caplog.text


@pytest.mark.parametrize("lost", ["classes.txt", "ImageSets/Segmentation/val.txt"])
def test_incomplete_folder(tmp_path: Path, lost: str) -> None:
    data = given(tmp_path / "voc")
    (tmp_path / "voc" / lost).unlink()
    assert f"{tmp_path / 'voc' / lost} is missing" in refused(data, tmp_path / "out")


@pytest.mark.parametrize("kind", ["JPEGImages", "SegmentationClass"])
@pytest.mark.parametrize("end", [-30, 60, 0])
def test_damaged_file(tmp_path: Path, kind: str, end: int) -> None:
    data = given(tmp_path / "voc")
    path = tmp_path / "voc" / kind / "b.png"
    path.write_bytes(path.read_bytes()[:end])
    assert str(path) in refused(data, tmp_path / "out")


def test_camvid_is_downloaded_once_and_prepared(
    site: Site, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(published, tmp_path / "root" / camvid.MEMBERS_UNDER)
    shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "root")
    body = (tmp_path / "archive.zip").read_bytes()
    site.files["mirror.zip"] = Served(body)
    monkeypatch.setattr(camvid, "ARCHIVE", replace(camvid.ARCHIVE, urls=(site.url("gone.zip"),)))
    data = CamVidData(dataset="camvid", mirrors=(site.url("mirror.zip"),))
    downloads = tmp_path / "downloads"

    fetched = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    for _ in range(2):
        assert download(data, downloads) == {camvid.ARCHIVE.filename: fetched}
    assert [asked.path for asked in site.log] == ["gone.zip", "mirror.zip"]

    digests = set()
    for _ in range(2):
        prepare(data, downloads, tmp_path / "out")
        digests.add(compute_data_sha256(tmp_path / "out"))
    assert len(digests) == 1
    assert len(site.log) == 2
    assert not (tmp_path / "out" / "unpacked").exists()
    for name in test_camvid.CONVERTED:
        split, listed = load_split(tmp_path / "out", name), test_camvid.NAMES[name]
        assert split.classes == list(camvid.CLASSES)
        assert split.names == sorted(listed)
        for index, image in enumerate(split.names):
            label = test_camvid.label_of(image)
            assert np.array_equal(split.label(index), np.where(label == 11, 255, label))
            with Image.open(published / name / f"{image}.png") as file:
                assert np.array_equal(split.image(index), np.asarray(file))


@pytest.mark.parametrize(
    "data",
    [
        SHAPES,
        FolderData(dataset="folder", root="."),
        CamVidData(dataset="camvid", root=".", mirrors=("http://127.0.0.1:9",)),
    ],
)
def test_nothing_to_download(tmp_path: Path, data: DataSet) -> None:
    assert download(data, tmp_path / "downloads") == {}
    assert list(tmp_path.iterdir()) == []


def test_camvid_without_its_archive(tmp_path: Path) -> None:
    expected = re.escape(str(tmp_path / "out" / "unpacked"))
    with pytest.raises(DownloadError, match=expected):
        prepare(CamVidData(dataset="camvid"), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_samples_show_images_and_labels(tmp_path: Path) -> None:
    splits = labels()
    splits["val"] |= {f"d{i}": np.full((1 + i, 2), i, dtype=np.uint8) for i in range(6)}
    prepare(given(tmp_path / "voc", splits), tmp_path, tmp_path / "out")
    images, truth = tmp_path / "new" / "images.png", tmp_path / "new" / "labels.png"
    write_samples(tmp_path / "out", images, truth)
    split = load_split(tmp_path / "out", "val")
    with Image.open(images) as image, Image.open(truth) as label:
        assert image.size == label.size == (12 + 5 * 2, 5)
        pixels, values = np.asarray(image), np.asarray(label)
        colours = np.asarray(label.convert("RGB"))
    assert np.array_equal(pixels[:3, :12], split.image(0))
    assert np.array_equal(values[:3, :12], split.label(0))
    for index in range(1, 6):
        left = 12 + 2 * (index - 1)
        assert np.array_equal(pixels[:index, left : left + 2], split.image(index))
        assert (values[:index, left : left + 2] == index - 1).all()
        assert (values[index:, left : left + 2] == 255).all()
    assert [tuple(colour) for colour in colours[0, :11].tolist()] == list(VOC_COLOURS[:11])
