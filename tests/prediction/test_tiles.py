"""Tests that tiles cover every pixel once, with a margin around them."""

import numpy as np
import pytest

from deeplab_bench.prediction.tiles import cut_into_tiles


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (40, 60), (41, 61), (500, 333), (7, 4000), (4000, 7), (123, 457)]
)
def test_every_pixel_is_used_once_and_seen_with_a_margin(height: int, width: int) -> None:
    used = np.zeros((height, width), dtype=int)
    image = np.arange(height * width).reshape(height, width)
    for tile in cut_into_tiles(height, width, most_pixels=50 * 50, margin=10):
        used[tile.used] += 1
        assert image[tile.seen].size <= 50 * 50
        assert np.array_equal(image[tile.seen][tile.kept], image[tile.used])
        for seen, part, length in zip(tile.seen, tile.used, (height, width), strict=True):
            assert part.start - seen.start >= min(10, part.start)
            assert seen.stop - part.stop >= min(10, length - part.stop)
    assert (used == 1).all()


def test_a_small_image_is_one_tile() -> None:
    (tile,) = cut_into_tiles(40, 60, most_pixels=2400, margin=10)
    assert tile.seen == tile.used == (slice(0, 40), slice(0, 60))
