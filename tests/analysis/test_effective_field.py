"""Tests of effective receptive fields that are known, and of the file that the stage writes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZES
from PIL import Image
from torch import nn

from deeplab_bench.analysis.effective_field import (
    centre_image,
    choose_images,
    compute_gradient_map,
    describe_effective,
    find_half_square,
    measure_field,
)
from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.packed import Split
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.settings.experiment import Experiment


def gaussian(deviation: float, side: int = 101) -> np.ndarray:
    x = np.arange(side) - side // 2
    along = np.exp(-(x**2) / (2 * deviation**2))
    return along[:, None] * along


@pytest.mark.parametrize("deviation", [3.0, 8.0])
def test_size_of_a_gaussian(deviation: float) -> None:
    """Compare with the disc above 4.55 % of the peak, of radius d sqrt(2 ln(1 / 0.0455))."""
    area = math.pi * deviation**2 * 2 * math.log(1 / 0.0455)
    found = describe_effective(gaussian(deviation))
    assert found["size_px"] == pytest.approx(math.sqrt(area), rel=0.02)
    assert found["share"] == pytest.approx(area / 101**2, rel=0.04)


def test_half_of_an_even_map_is_a_square_of_half_its_area() -> None:
    assert find_half_square(np.ones((99, 99))) == 71  # 71^2 / 99^2 = 0.514, of 69 it is 0.486
    point = np.zeros((6, 9))
    point[3, 4] = 1
    assert find_half_square(point) == 1
    point[0, 0] = 1.1
    assert find_half_square(point) == 9


class Shift(nn.Module):
    """A network of two classes. The second is twice as high; it sees the pixel 2 left and 1 up."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shifted = x.roll((1, 2), dims=(-2, -1)).sum(dim=1, keepdim=True)
        return torch.cat([x[:, :1], -2 * shifted], dim=1)


def test_gradient_is_of_the_highest_logit_in_the_middle() -> None:
    images = -torch.ones(11, 3, 6, 9)
    expected = np.zeros((6, 9))
    expected[3 - 1, 4 - 2] = 2 * 3  # absolute, over three colours
    np.testing.assert_allclose(compute_gradient_map(Shift(), images), expected)


def test_images_lie_in_the_middle_of_the_mean(val: Split) -> None:
    images = choose_images(val, 4, IMAGENET)
    assert images.shape == (4, 3, 48, 48)
    height, width = SIZES["val"][2 * 3]
    last = images[3]
    rows = last.abs().sum(dim=(0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == height == 45
    alone = centre_image(val.image(6), height, width, IMAGENET)[0]
    assert torch.equal(last[:, 24, 24], alone[:, height // 2, width // 2])
    assert float(last.abs().sum()) == pytest.approx(float(alone.abs().sum()))


def test_a_field_is_measured_before_and_after(
    experiment: Experiment, val: Split, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    found = [
        measure_field(experiment, 0, val, checkpoint, tmp_path / f"{run}.png")
        for run in ("first", "second")
    ]
    assert found[0] == found[1]
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert found[0]["image_size"] == [48, 48] and found[0]["images"] == 8
    before, after = found[0]["effective"]["before"], found[0]["effective"]["after"]
    with Image.open(tmp_path / "first.png") as image:
        maps = np.split(np.asarray(image), 2, axis=1)
    assert not np.array_equal(maps[0], maps[1])
    for pixels, measured in zip(maps, (before, after), strict=True):
        assert pixels.shape == (48, 48) and pixels.max() == 255
        assert np.count_nonzero(pixels > 11.6) / pixels.size == pytest.approx(
            measured["share"], abs=0.02
        )
