"""Tests of the command ``score``."""

from pathlib import Path

import numpy as np
import pytest
from miniature import MINIATURE
from PIL import Image

from deeplab_bench.command_line import run
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.results.records import LabelFilesRecord, read_record


@pytest.fixture
def val_of_profile(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Work in a folder with the data of a profile, and with perfect label files of it."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(MINIATURE, encoding="utf-8")
    Path("data").mkdir()
    Path("data/miniature").symlink_to(data_folder)
    split = load_split(data_folder, "val")
    Path("theirs").mkdir()
    for index, name in enumerate(split.names):
        label = split.label(index)
        Image.fromarray(np.where(label == 255, 0, label)).save(f"theirs/{name}.png")
    return split


def test_record_and_summary(val_of_profile: Split, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", "theirs"]) == 0
    path = Path("results/miniature/runs/label_files/theirs.json")
    record = read_record(path, LabelFilesRecord)
    assert record.metrics.miou == 1
    assert list(record.images) == val_of_profile.names
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "theirs on 8 images of miniature"
    assert lines[1].split() == ["mIoU", "100.00"]
    assert [line.split()[1:] for line in lines if "star" in line] == [["not", "defined"]]
    assert "absent_zero" in "".join(lines)
    assert lines[-1].endswith("`make repro PROFILE=miniature` puts it into the tables")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "aspp"], "aspp is a model of params.yaml: give another --name"),
        (["--name", "a/b"], "'a/b' cannot be a name: give --name of A-Z"),
        (["--profile", "quick"], "--profile: 'quick' is not defined"),
    ],
)
def test_mistakes_are_one_line(
    val_of_profile: Split,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["score", "theirs", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not Path("results").exists()


def test_data_that_are_not_prepared(
    val_of_profile: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/miniature").unlink()
    assert run(["score", "theirs"]) == 1
    assert "run `dvc repro prepare@miniature`" in capsys.readouterr().err
