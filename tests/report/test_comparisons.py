"""Tests of comparisons, ranks and implausible runs, in the tables and on the page."""

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_report import declare, frame, run_record

from deeplab_bench.report import comparisons, page, plausibility, plots, statistics, tables
from deeplab_bench.report.findings import list_findings
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import resample_miou
from deeplab_bench.results.records import EvaluationRecord, History, TimingRecord

MODELS = ("fcn", "psp", "aspp")
BETTER = {"fcn": 0, "psp": 300, "aspp": 306}  # in pixels of a thousand


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def image_counts(model: str, seed: int) -> dict[str, list[list[int]]]:
    """Draw counts: all models find the same images hard, and each seed is better than the last."""
    random = np.random.RandomState(0)
    noise = np.random.RandomState([seed, MODELS.index(model)])
    return {
        f"val_{image}": [
            [c, int(300 + BETTER[model] + 5 * seed + hard + noise.normal(0, 25)), 1000]
            for c in range(3)
        ]
        for image, hard in enumerate(random.normal(0, 60, 40))
    }


@cache
def record() -> dict[str, Any]:
    return run_record(declare(), "aspp", 0, 0.5)


def run(model: str, seed: int, images: Any, miou: float, **changes: Any) -> EvaluationRecord:
    metrics = record()["metrics"] | {"miou": miou}
    own = {"model": model, "seed": seed, "images": images, "metrics": metrics}
    return EvaluationRecord.model_validate_json(json.dumps(record() | own | changes))


@cache
def results(seeds: int = 3, models: tuple[str, ...] = MODELS) -> Results:
    runs = []
    for model in models:
        for seed in range(seeds):
            images = image_counts(model, seed)
            found = sum(entry[1] for entries in images.values() for entry in entries)
            runs.append(run(model, seed, images, found / (40 * 3 * 1000)))
    params = declare(models=models, seeds=range(seeds), hardware=[])
    timing = TimingRecord(training_seconds=1.0, evaluation_seconds=1.0, environment={"device": "A"})
    return Results(params, "quick", runs, [timing] * len(runs))


def test_pairs_with_their_verdicts() -> None:
    table = comparisons.build_comparisons(results())
    data = table.data.set_index(["model", "other"])
    assert list(data.index) == [("aspp", "psp"), ("aspp", "fcn"), ("psp", "fcn")]
    assert list(data["verdict"]) == ["undecided", "higher", "higher"]
    assert data.loc[("psp", "fcn"), "difference"] == pytest.approx(30, abs=0.5)
    assert (data["ci95_low"] < data["difference"]).all()
    assert (data["p_holm"] >= data["p_value"]).all()
    assert table.text["p_value"].str.fullmatch(r"0\.\d{3}|< 0\.001").all()
    assert "all 3 pairs" in table.caption.text and "40 validation images" in table.caption.text


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0004, "< 0.001"), (0.001, "0.001"), (0.0126, "0.013"), (math.nan, "")]
)
def test_p_has_three_decimals(p: float, shown: str) -> None:
    assert comparisons.format_p(p) == shown


def test_the_interval_is_of_both_sources() -> None:
    found = results()
    row = tables.collect_accuracy(found).set_index("model").loc["psp"]
    runs = [run for run in found.runs if run.model == "psp"]
    scores = np.array([100 * run.metrics.miou for run in runs])
    pixels = np.stack([statistics.count_class_pixels(run) for run in runs], axis=1)
    seeds = scores.var(ddof=1) / 3
    images = (100 * resample_miou(*pixels)).mean(axis=1).var(ddof=1) * 40 / 39
    freedom = (seeds + images) ** 2 / (seeds**2 / 2 + images**2 / 39)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(seeds + images)
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx(
        (scores.mean() - half, scores.mean() + half)
    )


def on_clips(found: Results, clips: int) -> Results:
    """The same results, their images the frames of so many clips."""
    runs = [
        run_of.model_copy(
            update={
                "images": {
                    f"clip{index * clips // 40}_{index}": pixels
                    for index, pixels in enumerate(run_of.images.values())
                }
            }
        )
        for run_of in found.runs
    ]
    data = {"dataset": "folder", "root": ".", "group_pattern": "^[^_]+"}
    params = declare(models=found.models, seeds=found.seeds, hardware=[], data=data)
    return replace(found, params=params, runs=runs)


def test_intervals_and_comparisons_draw_clips_not_images() -> None:
    """Check that clips give the same numbers as images with the sums of their pixels."""
    grouped = on_clips(results(), 8)
    sums = [
        statistics.count_class_pixels(run_of).reshape(2, 8, 5, 3).sum(axis=2)
        for run_of in grouped.runs
    ]
    single = [
        run_of.model_copy(
            update={
                "images": {
                    str(clip): [(c, *map(int, pixels[:, clip, c])) for c in range(3)]
                    for clip in range(8)
                }
            }
        )
        for run_of, pixels in zip(grouped.runs, sums, strict=True)
    ]
    expected = replace(results(), runs=single)
    assert (grouped.images, grouped.group_count, expected.group_count) == (40, 8, 8)
    assert grouped.compared.equals(expected.compared)
    assert tables.collect_accuracy(grouped).equals(tables.collect_accuracy(expected))
    assert not grouped.resampled.equals(results().resampled)


def test_clips_of_one_image_change_nothing() -> None:
    found = on_clips(results(), 40)
    assert found.compared.equals(results().compared)
    assert tables.collect_accuracy(found).equals(tables.collect_accuracy(results()))


def test_ranks_leave_open_what_is_undecided() -> None:
    files = tables.render(results())
    accuracy = frame(files, "accuracy")
    assert accuracy[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [
        [3, 3, 3],
        [2, 1, 2],
        [1, 1, 2],
    ]
    assert "| 1 (1 to 2) |" in files["tables/accuracy.md"]


def test_one_seed_compares_these_networks_alone() -> None:
    table = comparisons.build_comparisons(results(seeds=1))
    assert set(table.data["verdict"]) == {"one seed"}
    assert set(table.text["p_holm"]) == {""}
    assert "interval over images alone" in table.caption.text


@pytest.mark.parametrize(
    ("seeds", "clips", "why"),
    [(1, 40, "one seed is too few"), (3, 8, "8 groups of images are too few"), (3, 40, "")],
)
def test_nothing_speaks_of_tests_where_there_are_none(seeds: int, clips: int, why: str) -> None:
    found = on_clips(results(seeds=seeds), clips)
    caption = comparisons.build_comparisons(found).caption.text
    label = plots.draw_comparisons(found).axes[0].get_xlabel()
    if why:
        assert f"No p and no verdict, because {why}" in caption and "(Holm)" not in caption
        assert label == f"not tested: {why}"
        assert list_findings(found)["ties"] == f"Which models differ is not tested: {why}."
    else:
        assert "p (Holm) is for all 3 pairs together" in caption
        assert label == "* differs, p < 0.05 after Holm's correction"


def test_files_are_made_of_several_models_only() -> None:
    names = set(comparisons.render(results()))
    assert names == {f"tables/comparisons.{suffix}" for suffix in ("csv", "md", "tex")}


def test_one_model_is_compared_with_none() -> None:
    found = results(models=("fcn",))
    assert comparisons.render(found) == {}
    assert "Comparisons" not in page.render(found, tables.render(found), {})
    assert list(tables.collect_accuracy(found)["rank_high"]) == [1]


def test_the_figure_has_models_of_equal_scores() -> None:
    runs = [
        run(model, seed, image_counts("aspp", seed), 0.5 + seed / 100)
        for model in MODELS
        for seed in range(3)
    ]
    axes = plots.draw_comparisons(replace(results(), runs=runs)).axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["fcn", "psp", "aspp"]


def test_the_figure_has_each_difference_with_both_signs() -> None:
    found = results()
    (mesh,) = plots.draw_comparisons(found).axes[0].collections
    shown: np.ndarray[Any, Any] = np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan)
    expected = [abs(difference) for difference in found.compared["difference"]]
    np.testing.assert_allclose(shown, -shown.T)
    assert sorted(shown[np.triu_indices(len(shown), 1)]) == pytest.approx(sorted(expected))


# Findings


def test_findings_are_the_decided_comparisons() -> None:
    findings = list_findings(results())
    assert [*findings] == ["best", "lowest", "ties"]
    best, lowest, ties = findings.values()
    assert re.fullmatch(
        r"`aspp` has the highest mIoU, [\d.]+ % \(95 % interval [\d.]+ to [\d.]+\); `fcn` is "
        r"lower, and `psp` cannot be told apart from it\.",
        best,
    )
    assert re.fullmatch(
        r"Every other model is above `fcn`, by [\d.]+ points \(`psp`, 95 % interval [\d.]+ to "
        r"[\d.]+\) to [\d.]+ points \(`aspp`, 95 % interval [\d.]+ to [\d.]+\)\.",
        lowest,
    )
    assert ties == (
        "No difference can be told from 3 seeds and 40 validation images between `psp` and `aspp`."
    )
    text = page.render(results(), {}, findings)
    assert all(f"- {finding}\n" in text for finding in (best, lowest, ties))


def test_one_seed_finds_no_difference() -> None:
    best, ties = list_findings(results(seeds=1)).values()
    assert "lower" not in best and "highest mIoU" in best
    assert ties == "Which models differ is not tested: one seed is too few."
    (alone,) = list_findings(results(models=("fcn",))).values()
    assert alone.startswith("`fcn` has the highest mIoU")


@pytest.mark.parametrize("models", [MODELS, ("fcn",)])
def test_the_class_on_which_models_differ_most(models: tuple[str, ...]) -> None:
    found = results(models=models)
    shares = {"fcn": 0.2, "psp": 0.7, "aspp": 0.5}
    first, *_, last = found.runs[0].classes
    runs = [
        each.model_copy(update={"iou": each.iou | {first: 0.9, last: shares[each.model]}})
        for each in found.runs
    ]
    said = list_findings(replace(found, runs=runs)).get("classes")
    expected = (
        f"The models differ most on the class `{last}`: `fcn` has the lowest IoU, 20.0 %, `psp` "
        "the highest, 70.0 %."
    )
    assert said == (expected if len(models) > 1 else None)


# Implausible runs


def counts(label: list[int], prediction: list[int]) -> list[list[int]]:
    truth, guess = np.array(label), np.array(prediction)
    entries = []
    for c in range(3):
        union = int(((truth == c) | (guess == c)).sum())
        if union:
            entries.append([c, int(((truth == c) & (guess == c)).sum()), union])
    return entries


@pytest.mark.parametrize(
    ("labels", "predictions", "only"),
    [
        ([[0, 0, 1, 2], [0, 1, 1, 1]], [[0] * 4, [0] * 4], "background"),
        ([[0, 0, 1, 2], [0, 1, 1, 1]], [[1] * 4, [1] * 4], "disc_shape"),
        ([[0, 0, 1, 1]], [[2] * 4], "ring"),
        ([[0, 0, 0, 0], [0, 1, 0, 0]], [[0] * 4, [0] * 4], "background"),
        ([[0, 0, 1, 2], [0, 1, 1, 1]], [[0] * 4, [1] * 4], None),
        ([[0, 0, 1, 2], [0, 1, 1, 1]], [[0] * 4, [0, 0, 0, 1]], None),
        ([[0, 0, 1, 2], [0, 1, 1, 1]], [[0, 0, 0, 1], [0] * 4], None),
        ([[0, 0, 1, 2]], [[0, 0, 1, 2]], None),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]], None),  # there is no other class to find
    ],
)
def test_predictions_of_one_class_are_found(
    labels: list[list[int]], predictions: list[list[int]], only: str | None
) -> None:
    pairs = zip(labels, predictions, strict=True)
    images = {f"val_{index}": counts(*pair) for index, pair in enumerate(pairs)}
    assert plausibility.find_only_prediction(run("aspp", 0, images, 0.5)) == only


@pytest.mark.parametrize(
    ("miou", "loss", "reason"),
    [
        (0.8, [2.0, 1.0], []),
        (0.8001, [2.0, 1.0], ["mIoU 80.01 % is above the ceiling of 80 %"]),
        (0.5, [None, 1.0], ["the training loss is not finite by iteration 10"]),
        (0.5, [1.0, None], ["the training loss is not finite by iteration 20"]),
    ],
)
def test_reasons(miou: float, loss: list[float | None], reason: list[str]) -> None:
    images = {"val_0": [[0, 3, 4], [1, 2, 3]]}
    found = run("aspp", 0, images, miou, training={"iteration": [10, 20], "loss": loss})
    assert list(plausibility.list_implausible(found, 80)) == reason


@pytest.mark.parametrize(
    ("starts", "reason"),
    [
        ([2.19, 2.19], None),  # twice the logarithm of the three classes is 2.197
        ([2.3, 1.0], "first loss 2.3 in 1 of 2, above 2 ln 3 = 2.2"),
        ([9.0, 4.0], "first loss 4.0 to 9.0 in 2 of 2, above 2 ln 3 = 2.2"),
    ],
)
def test_bad_starts(starts: list[float], reason: str | None) -> None:
    runs = [started({"start_loss": start, "loss": [2.0, 1.0]}) for start in starts]
    assert plausibility.find_bad_starts(runs) == ({"aspp": reason} if reason else {})


def test_the_first_loss_stands_in_for_the_start() -> None:
    reason = {"aspp": "first loss 5.0 in 1 of 1, above 2 ln 3 = 2.2"}
    assert plausibility.find_bad_starts([started({"loss": [5.0, 1.0]})]) == reason
    not_finite = plausibility.find_bad_starts([started({"loss": [None, 1.0]})])
    assert not_finite["aspp"].startswith("first loss inf in 1 of 1")


@pytest.mark.parametrize(
    ("mious", "reason"),
    [
        ([None, None], None),
        ([0.5, 0.9], None),
        ([0.499, 0.311], "mIoU on training images 31.1 to 49.9 % in 2 of 2"),
        ([0.1, 0.8], "mIoU on training images 10.0 % in 1 of 2"),
    ],
)
def test_low_scores_on_training_images(mious: list[float | None], reason: str | None) -> None:
    images = {"val_0": [[0, 3, 4], [1, 2, 3]]}
    runs = [
        run(
            "aspp",
            0,
            images,
            0.5,
            training_images=None if miou is None else {"images": 100, "miou": miou},
        )
        for miou in mious
    ]
    assert plausibility.find_unfinished(runs) == ({"aspp": reason} if reason else {})


def curve(end: float, noise: float = 0.0, points: int = 100, seed: int = 0) -> list[float | None]:
    """Make a curve that falls from 2 to 1, stays, and has the mean ``end`` in its last fifth."""
    random = np.random.default_rng(seed)
    level = np.interp(np.arange(points) / points, [0, 0.5, 0.79, 0.8], [2.0, 1.0, 1.0, end])
    return list(level + noise * random.standard_normal(points))


@pytest.mark.parametrize(
    ("losses", "fall"),
    [
        (curve(0.8), 0.2),
        (curve(0.89), 0.11),
        (curve(0.91), 0),  # too little
        (curve(1.2), 0),
        (curve(0.8, points=20), 0),  # a fifth of it is only four losses
        (curve(0.8, points=25), 0.2),
        ([*curve(0.8)[:-1], None], 0),
        ([None, *curve(0.8)[1:]], 0.2),  # what was before does not count
    ],
)
def test_a_loss_that_still_falls(losses: list[float | None], fall: float) -> None:
    assert plausibility.compute_fall(losses) == pytest.approx(fall, abs=0.01)


def test_noise_is_no_fall() -> None:
    """Count the marks of 1,000 curves whose last two fifths have one mean and much noise.

    Three standard errors are exceeded in one direction by one in 740; a t distribution has more.
    """
    marks = sum(plausibility.compute_fall(curve(1.0, 0.5, seed=seed)) > 0 for seed in range(1000))
    assert marks <= 8
    assert sum(plausibility.compute_fall(curve(0.7, 0.1, seed=s)) > 0.1 for s in range(100)) == 100


def test_both_reasons_of_an_unfinished_training() -> None:
    images = {"val_0": [[0, 3, 4], [1, 2, 3]]}
    histories = [{"iteration": [*range(1, 101)], "loss": curve(end)} for end in (0.8, 1.0)]
    runs = [
        run("aspp", 0, images, 0.5, training=history, training_images={"images": 9, "miou": 0.4})
        for history in histories
    ]
    assert plausibility.find_unfinished(runs) == {
        "aspp": "mIoU on training images 40.0 % in 2 of 2, loss still falling by 20.0 % in 1 of 2"
    }


def started(history: dict[str, Any]) -> EvaluationRecord:
    images = {"val_0": [[0, 3, 4], [1, 2, 3]]}
    return run("aspp", 0, images, 0.5, training={"iteration": [10, 20]} | history)


def test_without_a_ceiling_all_is_plausible() -> None:
    images = {"val_0": [[0, 4, 4], [1, 3, 3]]}
    assert list(plausibility.list_implausible(run("aspp", 0, images, 1.0), None)) == []


def test_an_implausible_model_is_marked_everywhere_and_still_averaged() -> None:
    params, runs = results().params, results().runs.copy()
    profile = params.profile["quick"].model_copy(update={"miou_ceiling": 90.0})
    params = params.model_copy(update={"profile": {"quick": profile}})
    history = History(iteration=(10, 20), loss=(2.0, None))
    runs[6] = runs[6].model_copy(update={"training": history})
    runs[8] = run("aspp", 2, image_counts("aspp", 2), 0.95)
    found = replace(results(), params=params, runs=runs)
    files = tables.render(found) | comparisons.render(found)
    reason = (
        "seed 0: the training loss is not finite by iteration 20; "
        "seed 2: mIoU 95.00 % is above the ceiling of 90 %"
    )
    data = frame(files, "accuracy")
    assert list(data["implausible"].fillna("")) == ["", "", reason]
    assert data.loc["aspp", "miou_mean"] == pytest.approx(
        np.mean([100 * each.metrics.miou for each in runs[6:]]), abs=0.01
    )
    for name in ("accuracy", "comparisons", "per_class"):
        for suffix in ("md", "tex"):
            text = files[f"tables/{name}.{suffix}"]
            assert re.search(r"aspp † *[|&]", text)
            assert f"Implausible: aspp ({reason})" in text.replace("\\%", "%")
            assert "psp †" not in text
    text = page.render(found, files, list_findings(found))
    assert "`aspp` † " in text
    assert text.index("† Implausible: aspp") < text.index("## Accuracy")
    assert plots.label_models(found, ["psp", "aspp"]) == ["psp", "aspp †"]
    assert files["tables/training_curves.csv"].count(",20,\n") == 1


def test_nothing_is_marked_without_a_reason() -> None:
    found = results()
    files = tables.render(found) | comparisons.render(found)
    assert not any("†" in text or "mplausible:" in text for text in files.values())
    assert "†" not in page.render(found, files, list_findings(found))
