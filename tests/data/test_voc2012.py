"""Tests of Pascal VOC 2012 and SBD, from archives on a local server or as folders."""

import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_archives
from PIL import Image
from scipy.io import savemat
from test_archives import CUT, Served, Site
from test_voc_layout import list_split, make_folder
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT
from torchvision.models.segmentation import FCN_ResNet50_Weights

from deeplab_bench.data import voc2012
from deeplab_bench.data.archives import DownloadError
from deeplab_bench.data.packed import compute_data_sha256, load_split
from deeplab_bench.data.pixels import DataError, Pixels, write_label
from deeplab_bench.data.preparation import download, prepare
from deeplab_bench.data.voc2012 import PUBLISHED, Release, VocData
from deeplab_bench.data.voc_labels import CLASSES, read_sbd_label
from deeplab_bench.data.voc_layout import VocFolder

site = test_archives.site

# In files' order, which is not the alphabet's.
LISTS = {
    "train": ["2009_7", "2007_1", "2008_4"],
    "val": ["2010_2", "2007_9", "2011_5"],
    "sbd_train": ["2011_8", "2007_1", "2007_9", "2008_3", "2010_6"],  # one of train, one of val
    "sbd_val": ["2010_2", "2009_9", "2008_4", "2007_0"],  # one of val, one of train
}
TRAINAUG = ["2007_0", "2007_1", "2008_3", "2008_4", "2009_7", "2009_9", "2010_6", "2011_8"]
TRAINVAL = sorted(LISTS["train"] + LISTS["val"])
COUNTS = {key: len(names) for key, names in LISTS.items()} | {"trainaug": 8, "trainval": 6}


def label_of(name: str, *, sbd: bool) -> Pixels:
    """Make an image's label, which differs between the publishers; SBD has no void."""
    random = np.random.default_rng(sum(name.encode()))
    height, width = random.integers(3, 9, size=2)
    values = random.integers(1, 21, (height, width), dtype=np.uint8)
    values[0, 0] = 0 if sbd else 255
    return values


def write_mat(path: Path, label: Any, field: str = "Segmentation") -> None:
    """Write an annotation with the nested structure of SBD's files."""
    boundaries = np.empty((20, 1), dtype=object)
    boundaries[:, 0] = [np.zeros(label.shape, dtype=bool)] * 20
    annotation = np.empty((1, 1), dtype=[("Boundaries", object), (field, object)])
    annotation[0, 0] = (boundaries, label)
    savemat(path, {"GTcls": annotation}, do_compression=True)


@dataclass
class Copy:
    """Small copies of both data sets, extracted."""

    root: Path

    @property
    def voc(self) -> VocFolder:
        return VocFolder(self.root / "VOCdevkit" / "VOC2012")

    @property
    def sbd(self) -> Path:
        return self.root / "benchmark_RELEASE" / "dataset"

    def listing(self, key: str) -> Path:
        name = key.removeprefix("sbd_")
        return self.voc.listing(name) if name == key else self.sbd / f"{name}.txt"

    def contents(self) -> dict[str, bytes]:
        return test_archives.contents(self.root)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    copy = Copy(tmp_path / "copy")
    make_folder(
        copy.voc.root,
        {split: {n: label_of(n, sbd=False) for n in LISTS[split]} for split in ("train", "val")},
    )
    list_split(copy.voc, "trainval", "".join(f"{name}\n" for name in TRAINVAL))
    (copy.sbd / "cls").mkdir(parents=True)
    for split in ("train", "val"):
        names = LISTS[f"sbd_{split}"]
        copy.listing(f"sbd_{split}").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            label = label_of(name, sbd=True)
            write_mat(copy.sbd / "cls" / f"{name}.mat", label)
            if not copy.voc.image_path(name).is_file():
                image = np.random.default_rng(1).integers(0, 256, (*label.shape, 3), dtype=np.uint8)
                Image.fromarray(image).save(copy.voc.image_path(name))
    for image_path in list((copy.voc.root / "JPEGImages").iterdir()):
        Image.open(image_path).save(image_path.with_suffix(".jpg"))
        if image_path.suffix == ".png":
            image_path.unlink()
    return copy


@pytest.fixture
def release(copy: Copy, site: Site, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Publish both archives on the site, with the digests and counts of the miniatures."""
    served = {}
    for kind, folder, published in (
        ("voc", "VOCdevkit", PUBLISHED.voc),
        ("sbd", "benchmark_RELEASE", PUBLISHED.sbd),
    ):
        path = copy.root.parent / published.filename
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            archive.add(copy.root / folder, folder)
        body = path.read_bytes()
        path.unlink()
        site.files[kind] = Served(body)
        served[kind] = replace(
            published,
            urls=(site.url(kind),),
            size_bytes=len(body),
            digest=f"md5:{hashlib.md5(body).hexdigest()}",
        )
    release = Release(served["voc"], served["sbd"], COUNTS)
    monkeypatch.setattr(voc2012, "PUBLISHED", release)
    return release


def settings(train_split: str = "trainaug", **keys: Any) -> VocData:
    return VocData.model_validate({"dataset": "voc2012", "train_split": train_split} | keys)


def downloaded_and_prepared(data: VocData, tmp_path: Path) -> Path:
    download(data, tmp_path / "downloads")
    prepare(data, tmp_path / "downloads", tmp_path / "out")
    return tmp_path / "out"


def check_prepared(folder: Path, copy: Copy, train: list[str], **further: list[str]) -> None:
    """Names, labels and images of all splits against what the publishers' files were made of."""
    for split_name, names in {"train": train, "val": LISTS["val"], **further}.items():
        split = load_split(folder, split_name)
        assert split.names == names
        assert split.classes == list(CLASSES)
        for index, name in enumerate(names):
            by_voc = name in LISTS["train"] + LISTS["val"]
            assert np.array_equal(split.label(index), label_of(name, sbd=not by_voc))
            with Image.open(copy.voc.root / "JPEGImages" / f"{name}.jpg") as image:
                assert np.array_equal(split.image(index), np.asarray(image))


def refused(data: VocData, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        downloaded_and_prepared(data, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert not (tmp_path / "out" / "manifest.json").exists()
    return message


# From the archives


def test_trainaug_is_downloaded_once_and_prepared(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    data, digests = settings(), set()
    for _ in range(2):
        record = download(data, tmp_path / "downloads")
        digests.add(compute_data_sha256(downloaded_and_prepared(data, tmp_path)))
    assert [asked.path for asked in site.log] == ["voc", "sbd"]
    assert record == {
        archive.filename: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        for archive, body in zip(
            (release.voc, release.sbd), (served.body for served in site.files.values()), strict=True
        )
    }
    assert len(digests) == 1
    check_prepared(tmp_path / "out", copy, TRAINAUG)
    packed = {f"{split}.{kind}.bin" for split in ("train", "val") for kind in ("images", "labels")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", *packed}


def test_train_needs_no_sbd(site: Site, release: Release, copy: Copy, tmp_path: Path) -> None:
    check_prepared(downloaded_and_prepared(settings("train"), tmp_path), copy, LISTS["train"])
    assert [asked.path for asked in site.log] == ["voc"]


def test_each_archive_has_mirrors(
    site: Site, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(
        release,
        voc=replace(release.voc, urls=(site.url("gone"),)),
        sbd=replace(release.sbd, urls=(site.url("gone"),)),
    )
    monkeypatch.setattr(voc2012, "PUBLISHED", gone)
    mirrors: dict[str, Any] = {"mirrors": (site.url("voc"),), "sbd_mirrors": (site.url("sbd"),)}
    downloaded_and_prepared(settings(**mirrors), tmp_path)
    assert [asked.path for asked in site.log] == ["gone", "voc", "gone", "sbd"]


@pytest.mark.parametrize("kind", ["voc", "sbd"])
def test_a_download_that_broke_off_goes_on(
    site: Site, release: Release, copy: Copy, tmp_path: Path, kind: str
) -> None:
    size = len(site.files[kind].body)
    cut = min(CUT, size // 2)
    site.files[kind].cut = cut
    with pytest.raises(DownloadError, match=f"continue after the {cut} bytes kept"):
        download(settings(), tmp_path / "downloads")
    site.files[kind].cut = None
    check_prepared(downloaded_and_prepared(settings(), tmp_path), copy, TRAINAUG)
    assert [asked.range for asked in site.log if asked.path == kind] == [None, f"bytes={cut}-"]
    assert site.bytes_sent() == sum(len(served.body) for served in site.files.values())


def test_archives_put_there_by_the_user(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    (tmp_path / "downloads").mkdir()
    for kind, archive in (("voc", release.voc), ("sbd", release.sbd)):
        (tmp_path / "downloads" / archive.filename).write_bytes(site.files[kind].body)
    check_prepared(downloaded_and_prepared(settings(), tmp_path), copy, TRAINAUG)
    assert site.log == []


# From extracted folders


@pytest.mark.parametrize("root", ["VOCdevkit", "VOCdevkit/VOC2012"])
@pytest.mark.parametrize("sbd_root", ["benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_extracted_folders_replace_the_archives(
    site: Site, release: Release, copy: Copy, tmp_path: Path, root: str, sbd_root: str
) -> None:
    before = copy.contents()
    data = settings(root=str(copy.root / root), sbd_root=str(copy.root / sbd_root))
    check_prepared(downloaded_and_prepared(data, tmp_path), copy, TRAINAUG)
    assert site.log == []
    assert copy.contents() == before


@pytest.mark.parametrize(
    ("key", "folder", "fetched"),
    [("root", "VOCdevkit", ["sbd"]), ("sbd_root", "benchmark_RELEASE", ["voc"])],
)
def test_one_folder_replaces_one_archive(
    site: Site,
    release: Release,
    copy: Copy,
    tmp_path: Path,
    key: str,
    folder: str,
    fetched: list[str],
) -> None:
    data = settings(**{key: str(copy.root / folder)})
    check_prepared(downloaded_and_prepared(data, tmp_path), copy, TRAINAUG)
    assert [asked.path for asked in site.log] == fetched


def make_ready(copy: Copy, names: list[str]) -> None:
    list_split(copy.voc, "trainaug", "".join(f"{name}\n" for name in names))
    for name in set(names) - set(LISTS["train"]):
        write_label(copy.voc.label_path(name), label_of(name, sbd=True))


def test_a_folder_may_have_trainaug(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    make_ready(copy, TRAINAUG[::-1])
    data = settings(root=str(copy.root / "VOCdevkit"))
    check_prepared(downloaded_and_prepared(data, tmp_path), copy, TRAINAUG[::-1])
    assert site.log == []


def test_sbd_root_overrides_the_folders_own_trainaug(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    make_ready(copy, TRAINAUG[:2])
    data = settings(root=str(copy.voc.root), sbd_root=str(copy.sbd))
    check_prepared(downloaded_and_prepared(data, tmp_path), copy, TRAINAUG)


def test_train_of_a_folder(site: Site, release: Release, copy: Copy, tmp_path: Path) -> None:
    data = settings("train", root=str(copy.root / "VOCdevkit"))
    check_prepared(downloaded_and_prepared(data, tmp_path), copy, LISTS["train"])
    assert site.log == []


@pytest.mark.parametrize("key", ["root", "sbd_root"])
def test_a_missing_folder_is_told_before_a_download(
    site: Site, release: Release, tmp_path: Path, key: str
) -> None:
    message = refused(settings(**{key: "/nowhere/at/all"}), tmp_path)
    assert message.startswith(f"data.{key} /nowhere/at/all is not a folder: give ")
    assert site.log == []


@pytest.mark.parametrize("key", ["root", "sbd_root"])
def test_a_folder_where_the_result_goes_is_left_alone(
    site: Site, release: Release, copy: Copy, tmp_path: Path, key: str
) -> None:
    (tmp_path / "out").mkdir()
    copy.root.rename(tmp_path / "out" / "copy")
    roots = {"root": "out/copy/VOCdevkit", "sbd_root": "out/copy/benchmark_RELEASE"}
    data = settings(**{key: str(tmp_path / roots[key])})
    before = test_archives.contents(tmp_path / "out")
    assert f"data.{key} {tmp_path / roots[key]} lies in" in refused(data, tmp_path)
    assert test_archives.contents(tmp_path / "out") == before


# trainval, the images that VOC itself labels


def test_trainval_needs_no_sbd(site: Site, release: Release, copy: Copy, tmp_path: Path) -> None:
    check_prepared(downloaded_and_prepared(settings("trainval"), tmp_path), copy, TRAINVAL)
    assert [asked.path for asked in site.log] == ["voc"]


def test_trainval_beside_trainaug(release: Release, copy: Copy, tmp_path: Path) -> None:
    """Check the split for a second phase, which has VOC's own labels alone."""
    folder = downloaded_and_prepared(settings(further_splits=("trainval",)), tmp_path)
    check_prepared(folder, copy, TRAINAUG, trainval=TRAINVAL)


def test_trainval_of_a_folder_with_trainaug(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    make_ready(copy, TRAINAUG)
    data = settings(root=str(copy.root / "VOCdevkit"), further_splits=("trainval",))
    folder = downloaded_and_prepared(data, tmp_path)
    check_prepared(folder, copy, TRAINAUG, trainval=TRAINVAL)
    assert site.log == []


@pytest.mark.parametrize(
    ("train_split", "further"),
    [("trainval", ()), ("train", ("trainval",)), ("trainaug", ("trainval",))],
)
def test_trainval_is_counted(
    copy: Copy, release: Release, tmp_path: Path, train_split: str, further: tuple[str, ...]
) -> None:
    list_split(copy.voc, "trainval", "2009_7\n")
    message = refused(given(copy, train_split, further_splits=further), tmp_path)
    assert message.startswith(f"{copy.voc.listing('trainval')} has 1 images instead of 6: ")


@pytest.mark.parametrize(
    ("train_split", "further", "images"),
    [("trainaug", (), 12031), ("trainaug", ("trainval",), 14944), ("trainval", (), 4362)],
)
def test_pixels_are_those_of_all_splits(
    train_split: str, further: tuple[str, ...], images: int
) -> None:
    data = settings(train_split, further_splits=further)
    assert data.estimate_pixels() == images * 375 * 500


# Incomplete data


def given(copy: Copy, train_split: str = "trainaug", **keys: Any) -> VocData:
    return settings(train_split, root=str(copy.voc.root), sbd_root=str(copy.sbd), **keys)


@pytest.mark.parametrize("key", LISTS)
def test_every_list_is_counted(copy: Copy, release: Release, tmp_path: Path, key: str) -> None:
    names = LISTS[key]
    copy.listing(key).write_text("".join(f"{name}\n" for name in names[:-1]))
    message = refused(given(copy), tmp_path)
    found = f"{copy.listing(key)} has {len(names) - 1} images instead of {len(names)}: "
    assert message.startswith(found)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_lists_of_voc_alone_are_counted(
    copy: Copy, release: Release, tmp_path: Path, split: str
) -> None:
    data = settings("train", root=str(copy.voc.root))
    list_split(copy.voc, split, LISTS[split][0])
    message = refused(data, tmp_path)
    assert message.startswith(f"{copy.voc.listing(split)} has 1 images instead of 3: ")


def test_a_folders_own_trainaug_is_counted(copy: Copy, release: Release, tmp_path: Path) -> None:
    make_ready(copy, TRAINAUG[:-1])
    message = refused(settings(root=str(copy.voc.root)), tmp_path)
    assert message.startswith(f"{copy.voc.listing('trainaug')} has 7 images instead of 8: ")


def test_trainaug_is_counted(copy: Copy, release: Release, tmp_path: Path) -> None:
    """Check that the merged list is counted: one image of SBD's lists is in val, too."""
    names = [*LISTS["sbd_val"][:-1], "2011_5"]
    copy.listing("sbd_val").write_text("".join(f"{name}\n" for name in names))
    message = refused(given(copy), tmp_path)
    assert f"trainaug of {copy.voc.root} and {copy.sbd} has 7 images instead of 8: " in message


def test_a_folders_own_trainaug_must_be_disjoint_from_val(
    copy: Copy, release: Release, tmp_path: Path
) -> None:
    make_ready(copy, [*TRAINAUG[1:], LISTS["val"][0]])
    message = refused(settings(root=str(copy.voc.root)), tmp_path)
    found = f"{copy.voc.root}: train and val share 1 images, such as {LISTS['val'][0]}: "
    assert message.startswith(found)


@pytest.mark.parametrize("lost", ["benchmark_RELEASE/dataset/val.txt", "VOCdevkit/VOC2012"])
def test_a_folder_without_lists(copy: Copy, release: Release, tmp_path: Path, lost: str) -> None:
    data = given(copy)
    (copy.root / lost).rename(copy.root / "elsewhere")
    (copy.root / "VOCdevkit" / "VOC2012").mkdir(exist_ok=True)
    message = refused(data, tmp_path)
    assert message.startswith(str(copy.root / lost))
    assert " is missing: " in message


def damaged_mats() -> Mapping[str, Any]:
    return {
        "missing": None,
        "empty": b"",
        "cut in its header": 100,
        "cut in its data": -40,
        "no MATLAB file": b"<html>" * 100,
    }


@pytest.mark.parametrize("damage", damaged_mats().values(), ids=damaged_mats().keys())
def test_a_damaged_label_of_sbd_is_named(
    copy: Copy, release: Release, tmp_path: Path, damage: Any
) -> None:
    path = copy.sbd / "cls" / "2010_6.mat"
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage if isinstance(damage, bytes) else whole[:damage])
    message = refused(given(copy), tmp_path)
    assert message.startswith(f"{path}: ")
    assert message.endswith("extract SBD's archive again")


@pytest.mark.parametrize(
    ("label", "field"),
    [
        (np.ones((4, 4)), "Segmentation"),
        (np.ones((4, 4, 3), dtype=np.uint8), "Segmentation"),
        (np.ones((4, 4), dtype=np.uint8), "Other"),
    ],
)
def test_another_matlab_file_is_refused(
    copy: Copy, release: Release, tmp_path: Path, label: Any, field: str
) -> None:
    path = copy.sbd / "cls" / "2010_6.mat"
    write_mat(path, label, field)
    message = refused(given(copy), tmp_path)
    assert message.startswith(f"{path}: ")
    assert "Segmentation" in message


def test_a_label_of_sbd_that_does_not_fit_its_image(
    copy: Copy, release: Release, tmp_path: Path
) -> None:
    shape = label_of("2010_6", sbd=True).shape
    write_mat(copy.sbd / "cls" / "2010_6.mat", np.ones((shape[0], shape[1] + 1), dtype=np.uint8))
    message = refused(given(copy), tmp_path)
    assert "2010_6.png" in message
    assert "the same (width, height)" in message


def test_a_mask_of_voc_is_missing(copy: Copy, release: Release, tmp_path: Path) -> None:
    path = copy.voc.label_path("2008_4")
    path.unlink()
    message = refused(given(copy), tmp_path)
    assert message.startswith("label of 2008_4 in trainaug: ")
    assert str(path) in message


# Against torchvision


def test_archives_and_classes_are_torchvisions() -> None:
    of_2012 = DATASET_YEAR_DICT["2012"]
    assert PUBLISHED.voc.filename == of_2012["filename"]
    assert PUBLISHED.voc.digest == f"md5:{of_2012['md5']}"
    assert of_2012["url"] in PUBLISHED.voc.urls
    assert of_2012["base_dir"] == voc2012.VOC_MEMBERS_UNDER
    assert PUBLISHED.sbd.filename == SBDataset.filename
    assert PUBLISHED.sbd.digest == f"md5:{SBDataset.md5}"
    assert SBDataset.url in PUBLISHED.sbd.urls
    categories = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert list(CLASSES[1:]) == categories[1:]


def test_published_counts_fit_each_other() -> None:
    """Check sums that the papers and SBD's authors give."""
    counts = PUBLISHED.counts
    assert counts["train"] + counts["val"] == counts["trainval"] == 2913
    assert counts["sbd_train"] + counts["sbd_val"] == 11355
    assert counts["trainaug"] == 10582


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_of_sbd_are_torchvisions(copy: Copy, split: str) -> None:
    (copy.voc.root / "JPEGImages").rename(copy.sbd / "img")
    reference = SBDataset(str(copy.sbd), image_set=split, mode="segmentation")
    for (_, expected), name in zip(reference, LISTS[f"sbd_{split}"], strict=True):
        label = read_sbd_label(copy.sbd / "cls" / f"{name}.mat")
        assert np.array_equal(label, np.asarray(expected))
