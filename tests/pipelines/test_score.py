"""Tests of the command ``score`` and of the stage ``label_files``."""

from pathlib import Path

import numpy as np
import pytest
from miniature import MINIATURE, Repository
from PIL import Image

from deeplab_bench.command_line import run
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.results.records import LabelFilesRecord, read_record

THEIRS = MINIATURE.replace("label_files: []", "label_files: [theirs]") + (
    "  theirs:\n    predictions: FOLDER\n"
)


def write_perfect_labels(folder: Path, split: Split) -> None:
    folder.mkdir()
    for index, name in enumerate(split.names):
        label = split.label(index)
        Image.fromarray(np.where(label == 255, 0, label)).save(folder / f"{name}.png")


@pytest.fixture
def val_of_profile(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Work in a folder with the data of a profile, and with perfect label files of it."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(THEIRS.replace("FOLDER", "theirs"), encoding="utf-8")
    Path("data").mkdir()
    Path("data/miniature").symlink_to(data_folder)
    split = load_split(data_folder, "val")
    write_perfect_labels(Path("theirs"), split)
    return split


def test_summary(val_of_profile: Split, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", "--predictions", "theirs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "theirs on 8 images of miniature"
    assert lines[1].split() == ["mIoU", "100.00"]
    assert [line.split()[1:] for line in lines if "star" in line] == [["not", "defined"]]
    assert "absent_zero" in "".join(lines)
    assert lines[-2].endswith("models: {theirs: {predictions: theirs}}")
    assert not Path("results").exists()


def test_record_of_the_stage(val_of_profile: Split) -> None:
    assert run(["resolve", "miniature"]) == 0
    assert run(["label_files", "miniature", "theirs"]) == 0
    path = Path("results/miniature/runs/label_files/theirs.json")
    record = read_record(path, LabelFilesRecord)
    assert record.metrics.miou == 1
    assert list(record.images) == val_of_profile.names
    assert str(Path.cwd()) not in path.read_text(encoding="utf-8")


def test_a_folder_that_is_not_there(
    val_of_profile: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("theirs").rename("elsewhere")
    assert run(["resolve", "miniature"]) == 1
    assert "models.theirs.predictions: theirs is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["gone", "data"])
def test_a_wrong_folder_is_told_first(
    val_of_profile: Split, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/miniature").unlink()
    assert run(["score", "--predictions", folder]) == 1
    said = f"error: --predictions: {folder} is no folder with label PNGs\n"
    assert capsys.readouterr().err == said


def test_another_profile_is_refused(
    val_of_profile: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["score", "--predictions", "theirs", "--profile", "quick"]) == 1
    assert "--profile: 'quick' is not defined" in capsys.readouterr().err


def test_data_that_are_not_prepared(
    val_of_profile: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/miniature").unlink()
    assert run(["score", "--predictions", "theirs"]) == 1
    assert "run `dvc repro prepare@miniature`" in capsys.readouterr().err


def test_dvc_sees_what_is_in_the_folder(tmp_path: Path) -> None:
    """Check that new predictions make the scores stale, and those of no network."""
    repository, folder = Repository(tmp_path / "repository"), tmp_path / "label files"
    repository.dvc("repro", "prepare@miniature")
    split = load_split(repository.root / "data" / "miniature", "val")
    write_perfect_labels(folder, split)
    repository.params.write_text(THEIRS.replace("FOLDER", str(folder)), encoding="utf-8")
    stage, record = "label_files@miniature-theirs", "results/miniature/runs/label_files/theirs.json"
    repository.dvc("repro", stage)
    before = read_record(repository.root / record, LabelFilesRecord)
    assert before.metrics.miou == 1
    assert stage not in repository.dvc("status")
    Image.fromarray(np.zeros_like(split.label(0))).save(folder / f"{split.names[0]}.png")
    assert stage in repository.dvc("status")
    repository.dvc("repro", stage)
    after = read_record(repository.root / record, LabelFilesRecord)
    assert after.metrics.miou < 1
    assert after.labels_sha256 != before.labels_sha256
