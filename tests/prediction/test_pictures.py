"""Tests of the colours that a prediction lays over a photograph."""

import numpy as np
import pytest

from deeplab_bench.prediction.pictures import (
    build_colours,
    build_legend,
    choose_columns,
    draw_panels,
    paint,
)

GREY = np.full((4, 6, 3), 100, dtype=np.uint8)
LABEL = np.array([[0, 0, 0, 1, 1, 2]] * 4, dtype=np.uint8)


def test_background_is_left_and_classes_are_mixed_with_their_colour() -> None:
    painted = paint(GREY, LABEL, ("background", "cat", "dog"))
    assert (painted[:, :3] == 100).all()
    assert painted[0, 3].tolist() == [round(0.4 * 100 + 0.6 * c) for c in build_colours()[1]]
    assert (paint(GREY, LABEL, ("sky", "cat", "dog"))[:, :3] == 40).all()  # class 0 is black


def test_the_legend_has_the_classes_that_occur_and_their_mean_shares() -> None:
    labels = {"a": LABEL, "b": np.zeros_like(LABEL)}
    patches = build_legend(labels, ("background", "cat", "dog", "horse"))
    assert [patch.get_label() for patch in patches] == [
        *("background, 75.0 %", "cat, 16.7 %", "dog, 8.3 %")
    ]


def test_there_is_a_panel_for_each_network() -> None:
    figure = draw_panels(GREY, {"fcn-0": LABEL, "aspp-0": LABEL}, ("background", "cat", "dog"))
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == [
        *("photograph", "fcn-0", "aspp-0")
    ]


@pytest.mark.parametrize(
    ("panels", "height_to_width", "columns"),
    [(2, 1.0, 2), (3, 0.75, 3), (4, 0.75, 2), (4, 1.0, 2), (4, 1.5, 2), (5, 0.75, 3), (9, 1.3, 3)],
)
def test_panels_are_laid_out_evenly(panels: int, height_to_width: float, columns: int) -> None:
    assert choose_columns(panels, height_to_width) == columns
