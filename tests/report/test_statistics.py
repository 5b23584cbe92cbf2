"""Tests of intervals, bootstrap, p values and ranks against simulations and simple code."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.report import statistics
from deeplab_bench.report.statistics import Source

Counts = NDArray[np.int64]


def test_few_groups_of_images_decide_nothing() -> None:
    """Check that p is unknown, as a few blocks of one clip say little; the interval stays."""
    scores = pd.DataFrame({"a": [40.0, 41.0], "b": [60.0, 61.0]})
    resampled = pd.DataFrame({"a": [40.0, 40.5, 41.0], "b": [60.0, 60.5, 61.0]})
    few, enough = (statistics.compare(scores, resampled, groups).iloc[0] for groups in (9, 10))
    assert math.isnan(few["p_value"]) and math.isnan(few["p_holm"])
    assert not math.isnan(few["ci95_low"])
    assert enough["p_holm"] < 0.05


def draw(
    random: np.random.RandomState, seeds: int, images: int, seed_effect: float, image_effect: float
) -> tuple[Counts, Counts]:
    """Draw intersections and unions (seeds, images, 3) of random networks and random images."""
    area = random.lognormal(5, 0.5, (images, 3)) * (random.random_sample((images, 3)) < 0.8)
    skill = np.array([1.2, 0.4, -0.2]) + random.normal(0, seed_effect, (seeds, 1, 1))
    difficulty = random.normal(0, image_effect, (images, 1))
    found = area / (1 + np.exp(-skill - difficulty - random.normal(0, 0.3, (seeds, images, 3))))
    false_alarms = (area - found).sum(axis=-1, keepdims=True) / 3
    return found.astype(np.int64), (area + false_alarms).astype(np.int64)


def mious(intersections: Counts, unions: Counts) -> NDArray[np.float64]:
    """Compute the mIoU of each seed in percent."""
    return 100 * (intersections.sum(axis=1) / unions.sum(axis=1)).mean(axis=-1)


def source(intersections: Counts, unions: Counts, resamples: int = 100) -> Source:
    """Compute the variance that images add to the mean over seeds."""
    resampled = 100 * statistics.resample_miou(intersections, unions, resamples).mean(axis=1)
    (found,) = statistics.estimate_over_images(
        pd.DataFrame({"a": resampled}), unions.shape[1]
    ).values()
    return found


@pytest.mark.parametrize(
    ("seeds", "effects", "seeds_alone"),
    [
        (3, {"seed_effect": 0.12, "image_effect": 0.6}, (0.7, 0.93)),
        (5, {"seed_effect": 0.12, "image_effect": 0.6}, (0.7, 0.93)),
        (3, {"seed_effect": 0.03, "image_effect": 0.9}, (0.2, 0.6)),
    ],
)
def test_intervals_contain_the_true_value(
    seeds: int, effects: dict[str, float], seeds_alone: tuple[float, float]
) -> None:
    random = np.random.RandomState(1)
    truth = np.mean([mious(*draw(random, 100, 1000, **effects)).mean() for _ in range(5)])
    both, alone, trials = 0, 0, 200
    for _ in range(trials):
        pixels = draw(random, seeds, 40, **effects)
        scores = mious(*pixels)
        for others in ([], [source(*pixels)]):
            found = statistics.estimate(scores, *others)
            held = found.ci95_low <= truth <= found.ci95_high
            both, alone = both + (held and bool(others)), alone + (held and not others)
    assert 0.9 <= both / trials <= 0.99
    assert seeds_alone[0] <= alone / trials <= seeds_alone[1]


def test_one_of_twenty_pairs_of_equal_models_differs() -> None:
    random, trials, found = np.random.RandomState(2), 200, 0
    for _ in range(trials):
        inter, union = draw(random, 6, 40, 0.1, 0.6)
        pairs = inter[:3], union[:3], inter[3:], union[3:]
        found += compared(*pairs)["p_value"].item() < 0.05
    assert 0.02 <= found / trials <= 0.1


def compared(*pixels: Counts) -> pd.DataFrame:
    """Compare models. Each has two arguments: its intersections and its unions."""
    models = {str(i): pixels[2 * i : 2 * i + 2] for i in range(len(pixels) // 2)}
    scores = pd.DataFrame({name: mious(*both) for name, both in models.items()})
    resampled = pd.DataFrame(
        {
            name: 100 * statistics.resample_miou(inter, union, 100).mean(axis=1)
            for name, (inter, union) in models.items()
        }
    )
    return statistics.compare(scores, resampled, pixels[0].shape[1])


def test_resamples_equal_a_loop_over_images_and_runs() -> None:
    random = np.random.RandomState(3)
    inter, union = draw(random, 2, 12, 0.2, 0.5)
    union[:, 2:, 1] = inter[:, 2:, 1] = 0  # only two images show this class
    expected, absent = [], 0
    for weights in np.concatenate([*statistics.draw_image_weights(12, 700)]).astype(int):
        chosen = np.repeat(np.arange(12), weights)
        assert chosen.size == 12
        row = []
        for run in range(2):
            parts, wholes = inter[run, chosen].sum(axis=0), union[run, chosen].sum(axis=0)
            absent += (wholes == 0).any()
            row.append(np.mean([p / w for p, w in zip(parts, wholes, strict=True) if w]))
        expected.append(row)
    assert absent > 0
    found = statistics.resample_miou(inter, union, 700)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, statistics.resample_miou(inter, union, 700))


def test_every_resample_of_equal_images_has_their_miou() -> None:
    confusion = np.random.RandomState(4).randint(1, 50, (4, 4))
    pixels = metrics.intersection_and_union(np.stack([confusion] * 9))
    found = statistics.resample_miou(pixels[0][None], pixels[1][None], 5)
    assert found == pytest.approx(np.full((5, 1), metrics.miou(confusion)))


def test_images_are_drawn_evenly_with_replacement() -> None:
    weights = np.concatenate([*statistics.draw_image_weights(20, 3000)])
    assert weights.shape == (3000, 20)
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.1)
    # Binomial of 20 draws with probability 1/20.
    assert weights.var() == pytest.approx(0.95, abs=0.03)


def test_the_variance_over_images_is_that_of_a_ratio_of_means() -> None:
    """Check that with many images the bootstrap agrees with the delta method."""
    inter, union = draw(np.random.RandomState(5), 1, 400, 0, 0.6)
    ratio = inter.sum(axis=1) / union.sum(axis=1)
    influence = ((inter - ratio[:, None] * union) / union.mean(axis=1)[:, None]).mean(axis=-1)[0]
    expected = 100**2 * influence.var(ddof=1) / 400
    assert source(inter, union, 4000).variance == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("count", [4, 40])
def test_the_variance_over_few_groups_is_that_of_the_delta_method(count: int) -> None:
    """The unbiased variance of sums over groups: with four, the plain bootstrap has 3/4 of it."""
    inter, union = draw(np.random.RandomState(9), 1, 400, 0, 0.6)
    groups = [image * count // 400 for image in range(400)]
    ratio = inter.sum(axis=1) / union.sum(axis=1)
    influence = ((inter - ratio[:, None] * union) / union.mean(axis=1)[:, None]).mean(axis=-1)[0]
    sums = np.bincount(groups, weights=influence) / 400
    expected = 100**2 * (sums**2).sum() * count / (count - 1)
    found = source(*sum_groups(groups, inter, union), 4000)
    assert found.freedom == count - 1
    assert found.variance == pytest.approx(expected, rel=0.1)


def sum_groups(groups: list[int], intersections: Counts, unions: Counts) -> tuple[Counts, Counts]:
    return statistics.sum_groups(intersections, groups), statistics.sum_groups(unions, groups)


def test_groups_are_drawn_as_a_whole() -> None:
    """A loop over images, whose groups are neither sorted nor of one size."""
    inter, union = draw(np.random.RandomState(10), 2, 7, 0.2, 0.5)
    groups = [2, 0, 1, 1, 0, 1, 2]
    expected = []
    for weights in np.concatenate([*statistics.draw_image_weights(3, 50)]).astype(int):
        chosen = [image for image, group in enumerate(groups) for _ in range(weights[group])]
        parts, wholes = inter[:, chosen].sum(axis=1), union[:, chosen].sum(axis=1)
        expected.append((parts / wholes).mean(axis=-1))
    found = statistics.resample_miou(*sum_groups(groups, inter, union), 50)
    assert found == pytest.approx(np.array(expected))


def test_images_twice_in_one_group_are_as_good_as_once() -> None:
    inter, union = draw(np.random.RandomState(11), 3, 20, 0.2, 0.5)
    twice = np.repeat(inter, 2, axis=1), np.repeat(union, 2, axis=1)
    groups = [image // 2 for image in range(40)]
    assert source(*sum_groups(groups, *twice)) == source(inter, union)
    # As independent images they seem to say twice as much.
    assert source(*twice, 2000).variance < 0.6 * source(inter, union, 2000).variance


def test_groups_of_one_image_change_nothing() -> None:
    pixels = draw(np.random.RandomState(12), 2, 9, 0.2, 0.5)[0]
    np.testing.assert_array_equal(statistics.sum_groups(pixels, range(9)), pixels)


def test_many_images_are_not_corrected() -> None:
    assert statistics.correct_variance(4.0, 160) == Source(4.0, 159)
    assert statistics.correct_variance(4.0, 5) == Source(5.0, 4)
    assert statistics.correct_variance(0.0, 1) == Source(0.0, 0)


def test_with_seeds_alone_it_is_the_t_interval() -> None:
    scores = np.array([70.0, 72.0, 71.0, 69.5])
    found = statistics.estimate(scores)
    expected = stats.ttest_1samp(scores, 0).confidence_interval()
    assert found[2:] == pytest.approx((expected.low, expected.high))
    assert found[:2] == pytest.approx((70.625, stats.tstd(scores)))


def test_two_sources_add_as_in_welch_test() -> None:
    """Compare with Welch's test in scipy, which uses Satterthwaite's formula too."""
    first, second = np.array([3.0, 4.5, 5.0, 7.0]), np.array([1.0, 1.5, 0.5])
    sources = [statistics.compute_seed_variance(each) for each in (first, second)]
    welch = stats.ttest_ind(first, second, equal_var=False)
    difference = first.mean() - second.mean()
    interval = welch.confidence_interval()
    assert statistics.compute_p_value(difference, *sources) == pytest.approx(welch.pvalue)
    half = statistics.compute_margin_of_error(*sources)
    assert (difference - half, difference + half) == pytest.approx((interval.low, interval.high))


def test_one_seed_has_an_interval_over_images_alone() -> None:
    found = statistics.estimate([50.0], Source(4.0, 99))
    assert math.isnan(found.std)
    assert found.ci95_high - 50 == pytest.approx(2 * stats.t.ppf(0.975, 99))


def test_one_image_has_an_interval_over_seeds_alone() -> None:
    pixels = draw(np.random.RandomState(6), 3, 1, 0.2, 0.2)
    image = source(*pixels)
    assert image.freedom == 0
    assert statistics.estimate([1, 2, 3], image) == statistics.estimate([1, 2, 3])


def test_one_seed_on_one_image_has_no_interval() -> None:
    found = statistics.estimate([50.0], Source(0.0, 0))
    assert found.mean == 50 and all(math.isnan(value) for value in found[1:])
    assert math.isnan(statistics.compute_p_value(1.0, Source(0.0, 0)))


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (0.1, 0.0)])
def test_without_variance_any_difference_is_significant(difference: float, p: float) -> None:
    assert statistics.compute_p_value(difference, Source(0.0, 2), Source(0.0, 9)) == p


def test_identical_models_do_not_differ() -> None:
    pixels = draw(np.random.RandomState(7), 3, 30, 0.2, 0.5)
    (row,) = compared(*pixels, *pixels).to_dict("records")
    assert row["difference"] == 0
    assert row["ci95_low"] == -row["ci95_high"]
    assert (row["p_value"], row["p_holm"]) == (1, 1)


def test_the_variance_of_seeds_is_pooled_over_models() -> None:
    """Check three models with two seeds, variances 0.5, 2 and 12.5; the images add none."""
    scores = pd.DataFrame({"a": [50.0, 51.0], "b": [40.0, 42.0], "c": [30.0, 35.0]})
    resampled = pd.DataFrame({name: [1.0, 1.0] for name in scores})
    found = statistics.compare(scores, resampled, 100)
    error = (2 * (0.5 + 2 + 12.5) / 3 / 2) ** 0.5
    for row in found.to_dict("records"):
        p = 2 * stats.t.sf(row["difference"] / error, df=3)
        assert row["p_value"] == pytest.approx(p)
        half = stats.t.ppf(0.975, df=3) * error
        assert row["ci95_high"] - row["difference"] == pytest.approx(half)


def test_few_of_many_families_of_equal_models_differ() -> None:
    """Simulate eight models with three seeds; with each pair's own variance it would be 17 %."""
    random, families = np.random.RandomState(0), 300
    errors = 0
    for _ in range(families):
        images = random.normal(0, 0.3, 8)
        scores = pd.DataFrame(random.normal(0, 2, (3, 8)) + images)
        resampled = pd.DataFrame(random.normal(0, 0.3, (200, 8)))
        errors += bool(statistics.compare(scores, resampled, 160)["p_holm"].min() < 0.05)
    assert errors / families <= 0.075


def test_one_seed_decides_nothing() -> None:
    scores = pd.DataFrame({"a": [50.0], "b": [40.0]})
    resampled = pd.DataFrame({"a": [49.0, 51.0], "b": [39.0, 41.0]})
    (row,) = statistics.compare(scores, resampled, 100).to_dict("records")
    assert math.isnan(row["p_value"]) and math.isnan(row["p_holm"])
    assert row["ci95_low"] == row["ci95_high"] == 10  # the images move both models alike


def test_equal_images_make_differences_precise() -> None:
    random = np.random.RandomState(8)
    inter, union = draw(random, 3, 60, 0.01, 0.8)
    better = np.minimum(inter + union // 50, union)
    (row,) = compared(better, union, inter, union).to_dict("records")
    assert row["model"] == "0"
    assert row["difference"] == pytest.approx((mious(better, union) - mious(inter, union)).mean())
    unpaired = [part for both in ((better, union), (inter, union)) for part in two_sources(*both)]
    paired = (row["ci95_high"] - row["ci95_low"]) / 2
    assert paired < 0.4 * statistics.compute_margin_of_error(*unpaired)


def two_sources(intersections: Counts, unions: Counts) -> tuple[Source, Source]:
    return statistics.compute_seed_variance(mious(intersections, unions)), source(
        intersections, unions
    )


def test_pairs_begin_with_the_highest_means() -> None:
    scores = pd.DataFrame({"low": [1.0, 2.0], "high": [8.0, 9.1], "middle": [5.0, 5.9]})
    found = statistics.compare(scores, scores, 2)
    pairs = list(zip(found["model"], found["other"], strict=True))
    assert pairs == [("high", "middle"), ("high", "low"), ("middle", "low")]
    assert (found["difference"] > 0).all()


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values: list[float], expected: list[float]) -> None:
    assert statistics.adjust_p_values(p_values) == pytest.approx(expected)


def test_ranks_agree_with_significant_comparisons() -> None:
    rows: list[dict[str, Any]] = [
        {"model": "a", "other": "b", "p_holm": 0.5},
        {"model": "a", "other": "c", "p_holm": 0.01},
        {"model": "b", "other": "c", "p_holm": 0.06},
        {"model": "a", "other": "d", "p_holm": 0.01},
        {"model": "b", "other": "d", "p_holm": 0.01},
        {"model": "c", "other": "d", "p_holm": 0.049},
    ]
    means = pd.Series({"d": 1.0, "a": 9.0, "b": 8.0, "c": 5.0})
    found = statistics.rank_models(means, pd.DataFrame(rows))
    assert found.loc[["a", "b", "c", "d"]].to_numpy().tolist() == [
        [1, 1, 2],
        [2, 1, 3],
        [3, 2, 3],
        [4, 4, 4],
    ]
