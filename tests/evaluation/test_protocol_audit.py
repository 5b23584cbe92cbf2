"""Tests of every variant against a loop over pixels, and on predictions of known score."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from small_splits import labelled_split

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.evaluation.measures.variants import VARIANTS, Counts, mean_of_images, protocol
from deeplab_bench.evaluation.protocol_audit import (
    audit,
    count_split,
    crop_view,
    resize_view,
)
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

CLASSES = ["background", "road", "car", "kite"]
CROP = (8, 12)
SHAPES = [(10, 15), (7, 20), (16, 12)]


def random_labels(seed: int) -> list[Pixels]:
    """Make labels of three classes and void; the first image has no car."""
    random = np.random.default_rng(seed)
    labels = [random.choice([0, 0, 1, 2, VOID], shape).astype(np.uint8) for shape in SHAPES]
    labels[0][labels[0] == 2] = 1
    return labels


def pattern(image: Pixels) -> Pixels:
    """Predict a pattern that depends on the image's size only, with a class that no label has."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return ((y // 2 + x) % 5 % 4).astype(np.uint8)


def only_road(image: Pixels) -> Pixels:
    return np.ones(image.shape[:2], dtype=np.uint8)


def slow_ious(
    pairs: Sequence[tuple[Pixels, Pixels]], ignored: bool = True
) -> dict[int, float | None]:
    """Compute the IoU of each class over all pairs; None if the union is empty."""
    ious: dict[int, float | None] = {}
    for c in range(len(CLASSES)):
        intersection = union = 0
        for label, prediction in pairs:
            for truth, guess in zip(
                label.ravel().tolist(), prediction.ravel().tolist(), strict=True
            ):
                if truth == VOID and ignored:
                    continue
                intersection += truth == c == guess
                union += truth == c or guess == c
        ious[c] = intersection / union if union else None
    return ious


def present(ious: dict[int, float | None]) -> float:
    return float(np.mean([value for value in ious.values() if value is not None]))


def with_zeros(ious: dict[int, float | None]) -> float:
    return float(np.mean([value or 0 for value in ious.values()]))


def nearest(label: Pixels) -> Pixels:
    rows, columns = (
        ((np.arange(size) + 0.5) * side / size).astype(int)
        for side, size in zip(label.shape, CROP, strict=True)
    )
    return label[np.ix_(rows, columns)]


def centre(label: Pixels) -> Pixels:
    top, left = (max(0, (side - crop) // 2) for side, crop in zip(label.shape, CROP, strict=True))
    return label[top : top + CROP[0], left : left + CROP[1]]


@pytest.mark.parametrize("predict", [pattern, only_road])
@pytest.mark.parametrize("seed", range(2))
def test_rules_by_slow_loops(seed: int, predict: Callable[[Pixels], Pixels]) -> None:
    labels = random_labels(seed)
    counts = count_split(labelled_split(labels, CLASSES), range(3), CROP, predict)
    pairs = [(label, predict(label)) for label in labels]
    as_background = [(np.where(t == VOID, 0, t).astype(np.uint8), p) for t, p in pairs]
    views = {view: [(view(t), predict(view(t))) for t in labels] for view in (nearest, centre)}
    whole = slow_ious(pairs)
    shown = {int(c) for label in labels for c in np.unique(label)}
    expected = {
        "resized_labels": present(slow_ious(views[nearest])),
        "centre_crop": present(slow_ious(views[centre])),
        "mean_of_images": sum(present(slow_ious([pair])) for pair in pairs) / 3,
        "mean_of_images_absent_zero": sum(with_zeros(slow_ious([pair])) for pair in pairs) / 3,
        "absent_zero": with_zeros(whole),
        "present_in_truth": present({c: v for c, v in whole.items() if c in shown}),
        "void_as_background": present(slow_ious(as_background)),
        "void_as_wrong": present(slow_ious(pairs, ignored=False)),
    }
    assert protocol(counts) == pytest.approx(present(whole))
    assert {name: variant(counts) for name, variant in VARIANTS.items()} == pytest.approx(expected)
    assert len({round(value, 9) for value in expected.values()}) > 5


def test_rules_on_the_truth() -> None:
    """Score perfect predictions: only rules on absent classes or void give less than 1."""
    labels = [np.array([[0, 1]], dtype=np.uint8), np.array([[0, VOID, 0, 0]], dtype=np.uint8)]

    def truth(image: Pixels) -> Pixels:
        """Read the class from the colour; resizing blurs it to values in between."""
        return np.where(image[..., 0] < 2, image[..., 0], 1)

    counts = count_split(labelled_split(labels, CLASSES), range(2), (1, 2), truth)
    assert counts.on_void.tolist() == [0, 1, 0, 0]
    scores = {name: variant(counts) for name, variant in VARIANTS.items()}
    assert scores["mean_of_images"] == scores["present_in_truth"] == scores["centre_crop"] == 1
    assert scores["absent_zero"] == 2 / 4
    assert scores["mean_of_images_absent_zero"] == (2 / 4 + 1 / 4) / 2
    assert scores["void_as_background"] == (4 / 5 + 1 / 2) / 2
    assert scores["void_as_wrong"] == (1 + 1 / 2) / 2


def test_without_background_void_cannot_be_background() -> None:
    split = labelled_split(random_labels(0), ["sky", *CLASSES[1:]])
    counts = count_split(split, range(3), CROP, pattern)
    assert counts.background is None
    assert [name for name, variant in VARIANTS.items() if math.isnan(variant(counts))] == [
        "void_as_background"
    ]


def test_an_image_of_void_counts_in_no_mean() -> None:
    labels = [np.full((4, 4), VOID, dtype=np.uint8), np.ones((4, 4), dtype=np.uint8)]
    counts = count_split(labelled_split(labels, CLASSES), range(2), (4, 4), only_road)
    assert mean_of_images(counts) == 1


def test_rules_leave_the_counts_as_they_are() -> None:
    counts = count_split(labelled_split(random_labels(0), CLASSES), range(3), CROP, pattern)
    before = {
        field.name: np.copy(getattr(counts, field.name)) for field in dataclasses.fields(Counts)
    }
    for variant in VARIANTS.values():
        variant(counts)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(counts, name), value)


@pytest.mark.parametrize("shape", SHAPES)
def test_views_show_image_and_label_alike(shape: tuple[int, int]) -> None:
    label = np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)
    image = np.repeat(label[..., None], 3, axis=2)
    seen, truth = crop_view(image, label, CROP)
    np.testing.assert_array_equal(seen[..., 0], truth)
    assert truth.shape == tuple(min(side, crop) for side, crop in zip(shape, CROP, strict=True))
    flat = np.full_like(image, 77)
    seen, truth = resize_view(flat, label, CROP)
    assert seen.shape == (*CROP, 3) and (seen == 77).all()
    np.testing.assert_array_equal(truth, nearest(label))


def test_an_audited_run(experiment: Experiment, val: Split, checkpoint: Checkpoint) -> None:
    """Check that the protocol's score is the run's, and that counting void costs something."""
    result = audit(experiment, 0, val, checkpoint)
    run, _ = evaluate(experiment, 0, Inference(), val, val, checkpoint)
    assert result["protocol"] == run["metrics"]["miou"]
    assert list(result["variants"]) == list(VARIANTS)
    assert result["crop_size"] == [32, 40]
    assert result["variants"]["void_as_wrong"] < result["protocol"]
    assert all(0 <= value <= 1 for value in result["variants"].values())
