"""Tests of the rows and the table of models of others, on made-up scores known by hand."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_report import declare, dump, run_record, write_results

from deeplab_bench.report import label_files, loading, tables, write_report
from deeplab_bench.report.cells import TraceError
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.results import ReportError, Results
from deeplab_bench.report.tables import format_accuracy
from deeplab_bench.report.trace import trace
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import Scores
from deeplab_bench.settings.params import Params

PARAMS = declare(label_files=["theirs"])


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
        "code_sha256": compute_code_sha256("label_files"),
        "labels_sha256": "labels",
        "source": {"commit": "c" * 40, "dirty": False, "lock_sha256": None},
        "variants": {"absent_zero": miou - 0.01, "void_as_background": None},
        "images": {f"val_{index}": [[0, index, 4]] for index in range(4)},
    }
    dump(ProfileFiles("quick").label_files(file), content | changes)


def load(params: Params = PARAMS) -> Results:
    return load_results(params, "quick")


def render(params: Params = PARAMS) -> dict[str, str]:
    return tables.render(load(params)) | label_files.render(load(params))


def read(name: str, params: Params = PARAMS) -> pd.DataFrame:
    text = render(params)[f"tables/{name}.csv"]
    return pd.read_csv(StringIO(text)).set_index("model")


def test_without_models_of_others_there_is_no_table() -> None:
    params = declare()
    assert "tables/label_files.csv" not in render(params)
    assert list(read("accuracy", params).index) == ["aspp", "image_pyramid"]


def test_row_of_the_accuracy_table() -> None:
    write_label_files("theirs", 0.65)
    table = read("accuracy")
    assert list(table.index) == ["aspp", "image_pyramid", "theirs"]
    row = table.loc["theirs"]
    assert (row["architecture"], row["seeds"]) == ("label files", 1)
    assert row["miou_mean"] == 65
    assert row["pixel_accuracy_mean"] == 75
    assert row["miou_small"] == 45
    unknown = ["params_m", "gflops", "output_stride", "miou_std", "rank", "rank_low", "rank_high"]
    assert all(pd.isna(row[column]) for column in unknown)
    # On four images, the IoU of a resample is the mean of 0, 25, 50 and 75 %.
    of_images = np.array([0, 25, 50, 75])
    margin = stats.t.ppf(0.975, 3) * of_images.std(ddof=1) / 2
    assert row["ci95_high"] - row["miou_mean"] == pytest.approx(margin, rel=0.02)


def test_rows_of_our_models_stay_as_they_were() -> None:
    write_label_files("theirs", 0.85)
    with_others, ours = read("accuracy"), read("accuracy", declare())
    pd.testing.assert_frame_equal(with_others.drop("theirs"), ours, check_dtype=False)
    pd.testing.assert_frame_equal(load().compared, load(declare()).compared)


def test_difference_to_each_of_ours() -> None:
    """Check against the formula: the variance over images, and the pooled one of our seeds."""
    write_label_files("theirs", 0.65)
    rows = read("label_files").set_index("other")
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


def test_classes_boundaries_and_variants() -> None:
    params = declare(label_files=["theirs", "others"])
    write_label_files("theirs", 0.65)
    write_label_files("others", 0.5)
    assert list(read("per_class", params).index)[2:] == ["theirs", "others"]
    assert read("per_class", params).loc["theirs", "ring"] == 65
    assert read("boundaries", params).loc["theirs", "boundary_miou"] == 32.5
    assert read("object_size", params).loc["others", "miou_small"] == 30
    audit = read("protocol_audit", params).loc["theirs"].set_index("variant")
    assert audit.loc["protocol", "gain"] == 0
    assert audit.loc["absent_zero", "gain"] == -1
    assert audit["miou_mean"].isna().to_dict()["void_as_background"]
    assert "not applicable" in render(params)["tables/protocol_audit.md"]


@pytest.mark.usefixtures("_without_figures")
def test_pages_show_them(folder: Path) -> None:
    write_label_files("theirs", 0.65)
    write_report(PARAMS, "quick")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "- [Models of others beside ours](tables/label_files.md): " in page
    assert page.count("| theirs ") == 1
    assert ", and commit cccccccccccc" in page or "commit cccccccccccc, and" in page
    assert "one set each, not trained under this protocol: theirs." in page
    assert "Models of others" in (folder / "report.html").read_text(encoding="utf-8")
    assert '"theirs"' in (folder / "metrics.json").read_text(encoding="utf-8")
    assert "theirs" in format_accuracy(PARAMS, "quick")


@pytest.mark.usefixtures("_without_figures")
def test_they_stay_in_the_results_of_a_profile_that_does_not_run() -> None:
    write_label_files("theirs", 0.65)
    write_report(PARAMS, "quick")
    run = PARAMS.run.model_copy(update={"profiles": ("another",), "label_files": ()})
    results = load(loading.declare(PARAMS.model_copy(update={"run": run}), "quick"))
    assert [each.name for each in results.label_files] == ["theirs"]
    assert results.models == ("aspp", "image_pyramid")


@pytest.mark.usefixtures("_without_figures")
def test_a_trace_says_that_they_were_not_trained_here() -> None:
    write_label_files("theirs", 0.65)
    write_report(PARAMS, "quick")
    with pytest.raises(TraceError, match="theirs was not trained here; results/quick/runs/label_"):
        trace(PARAMS, Path("results/quick/tables/accuracy.csv"), "theirs", "miou_mean")


def test_scores_of_older_code_are_marked() -> None:
    write_label_files("theirs", 0.65, code_sha256="older")
    text = render()["tables/accuracy.md"]
    assert "theirs ‡" in text
    assert "theirs (label_files). Run `make repro PROFILE=quick` to make them again." in text


def test_more_than_the_ceiling_is_implausible() -> None:
    profile = PARAMS.profile["quick"].model_copy(update={"miou_ceiling": 80.0})
    params = PARAMS.model_copy(update={"profile": {"quick": profile}})
    write_label_files("theirs", 0.85)
    text = render(params)["tables/accuracy.md"]
    assert "theirs † " in text
    assert "mIoU 85.00 % is above the ceiling of 80 %" in text


def test_a_file_that_was_renamed_is_refused() -> None:
    write_label_files("theirs", 0.65, name="others")
    with pytest.raises(ReportError, match=r"theirs.json is of name 'others', not 'theirs': run"):
        load()


def test_other_data_are_refused() -> None:
    write_label_files("theirs", 0.65, data_sha256="other")
    with pytest.raises(ReportError, match=r"theirs was scored on other data than aspp: run"):
        load()
