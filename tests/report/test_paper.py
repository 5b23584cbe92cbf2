"""Tests of published rows and made-up results: verdicts, reasons, orderings."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import SCHEDULE
from scipy import stats

from deeplab_bench.data.camvid import CamVidData
from deeplab_bench.data.voc2012 import VocData
from deeplab_bench.report import captions, page, paper, statistics
from deeplab_bench.report.results import Results
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.results.records import (
    Boundaries,
    CRFRecord,
    CRFScores,
    EvaluationRecord,
    History,
    Metrics,
    ObjectSize,
)
from deeplab_bench.settings import published
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.published import read_published

# A table of the profile's own data set, and one of other data.
FILE = """
papers:
  deeplabv3: {name: DeepLabv3, authors: A, title: A title, arxiv: "1706.05587", year: 2017}
  other: {name: Other, authors: B, title: Another, arxiv: "2", year: 2018}
protocols:
  deeplabv3: {dataset: shapes, iterations: 20, crop_size: [32, 32], weights: none}
  other: {dataset: elsewhere}
tables:
  deeplabv3.table5:
    {paper: deeplabv3, table: Table 5, split: val, metric: miou, settings: {output_stride: 16},
     rows: [{x: 1, miou: 60.0}, {x: 2, miou: 62.0}, {x: 3, miou: 61.0}, {x: 4, miou: 61.0}]}
  other.table1:
    {paper: other, table: Table 1, split: val, metric: miou,
     rows: [{x: 1, miou: 60.0}, {x: 2, miou: 70.0}]}
facts: {}
receptive_field: {}
data: {}
reproductions: {}
disagreements: []
"""


@pytest.fixture(autouse=True)
def _hand_made_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "published.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(published, "PUBLISHED_FILE", tmp_path / "published.yaml")
    read_published.cache_clear()
    yield
    read_published.cache_clear()


def cite(x: int, table: str = "deeplabv3.table5") -> dict[str, Any]:
    return {"table": table, "row": {"x": x}}


def results(
    scores: Mapping[str, Sequence[float]],
    cited: dict[str, Any],
    inferences: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    **training: Any,
) -> Results:
    """Make runs with these mIoUs in percent, one per seed."""
    seeds = len(next(iter(scores.values())))
    profile = {
        "data": {
            "dataset": "shapes",
            "seed": 0,
            "image_size": 32,
            "train_images": 8,
            "val_images": 4,
        },
        "model": {"backbone": "resnet18", "width": 0.25, "output_stride": 16},
        "training": SCHEDULE | training,
    }
    blocks = {
        model: {"architecture": "fcn"} | ({"published": cited[model]} if model in cited else {})
        for model in scores
    }
    run: dict[str, Any] = {
        "profiles": ["p"],
        "models": [*scores],
        "seeds": [*range(seeds)],
        "hardware": ["cpu"],
        "inference": [*(inferences or ())],
        "crf": [],
        "audit": [],
        "label_files": [],
    }
    content = {
        "run": run,
        "profile": {"p": profile},
        "models": blocks,
        "inference": {"os8": {"output_stride": 8}, "ms": {"scales": [0.5, 1.0], "flip": True}},
    }
    params = Params.model_validate_json(json.dumps(content))
    runs = [
        made(model, seed, miou / 100)
        for model, mious in scores.items()
        for seed, miou in enumerate(mious)
    ]
    others = [
        made(model, seed, miou / 100).model_copy(update={"inference": inference})
        for inference, models in (inferences or {}).items()
        for model, mious in models.items()
        for seed, miou in enumerate(mious)
    ]
    return Results(params, "p", runs, [], inferences=others)


def made(model: str, seed: int, miou: float) -> EvaluationRecord:
    return EvaluationRecord(
        profile="p",
        model=model,
        seed=seed,
        architecture="fcn",
        settings={},
        provenance=Provenance(
            settings_sha256="", data_sha256="", weights_sha256=None, code_sha256={}
        ),
        inference="plain",
        parameters=1,
        classes=("background",),
        metrics=Metrics(
            miou=miou, pixel_accuracy=1.0, mean_accuracy=1.0, frequency_weighted_iou=1.0
        ),
        iou={"background": miou},
        absent_classes=(),
        object_size=ObjectSize(edges_px=(), miou=(None, None, None)),
        boundaries=Boundaries(
            trimap_widths_px=(),
            trimap_miou=(),
            distance_share=0.02,
            boundary_iou={},
            boundary_miou=None,
        ),
        context_radius=None,
        images={f"image {n}": ((0, 1, 1),) for n in range(statistics.LEAST_GROUPS)},
        training=History(iteration=(1,), loss=(1.0,)),
    )


def rows(found: Results) -> pd.DataFrame:
    return paper.build_paper(found).data


# Values


@pytest.mark.parametrize(
    ("difference", "margin", "expected"),
    [
        (0.0, 0.0, "reproduced"),
        (0.52, 0.0, "above"),
        (-0.53, 0.53, "reproduced"),
        (-0.53, 0.52, "below"),
        (2.0, 2.0, "reproduced"),
        (2.01, 2.0, "above"),
        (0.0, math.nan, "one seed"),
        (78.51 - 77.99, 0.52, "reproduced"),  # 0.52000000000001 in binary
    ],
)
def test_verdict(difference: float, margin: float, expected: str) -> None:
    assert paper.judge_value(difference, margin) == expected


def test_a_published_run_is_one_more_run() -> None:
    """Compute the margin by hand, from the variance that both models share.

    Deviations 1 and 3: s^2 is 5, with 4 degrees of freedom, whose t is 2.77645.
    """
    found = results({"a": [60.0, 61.0, 62.0], "b": [57.0, 60.0, 63.0]}, {"a": cite(2)})
    assert found.prediction_margin == pytest.approx(2.77645 * math.sqrt(5 * 4 / 3), abs=1e-4)
    text = paper.render(found)["tables/paper.md"]
    assert "within 7.17 points, the 95 % prediction interval of one new run" in text


def test_the_prediction_interval_holds_nineteen_of_twenty_new_runs() -> None:
    """Simulate four models of three seeds each, and a fourth run of the first model."""
    random = np.random.RandomState(0)
    held = []
    for _ in range(2000):
        runs = random.normal(size=(4, 4))
        margin = statistics.compute_prediction_margin(pd.DataFrame(runs[:3]))
        held.append(abs(runs[3, 0] - runs[:3, 0].mean()) <= margin)
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_values_with_their_interval_over_seeds() -> None:
    found = results({"a": [60.0, 61.0, 62.0], "b": [1.0, 2.0, 3.0]}, {"a": cite(2)})
    (row,) = rows(found).to_dict("records")
    # Deviation 1, standard error 1 / sqrt 3, t of 2 degrees of freedom 4.30265.
    assert (row["model"], row["paper"], row["row"]) == ("a", "DeepLabv3, Table 5", "x 2")
    assert (row["published"], row["miou_mean"]) == (62.0, pytest.approx(61.0))
    assert row["ci95_high"] - 61 == pytest.approx(4.30265 / math.sqrt(3), abs=1e-5)
    assert row["difference"] == pytest.approx(-1.0)
    assert (row["verdict"], row["reason"]) == ("reproduced", "")


def test_a_difference_beyond_both_is_told_by_its_sign() -> None:
    scores = {"low": [59.0, 59.1, 58.9], "high": [64.0, 64.1, 63.9]}
    data = rows(results(scores, {"low": cite(1), "high": cite(1)}))
    assert list(data["verdict"]) == ["below", "above"]


def test_one_seed_has_no_verdict() -> None:
    found = results({"near": [60.5], "far": [70.6]}, {"near": cite(1), "far": cite(1)})
    assert list(rows(found)["verdict"]) == ["one seed", "one seed"]
    text = paper.render(found)["tables/paper.md"]
    assert "nan" not in text and "One seed gives no verdict." in text


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        ({"iterations": 10}, "iterations 10 instead of 20"),
        ({"crop_size": [32, 16]}, "crop_size 32 16 instead of 32 32"),
        (
            {"iterations": 30, "crop_size": [16, 32]},
            "iterations 30 instead of 20; crop_size 16 32 instead of 32 32",
        ),
        ({"base_lr": 0.1, "batch_size": 2}, ""),  # the paper says nothing of these
    ],
)
def test_what_is_trained_otherwise_is_not_comparable(training: Any, reason: str) -> None:
    (row,) = rows(results({"a": [60.0, 60.1]}, {"a": cite(1)}, **training)).to_dict("records")
    assert row["reason"] == reason
    assert row["verdict"] == ("not comparable" if reason else "reproduced")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("weights: none", "weights: imagenet", "weights none instead of imagenet"),
        ("{output_stride: 16}", "{output_stride: 8}", "output_stride 16 instead of 8"),
        ("{output_stride: 16}", "{backbone: resnet101}", "backbone resnet18 instead of resnet101"),
        ("{output_stride: 16}", "{eval_output_stride: 8}", "eval_output_stride 16 instead of 8"),
        ("{output_stride: 16}", "{eval_output_stride: 16}", ""),
        ("{output_stride: 16}", "{flip: true}", "flip false instead of true"),
        ("{output_stride: 16}", "{coco: true}", "coco false instead of true"),
        ("{output_stride: 16}", "{multi_scale: true}", "multi_scale false instead of true"),
        ("split: val", "split: test", "split val instead of test"),
    ],
)
def test_what_the_paper_does_otherwise_is_not_comparable(old: str, new: str, reason: str) -> None:
    published.PUBLISHED_FILE.write_text(FILE.replace(old, new), encoding="utf-8")
    read_published.cache_clear()
    (row,) = rows(results({"a": [60.0, 60.1]}, {"a": cite(1)})).to_dict("records")
    assert row["reason"] == reason


def test_other_data_are_not_comparable_beside_values() -> None:
    found = results({"a": [60.0], "b": [60.0]}, {"a": [cite(1), cite(1, "other.table1")]})
    data = rows(found)
    assert list(data["model"]) == ["a", "a"]
    assert list(data["verdict"]) == ["one seed", "not comparable"]
    assert data["reason"][1] == "dataset shapes instead of elsewhere"


def test_a_row_may_stand_beside_another_inference() -> None:
    """Check that scores and settings are that inference's; one that is not run has no row."""
    published.PUBLISHED_FILE.write_text(
        FILE.replace("{output_stride: 16}", "{output_stride: 16, eval_output_stride: 8}"),
        encoding="utf-8",
    )
    read_published.cache_clear()
    cited = [cite(1), cite(2) | {"inference": "os8"}, cite(3) | {"inference": "ms"}]
    found = results({"a": [60.0, 60.1]}, {"a": cited}, {"os8": {"a": [62.0, 62.2]}})
    data = rows(found)
    assert list(data["model"]) == ["a", "a, os8"]
    assert list(data["miou_mean"]) == pytest.approx([60.05, 62.1])
    assert list(data["reason"]) == ["eval_output_stride 16 instead of 8", ""]

    ways = {"os8": {"a": [62.0, 62.2]}, "ms": {"a": [63.0, 63.2]}}
    data = rows(results({"a": [60.0, 60.1]}, {"a": cited}, ways))
    assert list(data["miou_mean"]) == pytest.approx([60.05, 62.1, 63.1])
    assert data["reason"][2] == "eval_output_stride 16 instead of 8"
    one = results({"a": [60.0, 60.1]}, {"a": cited}, ways)
    (plain, *_, multi) = paper.find_cited(one.params)
    for key in ("multi_scale", "flip"):
        assert not paper.collect_settings(one.params, "p", plain)[key]
        assert paper.collect_settings(one.params, "p", multi)[key]


def test_a_row_may_stand_beside_the_crf() -> None:
    """Check that scores are those after the last iteration; a model without a CRF has no row."""
    published.PUBLISHED_FILE.write_text(
        re.sub(r"(x: [13])", r"\1, crf: false", re.sub(r"(x: [24])", r"\1, crf: true", FILE)),
        encoding="utf-8",
    )
    read_published.cache_clear()
    plain = results({"a": [60.0, 60.1]}, {"a": [cite(1), cite(2)]})
    assert list(rows(plain)["model"]) == ["a"]
    refined = replace(
        plain,
        params=plain.params.model_copy(
            update={"run": plain.params.run.model_copy(update={"crf": ("a",)})}
        ),
        crf_runs=[crf_run("a", seed, [0.6, 0.61, 0.621 + seed / 1000]) for seed in (0, 1)],
    )
    data = rows(refined)
    assert list(data["model"]) == ["a", "a, crf"]
    assert list(data["miou_mean"]) == pytest.approx([60.05, 62.15])
    assert list(data["reason"]) == ["", ""]


def crf_run(model: str, seed: int, mious: Sequence[float]) -> CRFRecord:
    scores = {
        str(5 * index): CRFScores(
            miou=miou, pixel_accuracy=0.5, trimap_miou=(), boundary_iou={}, boundary_miou=None
        )
        for index, miou in enumerate(mious)
    }
    return CRFRecord.model_construct(model=model, seed=seed, iterations=scores, trimap_widths_px=())


def test_a_second_phase_of_training_is_not_comparable() -> None:
    text = FILE.replace("iterations: 20,", "iterations: 20, phases: 1,")
    published.PUBLISHED_FILE.write_text(text, encoding="utf-8")
    read_published.cache_clear()
    found = results({"a": [60.0, 60.1]}, {"a": cite(1)})
    assert rows(found)["reason"][0] == ""
    second = {"output_stride": 8, "training": {"iterations": 5}}
    models = {"a": found.params.models["a"] | {"second_phase": second}}
    params = found.params.model_copy(update={"models": models})
    assert rows(replace(found, params=params))["reason"][0] == "phases 2 instead of 1"


def test_scores_of_images_seen_in_training_are_not_comparable() -> None:
    found = results({"a": [60.0, 60.1]}, {"a": cite(1)})
    seen = [run.model_copy(update={"trained_on_val": True}) for run in found.runs]
    row = rows(replace(found, runs=seen)).iloc[0]
    assert (row["verdict"], row["reason"]) == ("not comparable", "trained on val")


# Orderings


def elsewhere(scores: Mapping[str, Sequence[float]], cited: dict[str, int]) -> pd.DataFrame:
    """Compare results on data that no cited paper uses."""
    text = FILE.replace("dataset: shapes", "dataset: voc2012")
    published.PUBLISHED_FILE.write_text(text, encoding="utf-8")
    read_published.cache_clear()
    return rows(results(scores, {model: cite(x) for model, x in cited.items()}))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([40.0, 41.0, 42.0], [45.0, 46.1, 47.0], "agrees"),
        ([45.0, 46.1, 47.0], [40.0, 41.0, 42.0], "disagrees"),
        ([40.0, 41.0, 42.0], [41.0, 41.0, 42.5], "undecided"),
        ([40.0, 41.0, 42.0], [40.0, 41.0, 42.0], "undecided"),
        ([40.0, 41.0, 42.0], [40.5, 41.5, 42.5], "undecided"),  # the seeds vary by more
        ([40.0], [50.0], "undecided (one seed)"),
    ],
)
def test_ordering(first: list[float], second: list[float], expected: str) -> None:
    (row,) = elsewhere({"a": first, "b": second}, {"a": 1, "b": 2}).to_dict("records")
    assert (row["model"], row["other"]) == ("b", "a")
    assert row["published_difference"] == 2.0
    assert row["ordering"] == expected


def test_few_groups_of_images_decide_no_ordering() -> None:
    assert paper.judge_ordering(5.0, 1.0, "few groups") == "undecided (few groups)"
    assert paper.judge_ordering(5.0, 1.0, "") == "agrees"


def test_the_seeds_of_a_pair_vary_as_those_of_all_models() -> None:
    """Check a pair whose own seeds vary little by chance, and the interval by hand."""
    scores = {"a": [40.0, 40.1, 40.2], "b": [42.0, 42.1, 42.2], "c": [20.0, 30.0, 40.0]}
    (row,) = elsewhere(scores, {"a": 1, "b": 2}).to_dict("records")
    assert (row["model"], row["other"], row["ordering"]) == ("b", "a", "undecided")
    pooled = np.mean([np.var(each, ddof=1) for each in scores.values()])
    margin = stats.t.ppf(0.975, 3 * 2) * math.sqrt(2 * pooled / 3)
    assert row["difference"] == pytest.approx(2)
    assert row["ci95_high"] - row["difference"] == pytest.approx(margin)


def test_two_uses_of_one_network_are_compared_by_their_own_differences() -> None:
    text = FILE.replace("dataset: shapes", "dataset: voc2012")
    published.PUBLISHED_FILE.write_text(text, encoding="utf-8")
    read_published.cache_clear()
    low, high = [40.0, 50.0, 60.0], [41.0, 51.5, 61.7]
    cited = {"a": [cite(1), cite(2) | {"inference": "os8"}]}
    (row,) = rows(results({"a": low}, cited, {"os8": {"a": high}})).to_dict("records")
    interval = stats.ttest_rel(high, low).confidence_interval()
    assert row["difference"] == pytest.approx(1.4)
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx((interval.low, interval.high))
    assert row["ordering"] == "agrees"  # unpaired, the seeds' own spread would hide it


def test_pairs_are_neighbours_of_the_published_table() -> None:
    scores = {model: [40.0, 41.0] for model in "abcd"}
    data = elsewhere(scores, {"a": 2, "b": 1, "c": 3})
    assert list(zip(data["model"], data["other"], strict=True)) == [("c", "b"), ("a", "c")]
    assert list(data["published_difference"]) == [1.0, 1.0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_scored_split_is_compared_with_the_papers(split: str) -> None:
    found = results({"a": [60.0]}, {"a": cite(1)})
    data = CamVidData.model_validate({"dataset": "camvid", "val_split": split})
    profile = found.params.profile["p"].model_copy(update={"data": data})
    params = found.params.model_copy(update={"profile": {"p": profile}})
    (cited,) = paper.find_cited(params)
    assert paper.collect_settings(params, "p", cited)["split"] == split


@pytest.mark.parametrize(("images", "column"), [(None, "verdict"), ("lists", "ordering")])
def test_values_of_other_photographs_are_not_compared(images: str | None, column: str) -> None:
    """Check that only the order counts if the data set is the papers', but its images are not."""
    text = FILE.replace("dataset: shapes", "dataset: voc2012")
    published.PUBLISHED_FILE.write_text(text, encoding="utf-8")
    read_published.cache_clear()
    found = results({"a": [60.0, 61.0], "b": [50.0, 52.0]}, {"a": cite(1), "b": cite(2)})
    data = VocData(dataset="voc2012", images=images)
    profile = found.params.profile["p"].model_copy(update={"data": data})
    params = found.params.model_copy(update={"profile": {"p": profile}})
    assert column in paper.build_paper(replace(found, params=params)).data


def test_pairs_of_one_model_under_two_inferences() -> None:
    text = FILE.replace("dataset: shapes", "dataset: voc2012")
    published.PUBLISHED_FILE.write_text(text, encoding="utf-8")
    read_published.cache_clear()
    cited = {"a": [cite(1), cite(2) | {"inference": "os8"}]}
    (row,) = rows(results({"a": [60.0, 61.0]}, cited, {"os8": {"a": [61.0, 62.1]}})).to_dict(
        "records"
    )
    assert (row["model"], row["other"], row["ordering"]) == ("a, os8", "a", "agrees")
    assert row["difference"] == pytest.approx(1.05)


def test_rows_of_one_score_and_of_several_tables_are_no_pair() -> None:
    scores = {model: [40.0, 41.0] for model in "abc"}
    assert elsewhere(scores, {"a": 3, "b": 4}).empty
    read_published.cache_clear()
    found = results(scores, {"a": cite(1, "other.table1"), "b": cite(2, "deeplabv3.table5")})
    assert neighbours_of(found) == []
    both = {"a": [cite(1), cite(1, "other.table1")], "b": [cite(2), cite(2, "other.table1")]}
    assert neighbours_of(results(scores, both)) == [
        ("deeplabv3.table5", "b", "a"),
        ("other.table1", "b", "a"),
    ]


def test_rows_of_one_series_are_pairs_across_tables() -> None:
    text = FILE.replace("other.table1", "deeplabv3.table1").replace(
        "paper: other", "paper: deeplabv3"
    )
    text = text.replace("split: val", "split: val, series: one")
    published.PUBLISHED_FILE.write_text(text, encoding="utf-8")
    read_published.cache_clear()
    cited = {"a": cite(2, "deeplabv3.table1"), "b": cite(2), "c": cite(1)}
    found = results({model: [40.0, 41.0] for model in "abc"}, cited)
    data = paper.build_orderings(found, paper.find_cited(found.params)).data
    assert data[["model", "other", "paper"]].values.tolist() == [
        ["b", "c", "DeepLabv3, Table 5"],
        ["a", "b", "DeepLabv3, Table 1 and Table 5"],
    ]


def test_the_caption_counts_the_orderings() -> None:
    scores = {"a": [60.0, 61.0], "b": [40.0, 41.0], "c": [80.0, 81.0]}
    found = results(scores, {"a": cite(2), "b": cite(1), "c": cite(3)})
    table = paper.build_orderings(found, paper.find_cited(found.params))
    assert list(table.data["ordering"]) == ["agrees", "disagrees"]
    counts = "of the published orderings, 1 of 2 agreed, 1 contradicted, 0 undecided."
    assert counts in table.caption.text
    orderings = ["agrees", "disagrees", "undecided", "undecided (one seed)", "disagrees"]
    assert captions.count_orderings(orderings) == (
        "of the published orderings, 1 of 5 agreed, 2 contradicted, 2 undecided"
    )


def neighbours_of(found: Results) -> list[tuple[str, str, str]]:
    pairs = paper.find_neighbours(paper.find_cited(found.params))
    return [(high.published.reference, high.model, low.model) for high, low in pairs]


# Files


def test_nothing_cited_leaves_no_table() -> None:
    assert paper.render(results({"a": [60.0, 61.0]}, {})) == {}


def test_files_in_every_format() -> None:
    found = results({"a_b": [60.0, 61.0]}, {"a_b": cite(2)}, iterations=10)
    files = paper.render(found)
    assert set(files) == {f"tables/paper.{suffix}" for suffix in ("csv", "md", "tex")}
    header = "model,paper,row,published,miou_mean,ci95_low,ci95_high,difference,verdict,reason"
    assert files["tables/paper.csv"].splitlines()[0] == header
    assert re.search(r"\| +62\.00 \| +60\.50 \| +54\.15 to 66\.85 \|", files["tables/paper.md"])
    assert "DeepLabv3: A title, 2017, arXiv 1706.05587." in files["tables/paper.md"]
    assert r"a\_b" in files["tables/paper.tex"]
    assert "- [Beside the papers](tables/paper.md): " in page.list_more(found, files)
    assert "tables/paper.md" not in page.list_more(found, {})
