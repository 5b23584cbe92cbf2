"""Tests of the layers that architectures share and no other test covers."""

import pytest
import torch
from torch.nn import functional as F

from deeplab_bench.models.layers import DepthwiseConv2d, batch_to_space, space_to_batch


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rate", [1, 2, 3, 8])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [(17, 17), (12, 7), (1, 4)])
def test_depthwise_convolution_is_torchs(
    size: tuple[int, int], kernel_size: int, rate: int, stride: int
) -> None:
    """Compare values and gradients with those of a depthwise convolution with its own rate."""
    torch.manual_seed(0)
    conv = DepthwiseConv2d(6, kernel_size, stride, rate).double()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found, padding = conv(x), rate * (kernel_size // 2)
    expected = F.conv2d(x, conv.weight, None, stride, padding, rate, groups=6)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(expected)
    inputs = (x, conv.weight)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, gradient),
        torch.autograd.grad(expected, inputs, gradient),
    )
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_parts_are_every_other_row_and_column() -> None:
    x = torch.arange(2 * 5 * 4.0).view(1, 2, 5, 4)
    parts = space_to_batch(x, 2)
    padded = F.pad(x, (0, 0, 0, 1))
    expected = [padded[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    assert torch.equal(parts, torch.cat(expected))
    assert torch.equal(batch_to_space(parts, 2, (5, 4)), x)
