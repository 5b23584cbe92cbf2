"""Faults and what is said of them. ``docs/faults.md`` is made from this table.

``python tests/faults/test_faults.py`` writes the page anew.
"""

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_bench.data.folder import FolderData
from deeplab_bench.data.packed import load_split
from deeplab_bench.data.pixels import write_label
from deeplab_bench.data.preparation import prepare
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.checkpoint import open_checkpoint
from deeplab_bench.models.backbone import BackboneName
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.training import Training
from deeplab_bench.training import snapshots
from deeplab_bench.training.pretrained import read_weights
from deeplab_bench.training.snapshots import Snapshots
from deeplab_bench.training.train import train_on

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
CLASSES = ("background", "cat", "dog")
LABEL = np.tile(np.array([[0, 1, 2, 255]], dtype=np.uint8), (4, 1))
RGB = np.random.default_rng(0).integers(0, 256, (*LABEL.shape, 3), dtype=np.uint8)
PARAMS = """\
run:
  profiles: [mine]
  models: [fcn]
  seeds: [0]
  hardware: []
  inference: [plain]
  crf: []
  audit: []
  label_files: []
profile:
  mine:
    data: {dataset: shapes, seed: 0, image_size: 64, train_images: 8, val_images: 4}
    model: {backbone: resnet18, width: 0.25, output_stride: 16}
    training:
      iterations: 4
      batch_size: 2
      crop_size: [33, 33]
      base_lr: 0.05
      momentum: 0.9
      weight_decay: 0.0001
      random_scale: [0.5, 2.0]
      horizontal_flip: true
      precision: float32
inference:
  plain: {}
models:
  fcn: {architecture: fcn}
"""


@dataclass(frozen=True)
class Fault:
    """A fault, how to bring it about in a new folder, and the message, where < > is any text."""

    what: str
    cause: Callable[[Path], object]
    message: str


def prepare_folder(
    folder: Path, spoil: Callable[[Path], object], classes: tuple[str, ...] = CLASSES
) -> None:
    """Prepare a data set of two training images and one to score, after ``spoil``."""
    root = folder / "mine"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.fromarray(RGB).save(root / "JPEGImages" / f"{name}.png")
        write_label(root / "SegmentationClass" / f"{name}.png", LABEL)
    write_list(root, "a\nb\n")
    write_list(root, "c\n", "val")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    spoil(root)
    data = FolderData(dataset="folder", root=str(root))
    prepare(data, folder / "downloads", folder / "data")


def write_list(root: Path, text: str, split: str = "train", encoding: str = "utf-8") -> None:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.write_bytes(text.encode(encoding))


def save(root: Path, image: Image.Image, kind: str = "PNG", **options: object) -> None:
    image.save(root / "JPEGImages" / "a.png", kind, **options)


def save_label(root: Path, image: Image.Image, kind: str = "PNG") -> None:
    image.save(root / "SegmentationClass" / "a.png", kind)


def write_masks(root: Path) -> None:
    for path in root.glob("SegmentationClass/*"):
        write_label(path, np.where(LABEL == 1, 255, 0).astype(np.uint8))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def of_data(
    what: str,
    message: str,
    spoil: Callable[[Path], object],
    classes: tuple[str, ...] = CLASSES,
) -> Fault:
    return Fault(what, lambda folder: prepare_folder(folder, spoil, classes), message)


def of_params(what: str, message: str, old: str, new: str) -> Fault:
    assert old in PARAMS

    def cause(folder: Path) -> None:
        path = folder / "params.yaml"
        path.write_text(PARAMS.replace(old, new), encoding="utf-8")
        load_params(path)

    return Fault(what, cause, f"<params.yaml>{message}")


def build_experiment(**training: object) -> Experiment:
    settings = {
        "iterations": 30,
        "batch_size": 2,
        "crop_size": (33, 33),
        "base_lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "random_scale": (1, 1),
        "horizontal_flip": False,
        "precision": "float32",
    }
    return Experiment(
        profile="mine",
        model="fcn",
        architecture="fcn",
        arguments={"backbone": "resnet18", "width": 0.25, "output_stride": 32},
        training=Training.model_validate(settings | training),
    )


def train_small(folder: Path, **training: object) -> None:
    prepare_folder(folder, lambda root: None)
    splits = [load_split(folder / "data", "train")]
    train_on(splits, build_experiment(**training), 0, folder / "fcn-0.pt", {}, workers=0)


def train_twice_at_once(folder: Path) -> None:
    with Snapshots(folder / "fcn-0.pt", {}).lock(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "PATIENCE_SECONDS", 0.1)
        train_small(folder)


def open_spoilt(folder: Path, content: bytes | dict[str, object] | None) -> None:
    path = folder / "fcn-0.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    expected = Provenance(
        settings_sha256="a", data_sha256="b", weights_sha256=None, code_sha256={"train": "c"}
    )
    open_checkpoint(path, expected)


def read_spoilt(folder: Path, content: bytes) -> None:
    backbone: BackboneName = "resnet18"
    (folder / "mine.pth").write_bytes(content)
    read_weights(str(folder / "mine.pth"), backbone)


FAULTS: dict[str, list[Fault]] = {
    "Images": [
        of_data(
            "16 bits a channel",
            "<root>: save images with 8 bits a channel: 1 found: <a.png> has 16",
            lambda root: save(root, Image.fromarray(np.full(LABEL.shape, 736, dtype=np.uint16))),
        ),
        of_data(
            "transparent pixels",
            "<root>: save images without transparent pixels: 1 found: <a.png> has some",
            lambda root: save(root, Image.new("RGBA", LABEL.shape[::-1], (9, 9, 9, 0))),
        ),
        of_data(
            "an EXIF orientation",
            "<root>: turn images as their labels are and save them without EXIF orientation: "
            "1 found: <a.png> has orientation 6",
            lambda root: save(root, Image.fromarray(RGB), exif=turned()),
        ),
        of_data(
            "a colour profile other than sRGB",
            "<root>: convert images to sRGB: 1 found: <a.png> has the colour profile <name>",
            lambda root: save(root, Image.fromarray(RGB), icc_profile=b"Adobe RGB"),
        ),
        of_data(
            "CMYK",
            "<root>: save images in RGB or grey: 1 found: <a.png> is CMYK",
            lambda root: save(root, Image.fromarray(RGB).convert("CMYK"), "JPEG"),
        ),
        of_data(
            "another format under the name of a PNG",
            "<root>: save images as JPEG or PNG: 1 found: <a.png> is TIFF",
            lambda root: save(root, Image.fromarray(RGB), "TIFF"),
        ),
        of_data(
            "a file that was cut off",
            "<root>: replace the damaged files: 1 found: <a.png>",
            lambda root: os.truncate(root / "JPEGImages" / "a.png", 60),
        ),
        of_data(
            "a missing file",
            "<root>: add the missing files, or remove their names from the split's list: "
            "1 found: <a.jpg>",
            lambda root: (root / "JPEGImages" / "a.png").unlink(),
        ),
        of_data(
            "two files of one name",
            "<a.jpg> and a.png have one name: keep one of them",
            lambda root: Image.fromarray(RGB).save(root / "JPEGImages" / "a.jpg"),
        ),
    ],
    "Labels": [
        of_data(
            "masks of 0 and 255",
            "<root>: no label of train has cat (1); they have 0, 255: the first line of "
            "classes.txt is the name of value 0, and 255 is void; remove names that no label uses, "
            "or change the values of the labels",
            write_masks,
            classes=("background", "cat"),
        ),
        of_data(
            "a line `background` that the labels do not use",
            "<root>: no label of train has dog (3); they have 0, 1, 2, 255: <advice>",
            lambda root: None,
            classes=("background", "cow", "cat", "dog"),
        ),
        of_data(
            "colours in place of class indices",
            "<root>: save labels as palette or grey PNGs of class indices: 1 found: <a.png> is a "
            "RGB image",
            lambda root: save_label(root, Image.fromarray(RGB)),
        ),
        of_data(
            "16 bits",
            "<root>: save labels as palette or grey PNGs of class indices: 1 found: <a.png> is a "
            "I;16 image",
            lambda root: save_label(root, Image.fromarray(LABEL.astype(np.uint16))),
        ),
        of_data(
            "a JPEG",
            "<root>: save labels as PNG: 1 found: <a.png> is JPEG",
            lambda root: save_label(root, Image.fromarray(LABEL), "JPEG"),
        ),
        of_data(
            "a value beyond the classes",
            "<root>: use labels 0 to 2, and 255 for void: 1 found: <a.png> has 7",
            lambda root: save_label(root, Image.fromarray(np.where(LABEL == 2, 7, LABEL))),
        ),
        of_data(
            "void alone",
            "<root>: remove images without any pixel of the classes from the list: 1 found: "
            "<a.png>",
            lambda root: save_label(root, Image.fromarray(np.full_like(LABEL, 255))),
        ),
        of_data(
            "another size than the image",
            "<root>: give label and image the same (width, height): 1 found: <a.png> (3, 4), its "
            "image (4, 4)",
            lambda root: save_label(root, Image.fromarray(np.ascontiguousarray(LABEL[:, :3]))),
        ),
    ],
    "Lists": [
        of_data(
            "a path in place of a name",
            "<train.txt> has the line '/JPEGImages/a.png /SegmentationClass/a.png': write the name "
            "of the image alone, without folder and suffix, here 'a'",
            lambda root: write_list(root, "/JPEGImages/a.png /SegmentationClass/a.png\n"),
        ),
        of_data(
            "a path that leaves the folder",
            "<train.txt> has the line '../../secret': write the name of the image alone, without "
            "folder and suffix, here 'secret'",
            lambda root: write_list(root, "../../secret\n"),
        ),
        of_data(
            "UTF-16",
            "<train.txt> is no text in UTF-8: save it in this encoding",
            lambda root: write_list(root, "a\nb\n", encoding="utf-16"),
        ),
        of_data(
            "an empty list",
            "<train.txt> is empty: list the names of the train images in it",
            lambda root: write_list(root, "\n"),
        ),
        of_data(
            "a name twice",
            "<train.txt> repeats names: 1 found: a",
            lambda root: write_list(root, "a\na\n"),
        ),
        of_data(
            "an image in both splits",
            "<root>: train and val share 1 images, such as a: remove them from one of the two "
            "lists",
            lambda root: write_list(root, "a\n", "val"),
        ),
        of_data(
            "no list of classes",
            "<classes.txt> is missing: list the class names in it, index 0 first",
            lambda root: (root / "classes.txt").unlink(),
        ),
        of_data(
            "a class with the name of another column",
            "<classes.txt> has the class 'model', which is the name of another column of the "
            "tables: write another name",
            lambda root: None,
            classes=("background", "cow", "model"),
        ),
    ],
    "`params.yaml`": [
        of_params("a key that does not exist", "<...>momentun<...>", "momentum:", "momentun:"),
        of_params("a value of another type", "<...>base_lr<...>", "base_lr: 0.05", "base_lr: fast"),
        of_params("text that is no YAML", " is not valid YAML: <...>", "[fcn]", "[fcn"),
        of_params("0 iterations", "<...>iterations<...>greater than 0<...>", ": 4\n", ": 0\n"),
        of_params(
            "batches of one image", "<...>batch_size<...>2<...>", "batch_size: 2", "batch_size: 1"
        ),
        of_params(
            "a model that is not there", "<...>fcm<...>fcn<...>", "models: [fcn]", "models: [fcm]"
        ),
        of_params(
            "an argument that the architecture does not have",
            "<...>atrous_rates<...>",
            "{architecture: fcn}",
            "{architecture: fcn, atrous_rates: [1]}",
        ),
    ],
    "Training": [
        Fault(
            "a loss that diverges",
            lambda folder: train_small(folder, base_lr=1e30),
            "the loss is <nan> in iteration <2>, where the learning rate is <1e+30>: lower "
            "training.base_lr, now 1e+30, or raise training.warmup_iterations",
        ),
        Fault(
            "a second process on one run",
            train_twice_at_once,
            "<fcn-0.pt> is being trained by another process: wait for it or end it",
        ),
        Fault(
            "weights of another network",
            lambda folder: train_small(folder, weights=str(save_weights(folder, {"x": 1.0}))),
            "<...>",
        ),
    ],
    "Checkpoints and weights": [
        Fault(
            "a missing checkpoint",
            lambda folder: open_spoilt(folder, None),
            "<fcn-0.pt> is missing: run `dvc repro`",
        ),
        Fault(
            "a checkpoint that was cut off",
            lambda folder: open_spoilt(folder, b"PK\x03\x04 half"),
            "<fcn-0.pt> is damaged or no checkpoint of a run: run `dvc repro --single-item --force "
            "train@<mine>-fcn-0`",
        ),
        Fault(
            "a checkpoint of other settings",
            lambda folder: open_spoilt(
                folder,
                {key: {} for key in ("model", "classes", "history", "experiment")}
                | {"provenance": {"settings_sha256": "other"}},
            ),
            "<fcn-0.pt> was trained with other settings than now: run `dvc repro --single-item "
            "--force train@<mine>-fcn-0`",
        ),
        Fault(
            "a file of weights with a program inside",
            lambda folder: read_spoilt(folder, b"\x80\x02cos\nsystem\n(S'true'\ntR."),
            "training.weights: <mine.pth> cannot be read: it holds more than tensors, and could "
            "run a program: save a state_dict alone",
        ),
    ],
}


def save_weights(folder: Path, state: dict[str, float]) -> Path:
    path = folder / "mine.pth"
    torch.save({key: torch.tensor(value) for key, value in state.items()}, path)
    return path


def bring_about(fault: Fault, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        fault.cause(folder)
    return str(caught.value)


def format_row(fault: Fault, said: str, folder: Path) -> str:
    shown = said.replace(f"{folder}/", "").replace(folder.name, "mine").replace("|", "\\|")
    return f"| {fault.what} | {shown} |"


ALL = [(area, fault) for area, faults in FAULTS.items() for fault in faults]


@pytest.mark.parametrize(("area", "fault"), ALL, ids=[f"{a}: {f.what}" for a, f in ALL])
def test_every_fault_is_one_line_that_says_what_to_do(
    area: str, fault: Fault, tmp_path: Path
) -> None:
    said = bring_about(fault, tmp_path)
    assert "\n" not in said
    parts = re.split(r"<[^<>]*>", fault.message)
    assert re.fullmatch(".*?".join(map(re.escape, parts)), said), said
    assert not (tmp_path / "data" / "manifest.json").exists() or area == "Training"
    assert format_row(fault, said, tmp_path) in PAGE.read_text(encoding="utf-8"), f"run {__file__}"


def format_page() -> str:
    """Format the page with every fault, and what is said of it here."""
    lines = [
        "# Faults",
        "",
        "What stops a run before work is spent, and the line that it ends with. Nothing that was "
        "computed is lost. `python tests/faults/test_faults.py` makes this page from the faults "
        "that the tests bring about.",
    ]
    for area, faults in FAULTS.items():
        lines += ["", f"## {area}", "", "| Fault | What is said |", "|:--|:--|"]
        for fault in faults:
            with tempfile.TemporaryDirectory() as folder:
                said = bring_about(fault, Path(folder))
                lines.append(format_row(fault, said, Path(folder)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")
