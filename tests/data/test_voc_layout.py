from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_bench.data.image_files import read_image, read_label
from deeplab_bench.data.pixels import DataError, Pixels, build_voc_palette, write_label
from deeplab_bench.data.voc_layout import VocFolder, check

# As published with the challenge, for background and the twenty classes.
VOC_COLOURS = (
    *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)),
    *((0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0)),
    *((64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0)),
    *((0, 192, 0), (128, 192, 0), (0, 64, 128)),
)
CREAM = (224, 224, 192)
LABEL = np.array([[0, 1, 2], [255, 2, 0]], dtype=np.uint8)


def add_pair(folder: VocFolder, name: str, label: Pixels, suffix: str = "png") -> None:
    """Write a label and a random image of its size."""
    for sub in ("JPEGImages", "SegmentationClass"):
        (folder.root / sub).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(name.encode()))
    image = random.integers(0, 256, (*label.shape, 3), dtype=np.uint8)
    Image.fromarray(image).save(folder.root / "JPEGImages" / f"{name}.{suffix}")
    write_label(folder.label_path(name), label)


def list_split(folder: VocFolder, split: str, text: str) -> Path:
    path = folder.root / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_folder(
    root: Path, splits: Mapping[str, Mapping[str, Pixels]], classes: Iterable[str] = ()
) -> VocFolder:
    """Make a complete folder in Pascal VOC's layout, from the labels of each split by name."""
    folder = VocFolder(root)
    for split, labels in splits.items():
        list_split(folder, split, "".join(f"{name}\n" for name in labels))
        for name, label in labels.items():
            add_pair(folder, name, label)
    if classes:
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return folder


def message_of(caught: pytest.ExceptionInfo[DataError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def refused(folder: VocFolder, names: Iterable[str], num_classes: int = 3) -> str:
    with pytest.raises(DataError) as caught:
        check(folder, names, num_classes, title="train")
    message = message_of(caught)
    assert message.startswith(f"{folder.root}: ")
    return message


def test_palette_is_the_published_one() -> None:
    palette = np.frombuffer(build_voc_palette(), dtype=np.uint8).reshape(256, 3)
    assert [tuple(colour) for colour in palette[:21].tolist()] == list(VOC_COLOURS)
    assert tuple(palette[255].tolist()) == CREAM
    assert len(np.unique(palette, axis=0)) == 256


@pytest.mark.parametrize("values", [[0], [20, 255], range(21), range(256)])
def test_label_round_trip(tmp_path: Path, values: Iterable[int]) -> None:
    label = np.array([[*values], [*reversed([*values])]], dtype=np.uint8)
    path = tmp_path / "label.png"
    write_label(path, label)
    assert read_label(path).dtype == np.uint8
    assert (read_label(path) == label).all()
    with Image.open(path) as image:
        assert image.mode == "P"
        colours = np.asarray(image.convert("RGB"))
    known = {**dict(enumerate(VOC_COLOURS)), 255: CREAM}
    for index, colour in zip(label.flat, colours.reshape(-1, 3).tolist(), strict=True):
        assert tuple(colour) == known.get(int(index), tuple(colour))


@pytest.mark.parametrize("mode", ["P", "L"])
def test_label_is_never_read_through_a_palette(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(LABEL)
    if mode == "P":
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(tmp_path / "label.png")
    assert (read_label(tmp_path / "label.png") == LABEL).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16"])
def test_label_of_another_kind(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "label.png"
    Image.new(mode, (3, 2)).save(path)
    with pytest.raises(DataError) as caught:
        read_label(path)
    assert f"{path} is a {mode} image" in message_of(caught)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_image_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    expected = Image.new("RGB", (3, 2), (102, 102, 102))
    expected.convert(mode).save(tmp_path / "image.png")
    pixels = read_image(tmp_path / "image.png")
    assert pixels.dtype == np.uint8
    assert (pixels == np.full((2, 3, 3), 102)).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_of_either_format(tmp_path: Path, suffix: str) -> None:
    folder = VocFolder(tmp_path)
    add_pair(folder, "a", LABEL, suffix)
    Image.new("RGB", (3, 2), (10, 200, 90)).save(tmp_path / "JPEGImages" / f"a.{suffix}")
    assert folder.image_path("a") == tmp_path / "JPEGImages" / f"a.{suffix}"
    assert np.abs(read_image(folder.image_path("a")) - np.array([10.0, 200, 90])).max() <= 3
    check(folder, ["a"], 3, title="train")


@pytest.mark.parametrize("suffix", ["jpeg", "JPG", "JPEG", "PNG"])
def test_suffixes_in_use(tmp_path: Path, suffix: str) -> None:
    folder = VocFolder(tmp_path)
    add_pair(folder, "a", LABEL, suffix)
    assert folder.image_path("a") == tmp_path / "JPEGImages" / f"a.{suffix}"
    check(folder, ["a"], 3, title="train")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    folder = VocFolder(tmp_path)
    for suffix in ("jpg", "png"):
        add_pair(folder, "a", LABEL, suffix)
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have one name: keep one of them"):
        check(folder, ["a"], 3, title="train")


@pytest.mark.parametrize("encoding", ["utf-16", "gbk", "latin-1"])
def test_lists_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    path = list_split(VocFolder(tmp_path), "train", "")
    path.write_bytes({"gbk": "图像", "latin-1": "Bäume", "utf-16": "a"}[encoding].encode(encoding))
    with pytest.raises(DataError, match=r"train\.txt is no text in UTF-8: save it"):
        VocFolder(tmp_path).names("train")


@pytest.mark.parametrize("text", ["\ufeffa\nb\n", "a\r\nb\r\n", "  a \n\n\tb", "a\nb"])
def test_habits_of_editors_are_accepted(tmp_path: Path, text: str) -> None:
    list_split(VocFolder(tmp_path), "train", "").write_bytes(text.encode())
    assert VocFolder(tmp_path).names("train") == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("/JPEGImages/x.png /SegmentationClass/x.png", "x"),
        ("JPEGImages/x.JPG", "x"),
        ("x.jpeg", "x"),
        ("folder\\x.v2.png", "x.v2"),
        ("../../secret", "secret"),
    ],
)
def test_lines_that_are_no_names(tmp_path: Path, line: str, meant: str) -> None:
    list_split(VocFolder(tmp_path), "train", f"a\n{line}\n")
    with pytest.raises(DataError) as caught:
        VocFolder(tmp_path).names("train")
    message = message_of(caught)
    assert f"has the line {line!r}: write the name of the image alone" in message
    assert message.endswith(f"here {meant!r}")


def test_a_name_may_have_dots_and_spaces(tmp_path: Path) -> None:
    list_split(VocFolder(tmp_path), "train", "clip 1.frame.0001\n")
    assert VocFolder(tmp_path).names("train") == ["clip 1.frame.0001"]


def test_missing_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"train": dict.fromkeys("abc", LABEL)})
    folder.image_path("a").unlink()
    folder.label_path("b").unlink()
    message = refused(folder, "abc")
    assert "add the missing files, or remove their names from the split's list: 2 found" in message
    assert str(tmp_path / "JPEGImages" / "a.jpg") in message
    assert str(folder.label_path("b")) in message
    assert "c." not in message


@pytest.mark.parametrize("shape", [(3, 2), (2, 4), (1, 3)])
def test_sizes_differ(tmp_path: Path, shape: tuple[int, int]) -> None:
    folder = make_folder(tmp_path, {"train": {"a": LABEL, "b": LABEL}})
    write_label(folder.label_path("b"), np.zeros(shape, dtype=np.uint8))
    message = refused(folder, "ab")
    assert f"{folder.label_path('b')} {shape[::-1]}, its image (3, 2)" in message
    assert "the same (width, height): 1 found" in message


@pytest.mark.parametrize(("value", "classes"), [(3, 3), (11, 11), (254, 21)])
def test_label_outside_the_classes(tmp_path: Path, value: int, classes: int) -> None:
    folder = make_folder(tmp_path, {"train": {"a": LABEL, "b": LABEL}})
    check(folder, "ab", classes, title="train")
    label = LABEL.copy()
    label[0, 1] = value
    write_label(folder.label_path("b"), label)
    message = refused(folder, "ab", classes)
    assert f"use labels 0 to {classes - 1}, and 255 for void: 1 found" in message
    assert f"{folder.label_path('b')} has {value}" in message


def test_colour_label(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"train": {"a": LABEL, "b": LABEL}})
    Image.new("RGB", (3, 2)).save(folder.label_path("b"))
    message = refused(folder, "ab")
    assert "save labels as palette or grey PNGs of class indices: 1 found" in message
    assert f"{folder.label_path('b')} is a RGB image" in message


@pytest.mark.parametrize(("bad", "more"), [(10, ""), (11, " and 1 more"), (14, " and 4 more")])
def test_names_up_to_ten_files(tmp_path: Path, bad: int, more: str) -> None:
    names = [f"image_{index:02d}" for index in range(15)]
    folder = make_folder(tmp_path, {"train": dict.fromkeys(names, LABEL)})
    for name in names[:bad]:
        folder.label_path(name).unlink()
    message = refused(folder, names)
    assert f"{bad} found" in message
    assert message.endswith(f"{folder.label_path(names[9])}{more}")
    assert [name in message for name in names] == [True] * 10 + [False] * 5


def test_every_kind_of_mistake_at_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"train": dict.fromkeys("abcd", LABEL)})
    folder.label_path("a").unlink()
    write_label(folder.label_path("b"), np.full((2, 2), 7, dtype=np.uint8))
    Image.new("RGB", (3, 2)).save(folder.label_path("c"))
    message = refused(folder, "abcd")
    remedies = ("add the missing", "(width, height)", "use labels 0 to 2", "palette or grey")
    assert all(remedy in message for remedy in remedies)
    assert message.count("1 found") == 4


def test_names_keep_their_order(tmp_path: Path) -> None:
    folder = VocFolder(tmp_path)
    list_split(folder, "val", "2007_b\r\n2007_a\n\n2007_c")
    assert folder.names("val") == ["2007_b", "2007_a", "2007_c"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is missing: list the names of the val images"),
        ("", "is empty: list the names of the val images"),
        ("\n \n", "is empty"),
        ("a\nb\na\nc\nb\na\n", "repeats names: 2 found: a, b"),
    ],
)
def test_unusable_split(tmp_path: Path, text: str | None, problem: str) -> None:
    folder = VocFolder(tmp_path)
    path = list_split(folder, "val", text or "")
    if text is None:
        path.unlink()
    with pytest.raises(DataError) as caught:
        folder.names("val")
    assert f"{path} {problem}" in message_of(caught)


@pytest.mark.parametrize("names", [["sky", "road"], ["background", "traffic light", "dog"]])
def test_classes_are_lines(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    assert VocFolder(tmp_path).classes() == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is missing: list the class names in it, index 0 first"),
        ("\n", "is empty: list the class names in it, index 0 first"),
        ("sky\nroad\nsky\n", "repeats names: 1 found: sky"),
    ],
)
def test_unusable_classes(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "classes.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as caught:
        VocFolder(tmp_path).classes()
    assert message_of(caught) == f"{path} {problem}"
