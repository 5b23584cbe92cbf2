"""Tests of the comparison of training crops with images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deeplab_bench.analysis.crop_reach import AtrousCall, CropReach, measure_crop_reach
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params

COMMITTED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(COMMITTED)


def measure(params: Params, profile: str, model: str, *image_size: int) -> CropReach | None:
    return measure_crop_reach(params.experiment(profile, model), image_size)


@pytest.mark.parametrize("rate", [1, 3, 8])
@pytest.mark.parametrize("taps", [3, 5])
def test_shares_are_those_that_a_convolution_counts(rate: int, taps: int) -> None:
    size = (11, 17)
    each_weight = torch.eye(taps**2).reshape(taps**2, 1, taps, taps)
    on_map = F.conv2d(
        torch.ones(1, 1, *size), each_weight, padding=rate * (taps // 2), dilation=rate
    )
    shares = AtrousCall(rate, (taps, taps), size, taps**2).compute_shares()
    assert np.allclose(shares, on_map.mean(dim=(0, 2, 3)).reshape(taps, taps))


def test_the_crop_that_deeplabv3_found_too_small(params: Params) -> None:
    """Table 8: ASPP has 77.21 with crops of 513 pixels, and 67.22 with crops of 321."""
    assert measure(params, "voc2012", "aspp_image", 375, 500) is None
    found = measure(params, "voc2012", "aspp_crop321", 375, 500)
    assert found is not None
    assert (found.rate, found.in_crop, found.in_image) == (18, (21, 21), (25, 33))
    # Of one rate in three, of nine weights at least the four beside the middle one.
    assert found.little_trained > 4 / 9 / 3


def test_a_cascade_beyond_its_crops(params: Params) -> None:
    deep = measure(params, "voc_animals", "cascade", 332, 500)
    assert deep is not None
    assert deep.rate == 16
    assert deep.little_trained > 0.1
    assert measure(params, "voc_animals", "cascade_block5_mg111", 332, 500) is None


def test_images_of_the_size_of_the_crops_say_nothing_new(params: Params) -> None:
    assert measure(params, "voc_animals", "cascade", 257, 257) is None
