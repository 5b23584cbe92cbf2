"""Tests of what all measures have in common, and of each one's record on small splits."""

import math
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest
from small_splits import labelled_split, true_predictions

from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation import measures
from deeplab_bench.evaluation.evaluate import measure_predictions
from deeplab_bench.evaluation.measures.boundaries import TRIMAP_WIDTHS
from deeplab_bench.evaluation.measures.confusion import (
    ConfusionMeasure,
    confusion_matrix,
    find_background,
    miou,
)
from deeplab_bench.evaluation.measures.context_accuracy import RADIUS_BINS, count_by_radius
from deeplab_bench.evaluation.measures.measure import Measure, round_fraction
from deeplab_bench.evaluation.measures.object_size import (
    BINS,
    ObjectSizeMeasure,
    compute_object_areas,
)
from deeplab_bench.evaluation.measures.registry import MEASURES
from deeplab_bench.writing import format_json

TWO_CLASSES = ["background", "thing"]
each_measure = pytest.mark.parametrize("measure", MEASURES)


@pytest.fixture(scope="module")
def val(data_folder: Path) -> Split:
    """Add context radii to the validation split."""
    split = load_split(data_folder, "val")
    radii = np.random.default_rng(1).integers(0, 256, split.labels.shape, np.uint8)
    return replace(split, context_radii=radii)


@pytest.fixture(scope="module")
def predictions(val: Split) -> list[Pixels]:
    """Copy the truth, and change a third of the pixels."""
    random = np.random.default_rng(0)
    return [
        np.where(
            random.random(truth.shape) < 2 / 3, truth, random.integers(0, 5, truth.shape)
        ).astype(np.uint8)
        for truth in true_predictions(val)
    ]


def updated(
    measure: type[Measure], split: Split, predictions: list[Pixels], indices: Iterable[int]
) -> Measure:
    made = measure(split)
    for index in indices:
        made.update(index, split.label(index), predictions[index])
    return made


def test_every_measure_is_listed() -> None:
    """Check that each file but three defines one measure, and that no two record the same key."""
    others = {"measure", "registry", "variants"}
    names = {module.name for module in iter_modules(measures.__path__)} - others
    modules = [import_module(f"{measures.__name__}.{name}") for name in names]
    assert {measure.__module__ for measure in MEASURES} == {module.__name__ for module in modules}
    assert len(MEASURES) == len(modules)
    split = labelled_split([np.zeros((2, 2), int)], TWO_CLASSES)
    keys = [key for measure in MEASURES for key in measure(split).record()]
    assert len(keys) == len(set(keys))


@each_measure
class TestContract:
    def test_the_order_of_images_does_not_matter(
        self, measure: type[Measure], val: Split, predictions: list[Pixels]
    ) -> None:
        forward = updated(measure, val, predictions, range(len(val)))
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(val)).tolist()
            assert updated(measure, val, predictions, order).record() == forward.record()

    def test_merging_two_halves_gives_the_whole(
        self, measure: type[Measure], val: Split, predictions: list[Pixels]
    ) -> None:
        """Count every other image in each half, as two processes do."""
        whole = updated(measure, val, predictions, range(len(val)))
        half, other = (
            updated(measure, val, predictions, range(rank, len(val), 2)) for rank in range(2)
        )
        assert half.record() != whole.record() != other.record()
        of_the_other = iter(other.counts.values())
        half.merge(lambda counts: counts + next(of_the_other))
        assert half.record() == whole.record()

    def test_merging_in_one_process_changes_nothing(
        self, measure: type[Measure], val: Split, predictions: list[Pixels]
    ) -> None:
        made = updated(measure, val, predictions, range(len(val)))
        before = made.record()
        made.merge(lambda counts: counts)
        assert made.record() == before

    def test_counts_are_integers_and_begin_at_zero(
        self, measure: type[Measure], val: Split
    ) -> None:
        for counts in measure(val).counts.values():
            assert counts.dtype == np.int64 and not counts.any()

    @pytest.mark.parametrize("images", ["all", "none"])
    def test_the_record_is_json(
        self, measure: type[Measure], images: str, val: Split, predictions: list[Pixels]
    ) -> None:
        """Check the record also without images, and without context radii."""
        indices = range(len(val)) if images == "all" else range(0)
        for split in (val, replace(val, context_radii=None)):
            record = updated(measure, split, predictions, indices).record()
            assert record and format_json(record)

    def test_update_and_record_leave_their_inputs(
        self, measure: type[Measure], val: Split, predictions: list[Pixels]
    ) -> None:
        label, prediction = val.label(0).copy(), predictions[0].copy()
        made = measure(val)
        made.update(0, label, prediction)
        np.testing.assert_array_equal(label, val.label(0))
        np.testing.assert_array_equal(prediction, predictions[0])
        assert made.record() == made.record()


def test_the_order_of_entries(val: Split, predictions: list[Pixels]) -> None:
    assert [*measure_predictions(val, enumerate(predictions))] == [
        "metrics",
        "iou",
        "absent_classes",
        "images",
        "object_size",
        "boundaries",
        "context_radius",
    ]


class TestObjectSize:
    def test_sizes_add_up_to_the_split(self, val: Split, predictions: list[Pixels]) -> None:
        """Check that the sizes sum to the split, without the images that have no object."""
        indices = range(len(val))
        background = val.labels.copy()
        background[: val.starts[1]] = 0
        val = replace(val, labels=background)
        by_size = updated(ObjectSizeMeasure, val, predictions, indices).counts["by_size"]
        by_image = updated(ConfusionMeasure, val, predictions, indices).counts["by_image"]
        labels = [val.label(index) for index in indices]
        with_objects = [bool(compute_object_areas(label, 0).any()) for label in labels]
        assert 0 < with_objects.count(False) < len(labels)
        np.testing.assert_array_equal(by_size.sum(axis=0), by_image[with_objects].sum(axis=0))
        assert all(confusion.any() for confusion in by_size)
        for index, prediction in enumerate(predictions):
            expected = confusion_matrix(val.label(index), prediction, 6)
            np.testing.assert_array_equal(by_image[index], expected)

    def test_sizes_by_hand(self) -> None:
        """Check objects of 1, 4 and 9 pixels; the false positive is next to the smallest.

        The image of background alone counts in the split and in no size.
        """
        label = np.zeros((5, 12), dtype=np.int64)
        label[0, 0], label[0:2, 5:7], label[0:3, 9:12] = 1, 1, 1
        split = labelled_split([label, np.zeros((2, 2), dtype=np.int64)], TWO_CLASSES)
        prediction = label.astype(np.uint8)
        prediction[1, 0] = 1
        predictions = [prediction, np.ones((2, 2), dtype=np.uint8)]
        sizes = updated(ObjectSizeMeasure, split, predictions, range(2))
        assert isinstance(sizes, ObjectSizeMeasure)
        edges = [1 + 2 / 3 * 3, 4 + 1 / 3 * 5]
        assert sizes.edges == pytest.approx(edges)
        by_size = sizes.counts["by_size"]
        assert [int(c[0, 1]) for c in by_size] == [1, 0, 0]
        assert [int(c[1, 1]) for c in by_size] == [1, 4, 9]
        assert by_size.sum() == label.size
        whole = updated(ConfusionMeasure, split, predictions, range(2)).counts["by_image"]
        assert whole.sum() == label.size + 4
        record = sizes.record()["object_size"]
        assert record["edges_px"] == [round(math.sqrt(edge), 2) for edge in edges]
        assert record["miou"] == [pytest.approx(miou(by_size[0]), abs=1e-6), 1, 1]

    def test_first_class_is_no_background_unless_called_so(self) -> None:
        label = np.array([[0, 0, 0, 0, 1, 1, 1, 2]])
        for first, edges in (("sky", [1 + 4 / 3, 3 + 1 / 3]), ("background", [5 / 3, 7 / 3])):
            split = labelled_split([label], [first, "road", "car"])
            assert ObjectSizeMeasure(split).edges == pytest.approx(edges)


def test_boundaries_of_the_truth_and_of_another(val: Split) -> None:
    """Check perfect predictions, with one class absent, and then predictions of ground alone."""
    truth = true_predictions(val)
    record = measure_predictions(val, enumerate(truth))["boundaries"]
    assert record["trimap_miou"] == [1.0] * len(TRIMAP_WIDTHS)
    assert record["boundary_iou"].pop("star") is None
    assert set(record["boundary_iou"].values()) == {record["boundary_miou"]} == {1.0}
    ground = [np.zeros_like(label) for label in truth]
    record = measure_predictions(val, enumerate(ground))["boundaries"]
    assert all(0 < miou < 0.3 for miou in record["trimap_miou"])
    assert 0 < record["boundary_miou"] < 0.3


class TestContextAccuracy:
    def test_pixels_by_bin(self) -> None:
        """Check two bins and the pixels beyond the largest; void is left out."""
        radii = np.array([[0, 0, 4, 5, 255, 3]], dtype=np.uint8)
        label = np.array([[0, 1, 1, 2, 2, VOID]], dtype=np.uint8)
        prediction = np.array([[0, 0, 1, 2, 0, 0]], dtype=np.uint8)
        correct, total = count_by_radius(label, prediction, radii)
        assert RADIUS_BINS[:3] == (0, 4, 6)
        assert correct.tolist() == [1, 1, 1] + [0] * (len(RADIUS_BINS) - 2)
        assert total.tolist() == [2, 1, 1] + [0] * (len(RADIUS_BINS) - 3) + [1]

    def test_pixels_by_context_radius(self) -> None:
        """Check the sum over images, and null for photographs, which have no context radii."""
        labels = [np.array([[0, 1, VOID]]), np.array([[1, 1]])]
        split = labelled_split(labels, TWO_CLASSES)
        answers = [np.array([[0, 0, 0]], dtype=np.uint8), np.array([[1, 0]], dtype=np.uint8)]
        assert measure_predictions(split, enumerate(answers))["context_radius"] is None
        radii = np.array([0, 5, 5, 5, 255], dtype=np.uint8)
        split = replace(split, context_radii=radii)
        record = measure_predictions(split, enumerate(answers))["context_radius"]
        assert record["largest_px"] == list(RADIUS_BINS)
        assert record["total"] == [1, 0, 2] + [0] * (len(RADIUS_BINS) - 3) + [1]
        assert record["correct"] == [1, 0, 1] + [0] * (len(RADIUS_BINS) - 2)


class TestNothingToMeasure:
    """Tests that the record is null if there is nothing to measure, since JSON has no NaN."""

    def test_without_objects(self) -> None:
        split = labelled_split([np.full((2, 3), VOID), np.zeros((3, 2), int)], TWO_CLASSES)
        record = measure_predictions(split, enumerate(true_predictions(split)))
        assert record["object_size"] == {"edges_px": [], "miou": [None] * BINS}
        assert record["metrics"]["miou"] == 1
        assert record["absent_classes"] == ["thing"]

    def test_all_void(self) -> None:
        split = labelled_split([np.full((2, 3), VOID)], TWO_CLASSES)
        record = measure_predictions(split, enumerate(true_predictions(split)))
        assert set(record["metrics"].values()) == {None}
        assert record["absent_classes"] == split.classes


def test_miou_is_no_mean_over_images() -> None:
    labels = [np.array([[1] * 8 + [0] * 2]), np.array([[1] * 2 + [0] * 8])]
    split = labelled_split(labels, TWO_CLASSES)
    answers = [labels[0].astype(np.uint8), np.zeros((1, 10), dtype=np.uint8)]
    record = measure_predictions(split, enumerate(answers))
    assert record["metrics"]["miou"] == pytest.approx(49 / 60, abs=1e-6)


def test_fractions_have_six_digits_or_are_null() -> None:
    assert round_fraction(1 / 3) == 0.333333
    assert round_fraction(math.nan) is None


def test_background_is_found_by_its_name() -> None:
    assert find_background(["sky", "background"]) == 1
    assert find_background(["sky", "road"]) is None
