"""Tests of the tables of other people's networks, on made-up label files known by hand."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_report import declare, dump, run_record, write_results

from deeplab_bench.evaluation.label_files import compute_scoring_sha256
from deeplab_bench.report import label_files, write_report
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.results import ReportError, Results
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import Scores
from deeplab_bench.settings.params import Params

PARAMS = declare()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_results(PARAMS)
    return tmp_path / "results" / "quick"


def write_label_files(file: str, miou: float, **changes: Any) -> None:
    of_run = run_record(PARAMS, "aspp", 0, miou)
    content = {key: of_run[key] for key in Scores.model_fields}
    content |= {
        "profile": "quick",
        "name": file,
        "data_sha256": "data",
        "code_sha256": compute_scoring_sha256(),
        "labels_sha256": "labels",
        "source": {"commit": "c" * 40, "dirty": False, "lock_sha256": None},
        "variants": {"absent_zero": miou - 0.01, "void_as_background": None},
        "images": {f"val_{index}": [[0, index, 4]] for index in range(4)},
    }
    dump(ProfileFiles("quick").label_files / f"{file}.json", content | changes)


def load(params: Params = PARAMS) -> Results:
    return load_results(params, "quick")


def read(name: str) -> pd.DataFrame:
    text = label_files.render(load())[f"tables/{name}.csv"]
    return pd.read_csv(StringIO(text)).set_index("model")


def test_without_label_files_there_are_no_tables() -> None:
    assert label_files.render(load()) == {}


def test_scores_and_interval_over_images() -> None:
    write_label_files("theirs", 0.65)
    row = read("label_files").loc["theirs"]
    assert row["miou_mean"] == 65
    assert row["pixel_accuracy_mean"] == 75
    assert row["miou_small"] == 45
    assert row["boundary_miou"] == 32.5
    # On four images, the IoU of a resample is the mean of 0, 25, 50 and 75 %.
    of_images = np.array([0, 25, 50, 75])
    margin = stats.t.ppf(0.975, 3) * of_images.std(ddof=1) / 2
    assert row["ci95_high"] - row["miou_mean"] == pytest.approx(margin, rel=0.02)


def test_difference_to_each_of_ours() -> None:
    """Check against the formula: the variance over images, and the pooled one of our seeds."""
    write_label_files("theirs", 0.65)
    rows = read("label_files_comparisons").set_index("other")
    assert list(rows.index) == ["aspp", "image_pyramid"]
    assert rows.loc["aspp", "difference"] == -7
    assert rows.loc["image_pyramid", "difference"] == 5
    one, other = rows["ci95_high"] - rows["difference"]
    over_images = np.array([0, 25, 50, 75]).var(ddof=1) / 4  # ours is the same on all images
    pooled = (np.array([70, 72, 74]).var(ddof=1) + 0) / 2  # that of the other model is 0
    of_seeds = pooled / 3
    both = over_images + of_seeds
    freedom = both**2 / (over_images**2 / 3 + of_seeds**2 / 4)
    assert one == pytest.approx(stats.t.ppf(0.975, freedom) * both**0.5, rel=0.02)
    assert other == pytest.approx(one)


def test_classes_and_variants() -> None:
    write_label_files("theirs", 0.65)
    write_label_files("others", 0.5)
    assert list(read("label_files_per_class").index) == ["others", "theirs"]
    assert read("label_files_per_class").loc["theirs", "ring"] == 65
    audit = read("label_files_audit").loc["theirs"].set_index("variant")
    assert audit.loc["protocol", "gain"] == 0
    assert audit.loc["absent_zero", "gain"] == -1
    assert audit["miou_mean"].isna().to_dict()["void_as_background"]
    text = label_files.render(load())["tables/label_files_audit.md"]
    assert "not applicable" in text


@pytest.mark.usefixtures("_without_figures")
def test_pages_show_them(folder: Path) -> None:
    write_label_files("theirs", 0.65)
    write_report(PARAMS, "quick")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Networks of others beside ours" in page
    assert "| theirs " in page
    assert "Made at commit cccccccccccc." in page
    assert "Networks of others" in (folder / "report.html").read_text(encoding="utf-8")
    tables = sorted(path.name for path in (folder / "tables").glob("label_files*"))
    assert len(tables) == 12


def test_scores_of_older_code_are_marked() -> None:
    write_label_files("theirs", 0.65, code_sha256="older")
    text = label_files.render(load())["tables/label_files.md"]
    assert "theirs ‡" in text
    assert "theirs (score). Run `deeplab-bench score` to make them again." in text
    assert not load().outdated


def test_more_than_the_ceiling_is_implausible() -> None:
    params = declare()
    profile = params.profile["quick"].model_copy(update={"miou_ceiling": 60.0})
    params = params.model_copy(update={"profile": {"quick": profile}})
    write_label_files("theirs", 0.65)
    text = label_files.render(load(params))["tables/label_files.md"]
    assert "theirs † " in text
    assert "mIoU 65.00 % is above the ceiling of 60 %" in text


def test_a_file_that_was_renamed_is_refused() -> None:
    write_label_files("theirs", 0.65, name="others")
    with pytest.raises(ReportError, match=r"theirs.json was moved or renamed: run `deeplab-bench"):
        load()


def test_other_data_are_refused() -> None:
    write_label_files("theirs", 0.65, data_sha256="other")
    with pytest.raises(ReportError, match=r"theirs.json was scored on other data than aspp: run"):
        load()


def test_the_name_of_a_model_is_refused() -> None:
    write_label_files("aspp", 0.65)
    with pytest.raises(ReportError, match=r"aspp.json has the name of a model of params.yaml"):
        load()
