"""Intervals of clips whose images are autocorrelated, on few simulated clips."""

import numpy as np
import pytest

from studies import coverage


def cover(correlation: float, length: int, clips: int = 1000) -> float:
    scores = coverage.draw_clips(np.random.RandomState(1), correlation, clips)
    _, margins = coverage.compute_clip_margins(scores, length)
    return float((np.abs(scores.mean(axis=1)) < margins).mean())


@pytest.mark.parametrize("length", [1, 10, 25])
def test_independent_images_are_covered_with_any_blocks(length: int) -> None:
    assert cover(0.0, length) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(
    ("correlation", "length", "expected"),
    [(0.91, 1, 0.32), (0.95, 1, 0.23), (0.91, 25, 0.91), (0.95, 25, 0.86), (0.98, 25, 0.70)],
)
def test_coverage_of_correlated_images(correlation: float, length: int, expected: float) -> None:
    assert cover(correlation, length) == pytest.approx(expected, abs=0.05)


def test_clips_have_the_correlation_that_was_asked_for() -> None:
    scores = coverage.draw_clips(np.random.RandomState(2), 0.9, 2000)
    assert scores.std(axis=0) == pytest.approx(np.ones(coverage.CLIP_IMAGES), abs=0.08)
    for lag in (1, 10):
        product = (scores[:, lag:] * scores[:, :-lag]).mean()
        assert product == pytest.approx(0.9**lag, abs=0.05)
    assert coverage.correlate_neighbours(scores) < 0.88  # a clip's own mean hides a part of it


def test_the_table_has_a_row_for_each_length() -> None:
    table = coverage.simulate_blocks(clips=50)
    assert len(table) == len(coverage.CORRELATIONS) * len(coverage.BLOCK_LENGTHS)
    by_length = table.set_index(["correlation", "length"])["blocks"]
    assert by_length[0.95].to_dict() == {1: 101, 5: 20, 10: 10, 20: 5, 25: 4, 34: 3, 50: 2}
