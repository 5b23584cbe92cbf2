"""Tests of the commands ``predict`` and ``export``."""

from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import MINIATURE
from PIL import Image

import deeplab_bench
from deeplab_bench.command_line import run
from deeplab_bench.data.image_files import read_image, read_label
from deeplab_bench.data.packed import Split


@pytest.fixture
def folder(
    checkpoint_file: Path, val: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Make a folder with a checkpoint and two photographs."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(val.image(0)).save(tmp_path / "photos" / "one.png")
    Image.fromarray(val.image(1)).save(tmp_path / "photos" / "two.JPG", "JPEG")
    (tmp_path / "plain-0.pt").symlink_to(checkpoint_file)
    (tmp_path / "again.pt").symlink_to(checkpoint_file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", [["photos"], ["photos/*"], ["photos/one.png", "photos/two.JPG"]])
def test_labels_pictures_and_shares(
    folder: Path, val: Split, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", *given, "--checkpoint", "plain-0.pt,again.pt"]) == 0
    written = sorted(path.name for path in (folder / "predictions").iterdir())
    labels = ("again.overlay.png", "again.png", "plain-0.overlay.png", "plain-0.png")
    kinds = (*labels, "png")
    assert written == [f"{photo}.{kind}" for photo in ("one", "two") for kind in kinds]
    expected = deeplab_bench.load("plain-0.pt").predict(val.image(0))
    found = read_label(folder / "predictions" / "one.plain-0.png")
    assert np.array_equal(found, expected)
    with Image.open(folder / "predictions" / "one.png") as picture:
        assert picture.width > 1000
    share = 100 * np.mean(expected == np.bincount(expected.ravel()).argmax())
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "one.png, plain-0" in x)
    assert f"{share:.1f} %" in line


def test_an_overlay_has_the_photograph_s_size(folder: Path, val: Split) -> None:
    assert run(["predict", "photos/one.png", "--checkpoint", "plain-0.pt"]) == 0
    label = read_label(folder / "predictions" / "one.plain-0.png")
    overlay = read_image(folder / "predictions" / "one.plain-0.overlay.png")
    assert overlay.shape == val.image(0).shape
    changed = (overlay != val.image(0)).any(axis=2)
    assert changed.any()
    assert not changed[label == 0].any()  # the background


def test_the_others_are_predicted_though_one_is_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "three.jpg"):
        (folder / "photos" / name).write_text("no image")
    assert run(["predict", "photos", "--checkpoint", "plain-0.pt"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert lines == [
        f"error: photos/{name} cannot be read: it is damaged or no image"
        for name in ("a.png", "three.jpg")
    ]
    assert {path.name.split(".")[0] for path in Path("predictions").iterdir()} == {"one", "two"}


@pytest.mark.parametrize(
    ("declared", "first"), [("[plain]", ""), ("[other]", "add it to `run` in params.yaml and ")]
)
def test_a_model_without_checkpoint_must_be_trained_first(
    folder: Path, declared: str, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    params = MINIATURE.replace("models: [fcn, aspp]", f"models: {declared}")
    blocks = "".join(f"  {name}:\n    architecture: fcn\n" for name in ("plain", "other"))
    Path("params.yaml").write_text(params + blocks, encoding="utf-8")
    assert run(["predict", "photos/one.png", "--model", "plain"]) == 1
    assert capsys.readouterr().err == (
        "error: checkpoints/miniature/plain-0.pt is missing, since plain is not trained here: "
        f"{first}run `dvc repro train@miniature-plain-0`\n"
    )


def test_the_crf_changes_the_labels(folder: Path) -> None:
    photo = ["photos/one.png", "--checkpoint", "plain-0.pt"]
    assert run(["predict", *photo]) == 0
    assert run(["predict", *photo, "--crf", "--out", "refined"]) == 0
    outs = ("predictions", "refined")
    before, after = (read_label(folder / out / "one.plain-0.png") for out in outs)
    assert before.shape == after.shape
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no photograph is given: write its path, or a folder"),
        (["gone.jpg"], "gone.jpg: there is no such file, and no image in such a folder"),
        (["notes.txt"], "notes.txt cannot be read: it is damaged or no image"),
        (
            ["photos/one.png", "one.jpg"],
            "photos/one.png and one.jpg have one name: predict them into two folders (--out)",
        ),
        (
            ["one.jpg", "--checkpoint", "gone.pt"],
            "gone.pt is missing: give the path",
        ),
        (["one.jpg", "--checkpoint", ""], "give either --model or --checkpoint"),
        (["one.jpg", "--checkpoint", "plain-0.pt,photos/../plain-0.pt"], "two files have one name"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes.txt").write_text("no image")
    Image.new("RGB", (8, 8)).save(folder / "one.jpg")
    chosen = [] if "--checkpoint" in arguments else ["--checkpoint", "plain-0.pt"]
    assert run(["predict", *arguments, *chosen]) == 1
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error: "))
    assert said in line
    assert not (folder / "predictions").exists()


def test_a_network_is_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = ["plain-0.pt", "networks/plain.pt2", "--height", "41", "--width", "57"]
    assert run(["export", *target]) == 0
    program = torch.export.load(folder / "networks" / "plain.pt2")
    assert program.module()(torch.zeros(3, 3, 41, 57)).shape == (3, 6, 41, 57)
    assert (
        "RGB images (N, 3, 41, 57) of 0 to 255 -> logits of background," in capsys.readouterr().out
    )


def test_an_unknown_format_is_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "gone.pt", "plain.tflite"]) == 1
    said = "error: plain.tflite: give a path that ends in .onnx or .pt2\n"
    assert capsys.readouterr().err == said
