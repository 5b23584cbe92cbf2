"""Tests of scores by tiles of the size of training crops."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from studies.crop_tiles import list_starts, predict_tiles


@pytest.mark.parametrize(("length", "tile"), [(5, 8), (8, 8), (9, 8), (20, 8), (500, 257)])
def test_tiles_cover_a_side_and_overlap_by_half(length: int, tile: int) -> None:
    starts = list(list_starts(length, tile))
    assert starts[0] == 0
    assert starts[-1] + tile >= length
    assert all(later - start <= tile / 2 for start, later in pairwise(starts))
    assert all(start + tile <= max(length, tile) for start in starts)


def test_probabilities_of_tiles_are_averaged() -> None:
    """Check against a network that says the class of each pixel from the pixel alone."""
    seen: list[tuple[int, ...]] = []

    def probabilities(image: Any) -> Any:
        seen.append(image.shape[:2])
        return np.stack([255.0 - image[..., 0], image[..., 0]])

    crop = SimpleNamespace(training=SimpleNamespace(crop_size=(4, 6)))
    experiment = SimpleNamespace(phases=(crop,))
    predictor: Any = SimpleNamespace(
        classes=("a", "b"), experiment=experiment, probabilities=probabilities
    )
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    assert np.array_equal(predict_tiles(predictor, image), image[..., 0] > 127)
    assert set(seen) == {(4, 6)}
