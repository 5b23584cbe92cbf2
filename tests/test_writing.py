"""Tests that result files are written completely or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from deeplab_bench.writing import write_json, write_tensors

CONTENTS = [
    {},
    {"a": 1, "b": [1, 2.5, None], "c": {}},
    {"name": 'quotes " and \\ and ü', "flag": True, "none": None},
    {"outer": {"inner": {"deep": {"deeper": [1, {"x": 2}]}}, "list": []}, "last": 0.1 + 0.2},
    [1, {"a": 2}],
    "text",
]


def fill_disk(descriptor: int) -> None:
    """Fail as ``os.fsync`` does on a full disk; half of the content has been written."""
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    raise OSError("no space left")


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("content", CONTENTS)
def test_round_trip(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "result.json"
    write_json(path, content)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert names_in(path.parent) == [path.name]


def test_an_entry_of_the_outer_levels_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": 3, "f": {}})
    assert (tmp_path / "x.json").read_text().splitlines() == [
        "{",
        '  "a": {',
        '    "b": {"c": 1},',
        '    "d": [1, 2]',
        "  },",
        '  "e": 3,',
        '  "f": {}',
        "}",
    ]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": x}, lambda x: {"a": {"b": [x]}}])
def test_refuses_what_json_cannot_say(number: float, wrap: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, "old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, wrap(number))
    assert json.loads(path.read_text()) == "old"
    assert names_in(tmp_path) == ["x.json"]


def test_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, "old")
    with path.open() as reader:
        write_json(path, "new content")
        assert json.load(reader) == "old"


def test_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_json(path, "old")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_disk)
        with pytest.raises(OSError, match="no space"):
            write_json(path, "new content")
    assert json.loads(path.read_text()) == "old"
    write_json(path, "new content")
    assert json.loads(path.read_text()) == "new content"
    assert names_in(tmp_path) == ["x.json"]


def test_write_interrupted_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "x.pt"
    write_tensors(path, {"x": torch.zeros(3)})
    assert names_in(path.parent) == ["x.pt"]

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_disk)
        with pytest.raises(OSError, match="no space"):
            write_tensors(path, {"x": torch.ones(3)})
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.zeros(3))
    write_tensors(path, {"x": torch.ones(3)})
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.ones(3))
    assert names_in(path.parent) == ["x.pt"]
