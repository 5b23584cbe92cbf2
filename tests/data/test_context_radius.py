"""Tests of context radii: known ones, and those of drawn scenes against their definition."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab_bench.data.context_radius import (
    UNDECIDABLE,
    compute_context_radii,
    compute_window_radii,
)
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.data.shapes import (
    DIRECTIONS,
    Piece,
    Scene,
    draw_scene,
    fill_outline,
    find_differences,
    find_rim,
    make_look_alikes,
)

Mask = NDArray[np.bool_]


def row(*true: int, length: int = 12) -> Mask:
    return np.isin(np.arange(length), true)[None]


def radii_of(scene: Scene) -> Pixels:
    pieces = [(piece.mask, find_differences(piece)) for piece in scene.pieces]
    return compute_context_radii(pieces, scene.label.shape)


def make_piece(name: str, radius: float, size: int = 161) -> Piece:
    """Make an upright piece in the middle of an image."""
    v, u = (np.mgrid[:size, :size] - size // 2) / radius
    return Piece(name, fill_outline(name, u, v), u, v)


@pytest.mark.parametrize("density", [0.01, 0.05, 1])
def test_windows_by_brute_force(density: float) -> None:
    mask = np.random.default_rng(1).random((21, 17)) < density
    held = np.argwhere(mask)
    for place, radius in np.ndenumerate(compute_window_radii(mask)):
        assert radius == np.abs(held - place).max(axis=1).min()


def test_the_last_look_alike_decides() -> None:
    radii = compute_context_radii([(row(2, 3, 4), [row(6), row(9)])], (1, 12))
    assert radii.tolist() == [[0, 0, 7, 6, 5, 0, 0, 0, 0, 0, 0, 0]]


def test_what_is_covered_tells_nothing() -> None:
    behind = (row(2, 3, 4), [row(5, 11)])
    radii = compute_context_radii([behind, (row(4, 5, 6), [row(7)])], (1, 12))
    assert radii.tolist() == [[0, 0, 9, 8, 3, 2, 1, 0, 0, 0, 0, 0]]
    radii = compute_context_radii([behind, (row(4, 5, 11), [row(0)])], (1, 12))
    assert radii[0, [2, 3]].tolist() == [UNDECIDABLE] * 2


def test_in_the_middle_of_a_cross() -> None:
    """Check that only a window beyond the rim of the arms, at 14 px, excludes straight edges."""
    piece = make_piece("cross", 40)
    radii = compute_context_radii([(piece.mask, find_differences(piece))], (161, 161))
    assert radii[80, 80] == 16
    assert radii[0, 0] == 0


def test_a_triangle_needs_two_edges() -> None:
    """Check 5 pixels above the base: half of the width is 57 there, and shrinks by 2/3 a row."""
    piece = make_piece("triangle", 50)
    radii = compute_context_radii([(piece.mask, find_differences(piece))], (161, 161))
    assert radii[110, 80] == pytest.approx(57 / (1 + 2 / 3), abs=2)


@pytest.mark.parametrize("name", ["disc", "ring"])
def test_a_disc_is_no_ring_once_the_hole_would_be_seen(name: str) -> None:
    """Check radius 36 with a hole of sqrt(0.3) of it; straight edges are excluded earlier."""
    radius = 36 / math.sqrt(0.8) if name == "disc" else 36
    piece = make_piece(name, radius)
    radii = compute_context_radii([(piece.mask, find_differences(piece))], (161, 161))
    hole = 36 * math.sqrt(0.3)
    assert radii[80, 80 + 32] == pytest.approx(32 - hole, abs=2)
    assert radii[80, 80 + 22] <= 36 - 22


def test_half_planes_are_15_degrees_apart() -> None:
    angles = np.sort(np.degrees(np.arctan2(*np.array(DIRECTIONS).T)))
    assert np.hypot(*np.array(DIRECTIONS).T) == pytest.approx(1)
    assert np.diff(angles) == pytest.approx(15, abs=1.2)
    assert len(angles) == 24


@pytest.mark.parametrize("name", ["disc", "ring", "triangle", "cross", "scrap"])
def test_look_alikes_share_a_stretch_of_outline(name: str) -> None:
    v, u = np.mgrid[-150:151, -150:151] / 100
    scrap = (np.abs(u) <= 1) & (np.abs(v) <= 1)
    own = scrap if name == "scrap" else fill_outline(name, u, v)
    for other in make_look_alikes(name, u, v):
        assert (find_rim(own) & find_rim(other)).sum() > 10
        assert (own != other).any()


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_the_radius_decide_and_no_smaller(seed: int) -> None:
    """Check drawn scenes, with pieces that hide others and with the image's border."""
    scene = draw_scene(np.random.RandomState(seed), 48)
    radii = radii_of(scene)
    fronts = [np.zeros((48, 48), dtype=bool)]
    for piece in scene.pieces[::-1]:
        fronts.append(fronts[-1] | piece.mask)
    assert not radii[~fronts[-1]].any()
    random = np.random.default_rng(seed)
    for piece, front in zip(scene.pieces[::-1], fronts, strict=False):
        others = [
            (other != piece.mask) & ~front & ~find_rim(piece.mask)
            for other in make_look_alikes(piece.name, piece.u, piece.v)
        ]
        places = np.argwhere(piece.mask & ~front)
        for y, x in places[random.permutation(len(places))[:20]]:
            for radius, decided in ((int(radii[y, x]), True), (int(radii[y, x]) - 1, False)):
                if radius < 0 or radius == UNDECIDABLE:
                    continue
                window = np.s_[
                    max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1
                ]
                assert all(other[window].any() for other in others) == decided
