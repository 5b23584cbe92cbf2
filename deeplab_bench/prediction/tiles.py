"""Tiles of an image that is too large for one pass of the network."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """A part of an image. The network sees ``seen``, and its prediction is used for ``used``."""

    seen: Slices
    used: Slices

    @property
    def kept(self) -> Slices:
        """The rows and columns of ``used`` within ``seen``."""
        rows, columns = (
            slice(used.start - seen.start, used.stop - seen.start)
            for seen, used in zip(self.seen, self.used, strict=True)
        )
        return rows, columns


def cut_into_tiles(height: int, width: int, most_pixels: int, margin: int) -> Iterator[Tile]:
    """Cut an image into tiles of which the network sees at most ``most_pixels`` each.

    Around the part that is used, the network sees ``margin`` more pixels, if the image has them.
    An image of at most ``most_pixels`` is one tile.
    """
    if height * width <= most_pixels:
        whole = (slice(0, height), slice(0, width))
        yield Tile(whole, whole)
        return
    side = math.isqrt(most_pixels)
    for rows in _cut(height, side, margin):
        for columns in _cut(width, side, margin):
            yield Tile((rows[0], columns[0]), (rows[1], columns[1]))


def _cut(length: int, side: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """Yield what is seen and what is used of each part of one side of the image."""
    count = 1 if length <= side else math.ceil(length / (side - 2 * margin))
    ends = [length * index // count for index in range(count + 1)]
    for start, stop in pairwise(ends):
        seen = slice(max(0, start - margin), min(length, stop + margin))
        yield seen, slice(start, stop)
