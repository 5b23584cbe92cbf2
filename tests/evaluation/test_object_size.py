"""Tests of objects, size bins and the nearest object against brute force on small grids."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures.object_size import (
    BINS,
    compute_area_edges,
    compute_object_areas,
    find_size_bins,
    list_object_areas,
)

V = VOID


def grid(*rows: list[int]) -> Pixels:
    return np.array(rows, dtype=np.uint8)


def random_label(seed: int) -> Pixels:
    """Make patches of 3 classes and void."""
    patches = np.random.default_rng(seed).choice([0, 0, 0, 0, 1, 2, V], (6, 8))
    return np.kron(patches, np.ones((2, 2))).astype(np.uint8)[:11, :]


def slow_areas(label: Pixels, background: int | None) -> NDArray[np.int64]:
    """Compute the areas by flood fill."""
    areas = np.zeros(label.shape, dtype=np.int64)
    height, width = label.shape
    for start in product(range(height), range(width)):
        if areas[start] or label[start] in (VOID, background):
            continue
        component, pending = {start}, [start]
        while pending:
            y, x = pending.pop()
            for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= place[0] < height and 0 <= place[1] < width
                if inside and place not in component and label[place] == label[start]:
                    component.add(place)
                    pending.append(place)
        for place in component:
            areas[place] = len(component)
    return areas


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param(
            grid([1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]),
            [[3, 3, 0, 3], [3, 0, 0, 3], [0, 0, 0, 3]],
            id="two-apart",
        ),
        pytest.param(grid([1, 1, 1], [0, 0, 1]), [[4, 4, 4], [0, 0, 4]], id="touching-is-one"),
        pytest.param(grid([1, 1, 2], [0, 2, 2]), [[2, 2, 3], [0, 3, 3]], id="two-classes-are-two"),
        pytest.param(grid([1, 0], [0, 1]), [[1, 0], [0, 1]], id="corners-do-not-touch"),
        pytest.param(grid([1, V, 1, 1], [0, V, V, 0]), [[1, 0, 2, 2], [0] * 4], id="void-parts"),
        pytest.param(grid([0, 0], [V, V]), [[0, 0], [0, 0]], id="none"),
    ],
)
def test_objects_by_hand(label: Pixels, expected: list[list[int]]) -> None:
    assert compute_object_areas(label, background=0).tolist() == expected


def test_without_background_every_class_has_objects() -> None:
    label = grid([0, 0, 1], [0, V, 1])
    assert compute_object_areas(label, background=None).tolist() == [[3, 3, 2], [3, 0, 2]]
    assert compute_object_areas(label, background=1).tolist() == [[3, 3, 0], [3, 0, 0]]


@pytest.mark.parametrize("background", [0, 2, None])
@pytest.mark.parametrize("seed", range(4))
def test_objects_by_flood_fill(seed: int, background: int | None) -> None:
    label = random_label(seed)
    expected = slow_areas(label, background)
    areas = compute_object_areas(label, background)
    np.testing.assert_array_equal(areas, expected)
    assert sum(list_object_areas(areas)) == np.count_nonzero(expected)


def test_object_list_has_each_object_once() -> None:
    """Check two objects of 2 pixels, of different classes, one object of 1 and one of 3."""
    label = grid([1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 1, 0], [0, 0, 1, 1])
    assert Counter(list_object_areas(compute_object_areas(label, 0)).tolist()) == {1: 1, 2: 2, 3: 1}


def strips(*lengths: int) -> Pixels:
    """Make one object of each length, each in a row of its own."""
    label = np.zeros((2 * len(lengths), max(lengths)), dtype=np.uint8)
    for row, length in enumerate(lengths):
        label[2 * row, :length] = 1
    return label


def test_terciles_by_hand() -> None:
    """Check areas 2, 4, ..., 12 in two images: the terciles are at positions 5/3 and 10/3."""
    images = [compute_object_areas(strips(*lengths), 0) for lengths in ((2, 12, 4), (10, 6, 8))]
    edges = compute_area_edges(images)
    assert edges == pytest.approx([4 + 2 * 2 / 3, 8 + 2 * 1 / 3])
    bins = find_size_bins(images[0], edges)
    assert bins is not None
    assert bins[[0, 2, 4], 0].tolist() == [0, 2, 0]
    assert all(isinstance(edge, float) for edge in edges)


def test_object_on_an_edge_belongs_below_it() -> None:
    areas = compute_object_areas(strips(1, 2, 3, 4), 0)
    edges = compute_area_edges([areas])
    assert edges == pytest.approx([2, 3])
    bins = find_size_bins(areas, edges)
    assert bins is not None
    assert bins[::2, 0].tolist() == [0, 0, 1, 2]


def test_objects_count_once_whatever_their_area() -> None:
    """Check areas 1, 1, 1, 1, 20: both terciles are 1; counted by pixels they would be 20."""
    assert compute_area_edges([compute_object_areas(strips(1, 1, 1, 1, 20), 0)]) == [1, 1]


def test_no_objects() -> None:
    empty = compute_object_areas(grid([0, V], [0, 0]), 0)
    assert compute_area_edges([empty, empty]) == []
    assert find_size_bins(empty, [2, 3]) is None


@pytest.mark.parametrize("seed", range(4))
def test_every_pixel_goes_with_the_nearest_object(seed: int) -> None:
    areas = compute_object_areas(random_label(seed), 0)
    edges = compute_area_edges([areas])
    bins = find_size_bins(areas, edges)
    assert bins is not None and bins.shape == areas.shape
    objects = np.argwhere(areas)
    for place in product(*map(range, areas.shape)):
        distances = ((objects - place) ** 2).sum(axis=1)
        nearest = areas[tuple(objects[distances == distances.min()].T)]
        assert bins[place] in {sum(area > edge for edge in edges) for area in nearest}


def test_false_alarm_is_charged_to_the_object_beside_it() -> None:
    label = grid([1, 0, 0, 0, 0, 0, 2, 2, 2, 2])
    bins = find_size_bins(compute_object_areas(label, 0), [1, 3])
    assert bins is not None
    assert bins.tolist() == [[0, 0, 0, 0, 2, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize("seed", range(4))
def test_bins_partition_the_image(seed: int) -> None:
    areas = compute_object_areas(random_label(seed), 0)
    bins = find_size_bins(areas, compute_area_edges([areas]))
    assert bins is not None
    assert set(np.unique(bins)) <= set(range(BINS))
    assert sum(np.count_nonzero(bins == size) for size in range(BINS)) == areas.size


def test_scraps_are_no_objects() -> None:
    """Check that fewer than five pixels of 100x100 are no object."""
    label = np.zeros((100, 100), dtype=np.uint8)
    label[:2, :2], label[50:55, 50] = 1, 1
    areas = compute_object_areas(label, 0)
    assert areas[0, 0] == 0
    assert set(areas[50:55, 50].tolist()) == {5}
