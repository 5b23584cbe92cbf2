"""Tests of atrous convolution against a dense one, and of its weights on a finite map."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from deeplab_bench.analysis.atrous import compute_extent, count_valid_weights, insert_holes


@pytest.mark.parametrize("rate", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_it_is_a_dense_convolution_with_zeros_in_its_holes(kernel_size: int, rate: int) -> None:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((5, 4, kernel_size, kernel_size))
    images = torch.from_numpy(random.standard_normal((2, 4, 20, 17)))
    dense = insert_holes(kernel, rate)
    assert dense.shape == (5, 4, *[(kernel_size - 1) * rate + 1] * 2)
    atrous = F.conv2d(images, torch.from_numpy(kernel), dilation=rate)
    torch.testing.assert_close(F.conv2d(images, torch.from_numpy(dense)), atrous)


def test_parameters_and_operations_are_the_same_at_every_rate() -> None:
    images, costs = torch.randn(1, 4, 33, 33), set()
    for rate in (1, 2, 4, 12):
        conv = nn.Conv2d(4, 8, 3, padding=rate, dilation=rate)
        with FlopCounterMode(display=False) as counter:
            conv(images)
        costs.add((sum(p.numel() for p in conv.parameters()), counter.get_total_flops()))
        images.requires_grad_().grad = None
        conv(images)[0, 0, 16, 16].backward()
        assert images.grad is not None
        rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero()
        assert int(rows.max() - rows.min()) + 1 == compute_extent(3, rate) == 2 * rate + 1
    assert costs == {(8 * (4 * 9 + 1), 2 * 8 * 4 * 9 * 33 * 33)}


@pytest.mark.parametrize("side", [1, 2, 5, 8, 65])
def test_valid_weights_are_those_on_the_map(side: int) -> None:
    """Check the shares by a convolution of ones with ones, padded by zeros."""
    for rate in [*range(1, 10), 32, 33, 64, 65, 70]:
        ones = torch.ones(1, 1, side, side), torch.ones(1, 1, 3, 3)
        counted = Counter(F.conv2d(*ones, padding=rate, dilation=rate).int().flatten().tolist())
        found = {count: share for count, share in count_valid_weights(side, rate).items() if share}
        assert found == pytest.approx({count: n / side**2 for count, n in counted.items()})


def test_a_rate_of_the_maps_side_leaves_a_1x1_convolution() -> None:
    """Check the example of DeepLabv3, Section 3.3."""
    assert count_valid_weights(65, 65)[1] == 1
    assert count_valid_weights(65, 1)[9] == (63 / 65) ** 2
