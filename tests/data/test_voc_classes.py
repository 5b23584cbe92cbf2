"""Tests of VOC in some of its classes and on listed photographs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_archives
import test_voc2012
from pydantic import ValidationError
from test_archives import Site
from test_voc2012 import LISTS, Copy, downloaded_and_prepared, label_of, refused, settings
from test_voc_layout import list_split

from deeplab_bench.data.image_files import read_label
from deeplab_bench.data.packed import compute_data_sha256, load_split
from deeplab_bench.data.pixels import DataError, Pixels, write_label
from deeplab_bench.data.voc2012 import Release, VocData
from deeplab_bench.data.voc_labels import CLASSES
from pipelines import resolve

site = test_archives.site
copy = test_voc2012.copy
release = test_voc2012.release
ROOT = Path(__file__).resolve().parents[2]

CHOSEN = ("background", "sofa", "person", "aeroplane", "cat", "bird", "horse", "tvmonitor", "dog")
LISTED = {"train": ["2011_8", "2009_7", "2007_0"], "val": ["2011_5", "2010_2"]}
BY_SBD = ["2011_8", "2007_0"]


def listed(tmp_path: Path, classes: tuple[str, ...] = CHOSEN, **keys: Any) -> VocData:
    """Write the lists unless they are there, and return the settings."""
    folder = tmp_path / "lists"
    for split, names in LISTED.items():
        folder.mkdir(exist_ok=True)
        if not (folder / f"{split}.txt").exists():
            write_list(tmp_path, split, names)
    return settings(classes=classes, images=str(folder), **keys)


def write_list(tmp_path: Path, split: str, names: list[str]) -> Path:
    path = tmp_path / "lists" / f"{split}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path


def choose(label: Pixels, classes: tuple[str, ...]) -> Pixels:
    """Choose the classes of a label of VOC, pixel by pixel."""
    chosen = np.empty_like(label)
    for position, value in np.ndenumerate(label):
        name = None if value == 255 else CLASSES[value]
        chosen[position] = classes.index(name) if name in classes else 255
    return chosen


def check_labels(folder: Path, classes: tuple[str, ...], by_sbd: list[str]) -> None:
    seen = set()
    for split_name, names in LISTED.items():
        split = load_split(folder, split_name)
        assert split.names == names
        assert split.classes == list(classes)
        for index, name in enumerate(names):
            label = split.label(index)
            assert np.array_equal(label, choose(label_of(name, sbd=name in by_sbd), classes))
            seen |= set(label.ravel().tolist())
    assert {255, 1, len(classes) - 1} <= seen


@pytest.mark.parametrize("classes", [CHOSEN, CLASSES])
def test_from_the_archives(
    site: Site, release: Release, copy: Copy, tmp_path: Path, classes: tuple[str, ...]
) -> None:
    folder = downloaded_and_prepared(listed(tmp_path, classes), tmp_path)
    assert [asked.path for asked in site.log] == ["voc", "sbd"]
    check_labels(folder, classes, BY_SBD)


def test_photographs_that_voc_labels_need_no_sbd(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    write_list(tmp_path, "train", LISTS["train"][:2])
    data = listed(tmp_path, train_split="train")
    folder = downloaded_and_prepared(data, tmp_path)
    assert [asked.path for asked in site.log] == ["voc"]
    assert load_split(folder, "train").names == LISTS["train"][:2]


def reduce_to_listed(copy: Copy) -> None:
    """Leave a folder with the listed photographs alone, all with labels, and no list trainaug."""
    names = {name for names in LISTED.values() for name in names}
    for name in BY_SBD:
        write_label(copy.voc.label_path(name), label_of(name, sbd=True))
    for split, listed_names in LISTED.items():
        list_split(copy.voc, split, "".join(f"{name}\n" for name in listed_names))
    for path in (*copy.voc.root.glob("JPEGImages/*"), *copy.voc.root.glob("*Class/*")):
        if path.stem not in names:
            path.unlink()


def test_a_folder_with_the_listed_photographs_alone_gives_the_same_data(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    """Check it by the digest that all results store: the folder's path is not part of it."""
    expected = compute_data_sha256(downloaded_and_prepared(listed(tmp_path), tmp_path))
    asked = len(site.log)
    reduce_to_listed(copy)
    folder = downloaded_and_prepared(listed(tmp_path, root=str(copy.voc.root)), tmp_path)
    assert len(site.log) == asked
    assert compute_data_sha256(folder) == expected


def test_a_folder_without_sbds_labels_needs_sbd(
    site: Site, release: Release, copy: Copy, tmp_path: Path
) -> None:
    data = listed(tmp_path, root=str(copy.root / "VOCdevkit"))
    check_labels(downloaded_and_prepared(data, tmp_path), CHOSEN, BY_SBD)
    assert [asked.path for asked in site.log] == ["sbd"]


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["background", "catt"], "'catt' is not a class of VOC; the nearest valid one is 'cat'"),
        (["cat", "background"], "name background first"),
        (["background"], "one class or more after it"),
        (["background", "cat", "cat"], "it names one of them twice"),
    ],
)
def test_a_wrong_choice_of_classes(classes: list[str], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(classes=tuple(classes), images="lists")
    (error,) = caught.value.errors()
    assert error["loc"] == ("classes",)
    assert told in error["msg"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"classes": CHOSEN}, "classes needs images"),
        ({"images": "lists", "train_split": "trainval"}, "images goes with the train_split train"),
        ({"images": "lists", "further_splits": ("trainval",)}, "images goes with the train_split"),
    ],
)
def test_settings_that_do_not_fit(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(**keys)


@pytest.mark.parametrize(
    ("split", "names", "told"),
    [
        ("train", [], "train.txt is empty: list photographs of VOC in it by their names"),
        ("val", ["2011_5", "2011_5"], "val.txt repeats names: 1 found: 2011_5"),
        ("val", ["2011_5", "2009_7"], "share 1 photographs, such as 2009_7: remove them from one"),
    ],
)
def test_a_wrong_list_is_told_before_a_download(
    tmp_path: Path, split: str, names: list[str], told: str
) -> None:
    write_list(tmp_path, split, names)
    data = listed(tmp_path)
    with pytest.raises(DataError) as caught:
        data.digest_files()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list_is_told_before_a_download(tmp_path: Path) -> None:
    data = listed(tmp_path)
    (tmp_path / "lists" / "val.txt").unlink()
    with pytest.raises(DataError) as caught:
        data.digest_files()
    assert str(caught.value).startswith(f"{tmp_path}/lists/val.txt is missing: list photographs")


@pytest.mark.parametrize(
    ("split", "name", "told"),
    [
        ("train", "2011_9", "1 photographs that are not in trainaug of"),
        ("train", "2007_9", "1 photographs that are not in trainaug of"),  # of val, and in SBD
        ("val", "2008_3", "1 photographs that are not in val of"),
    ],
)
def test_a_photograph_that_the_source_lacks_is_named(
    release: Release, copy: Copy, tmp_path: Path, split: str, name: str, told: str
) -> None:
    path = write_list(tmp_path, split, [*LISTED[split], name])
    data = listed(tmp_path, root=str(copy.voc.root), sbd_root=str(copy.sbd))
    message = refused(data, tmp_path)
    assert message.startswith(f"{path} lists {told}")
    assert message.endswith(f"such as {name}: remove them from the list")


def test_a_photograph_that_is_listed_but_not_there(copy: Copy, tmp_path: Path) -> None:
    reduce_to_listed(copy)
    copy.voc.image_path("2009_7").unlink()
    message = refused(listed(tmp_path, root=str(copy.voc.root)), tmp_path)
    assert "add the missing files, or remove their names from the split's list: 1 found" in message
    assert "2009_7.jpg" in message


def refused_with_label(copy: Copy, tmp_path: Path, value: int) -> str:
    """Give all pixels of 2010_2 one value, and return the message with which it is refused."""
    reduce_to_listed(copy)
    path = copy.voc.label_path("2010_2")
    write_label(path, np.full_like(read_label(path), value))
    return refused(listed(tmp_path, root=str(copy.voc.root)), tmp_path)


def test_a_photograph_without_any_pixel_of_the_classes(copy: Copy, tmp_path: Path) -> None:
    """Check that a photograph of other classes alone is refused: it would be void everywhere."""
    message = refused_with_label(copy, tmp_path, CLASSES.index("sheep"))
    assert "remove images without any pixel of the classes from the list: 1 found" in message
    assert "2010_2.png" in message


def test_a_value_that_is_no_class_of_voc_is_named(copy: Copy, tmp_path: Path) -> None:
    message = refused_with_label(copy, tmp_path, 77)
    assert "2010_2.png has 77" in message


def test_an_edit_of_a_list_reaches_the_settings_of_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(params, encoding="utf-8")
    for split, names in LISTED.items():
        path = Path("lists/voc_animals", f"{split}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names), encoding="utf-8")
    contents = []
    for _ in range(2):
        resolve.main("voc_animals")
        prepared = Path("results/voc_animals/settings/prepare.json")
        contents.append(json.loads(prepared.read_text(encoding="utf-8"))["settings"])
        path.write_text("\n".join([*names, "2007_000032"]), encoding="utf-8")
    first, second = contents
    assert first["data"] == second["data"]
    changed = {
        key
        for key, digest in first["files_sha256"].items()
        if digest not in second["files_sha256"].values()
    }
    assert changed == {"lists/voc_animals/val.txt"}
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert first["files_sha256"]["lists/voc_animals/val.txt"] == digest


def test_the_committed_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lists = settings(images="lists/voc_animals").read_lists()
    assert {split: len(names) for split, names in lists.items()} == {"train": 900, "val": 445}
    assert all(names == sorted(names) for names in lists.values())


def test_what_reports_say(tmp_path: Path) -> None:
    data, all_of_voc = listed(tmp_path), settings()
    assert data.estimate_pixels() == 5 * 375 * 500
    assert data.describe("2 validation images") == (
        "Pascal VOC 2012 in 9 of its 21 classes, on the photographs listed in "
        f"`{tmp_path}/lists` (2 validation images)"
    )
    assert data.warn() == "published figures are on all of VOC's 1,449 val images"
    assert all_of_voc.warn() == ""
    assert (data.is_as_published(), all_of_voc.is_as_published()) == (False, True)
