"""Tests of two versions of committed results, in a git repository of made-up ones."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deeplab_bench.command_line import run
from deeplab_bench.verification.versions import (
    COLUMNS,
    compare_tables,
    compare_versions,
    describe_change,
    number_causes,
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
    classes = ["model,sky", "fcn,6.00", f"aspp,{'8.00' if 'new' in rows else '7.00'}"]
    (folder / "tables" / "per_class.csv").write_text("\n".join(classes) + "\n")
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


def test_equal_causes_have_one_number() -> None:
    causes = ["data", "", "code (train)", "data"]
    rows, listed = number_causes(pd.DataFrame({"Model": list("abcd"), "Cause": causes}))
    assert list(rows["Cause"]) == ["1", "", "2", "1"]
    assert listed == ["data", "code (train)"]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("1.25", "1.25", ""),
        ("1.25", "1.26", ""),  # by rounding
        ("1.25", "1.27", "1.25 → 1.27"),
        ("8", "9", "8 → 9"),
        ("", "1.25", "none → 1.25"),
        ("", "", ""),
        ("96x96", "64x64", "96x96 → 64x64"),
    ],
)
def test_a_change_is_beyond_rounding(before: str, after: str, change: str) -> None:
    assert describe_change(before, after) == change


def test_tables_show_what_changed_in_common_rows_alone() -> None:
    before = pd.DataFrame({"model": ["a", "b", "old"], "x": ["1.00", "2.00", "3.00"], "y": "5.00"})
    after = pd.DataFrame({"model": ["new", "b", "a"], "x": ["4.00", "2.50", "1.00"], "y": "5.00"})
    changed = compare_tables(before, after, ["model"])
    assert changed.to_dict("records") == [{"model": "b", "x": "2.00 → 2.50"}]


def test_the_command_prints_a_table_and_each_cause_once(
    versions: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *versions]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    assert re.search(r"psp .*beyond the intervals +2 *\n", printed)
    assert printed.count("data; pretrained weights; code (evaluate)") == 1
    assert printed.splitlines()[-1] == "Values of other tables changed, too (--out): per_class"


def test_out_has_the_further_tables_too(versions: tuple[str, str]) -> None:
    assert run(["compare", *versions, "--out", "changes.md"]) == 0
    text = Path("changes.md").read_text(encoding="utf-8")
    assert "| psp " in text and "2. data; pretrained weights" in text
    assert re.search(
        r"### per_class\n\n\| Model +\| sky +\|\n.*\n\| aspp +\| 7.00 → 8.00 \|\n$", text
    )


def test_a_page_needs_no_other_file(versions: tuple[str, str]) -> None:
    assert run(["compare", *versions, "--out", "changes.html"]) == 0
    page = Path("changes.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert ">7.00 → 8.00</td>" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["v9", "HEAD"], "v9 is not known here: give a tag, a branch or a commit"),
        (["HEAD", "v9"], "v9 is not known here: give a tag, a branch or a commit"),
        (["HEAD", "HEAD", "--profile", "tiy"], "HEAD has no results of tiy"),
        (["HEAD", "HEAD", "--out", "x.txt"], "--out x.txt: give a path that ends in .md or .html"),
    ],
)
def test_mistakes_are_one_line(
    versions: tuple[str, str], command: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *command]) == 1
    assert capsys.readouterr() == ("", f"error: {said}\n")
