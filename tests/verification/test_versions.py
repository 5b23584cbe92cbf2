"""Tests of two versions of committed results, in a git repository of made-up ones."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deeplab_bench.command_line import run
from deeplab_bench.verification.versions import (
    COLUMNS,
    VersionError,
    compare_versions,
    read_version,
)

HEAD_OF_TABLE = "model,miou_mean,ci95_low,ci95_high"
SETTINGS: dict[str, Any] = {
    "training": {"base_lr": 0.05, "momentum": 0.9},
    "arguments": {"width": 1},
}
PROVENANCE: dict[str, Any] = {
    "data_sha256": "a",
    "weights_sha256": None,
    "code_sha256": {"train": "t", "evaluate": "e"},
}


def write_version(rows: dict[str, str], changed: dict[str, dict[str, Any]]) -> str:
    """Write a table and records of seed 0, commit them, and return the commit."""
    folder = Path("results/toy")
    runs = folder / "runs" / "evaluate" / "plain"
    for made in (folder / "tables", runs):
        made.mkdir(parents=True, exist_ok=True)
    lines = [HEAD_OF_TABLE, *(f"{model},{values}" for model, values in rows.items())]
    (folder / "tables" / "accuracy.csv").write_text("\n".join(lines) + "\n")
    for model in rows:
        own = changed.get(model, {})
        record = {
            "model": model,
            "settings": SETTINGS | own.get("settings", {}),
            "provenance": PROVENANCE | own.get("provenance", {}),
        }
        (runs / f"{model}-0.json").write_text(json.dumps(record))
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("add", "--all"), (*author, "commit", "--quiet", "--message", "m")):
        subprocess.run(("git", *command), check=True)
    head = subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True, check=True)
    return head.stdout.strip()


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    subprocess.run(("git", "init", "--quiet"), check=True)
    rows = {"fcn": "50,48,52", "aspp": "60,57,63", "psp": "61,60,62", "old": "1,0,2", "one": "5,,"}
    before = write_version(rows, {})
    rows = {"fcn": "50,48,52", "aspp": "64,60,68", "psp": "64,63,65", "new": "2,1,3", "one": "6,,"}
    changed: dict[str, dict[str, Any]] = {
        "aspp": {"settings": {"training": {"base_lr": 0.1, "momentum": 0.9}}},
        "psp": {
            "provenance": {
                "data_sha256": "b",
                "weights_sha256": "w",
                "code_sha256": {"train": "t", "evaluate": "f"},
            }
        },
    }
    return before, write_version(rows, changed)


def test_changes_verdicts_and_causes(versions: tuple[str, str]) -> None:
    before, after = (read_version(revision, "toy") for revision in versions)
    rows = compare_versions(before, after).set_index("Model")
    assert list(rows.columns) == list(COLUMNS[1:])
    verdicts = rows["Verdict"].to_dict()
    assert verdicts == {
        "fcn": "same",
        "aspp": "within the intervals",  # 4 points beside the root of 3 and 4 squared
        "psp": "beyond the intervals",  # 3 points beside the root of 1 and 1 squared
        "new": "new",
        "one": "no interval",
        "old": "gone",
    }
    assert list(rows["Change (points)"]) == ["+0.00", "+4.00", "+3.00", "", "+1.00", ""]
    assert rows.loc["aspp", "Cause"] == "settings (base_lr: 0.05 -> 0.1)"
    assert rows.loc["psp", "Cause"] == "data; pretrained weights; code (evaluate)"
    assert rows.loc["fcn", "Cause"] == ""
    assert rows.loc["psp", "mIoU before (%)"] == "61.00 (60.00 to 62.00)"


def test_the_command_prints_and_writes_markdown(
    versions: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *versions, "--out", "changes.md"]) == 0
    printed = capsys.readouterr().out
    assert printed == Path("changes.md").read_text(encoding="utf-8")
    assert "| psp " in printed and "beyond the intervals" in printed


def test_mistakes_are_one_line(
    versions: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", "v9", "HEAD"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: `git ls-tree -r --name-only v9 results/` failed: fatal: ")
    with pytest.raises(VersionError, match="HEAD has no results of tiy"):
        read_version("HEAD", "tiy")
