"""Layers that several architectures share."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_bench.models.grid import pad_to

Cell = TypeVar("Cell", int, Tensor)


def build_conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, rate: int = 1
) -> nn.Module:
    """Make a convolution that keeps the resolution, batch normalisation and ReLU."""
    padding = rate * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=rate, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias, padded by half its kernel.

    oneDNN's kernels for CPUs are slow at an atrous rate above 1, above all backward. There, every
    rate-th row and column is convolved on its own, as an image of the batch, which gives the same
    numbers (space to batch).
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, rate: int = 1) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            padding=rate * (kernel_size // 2),
            dilation=rate,
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        rate = self.dilation[0]
        # Divided maps smaller than the kernel are slower.
        divisible = min(x.shape[-2:]) > rate * (self.kernel_size[0] - 1)
        if x.device.type != "cpu" or rate == 1 or self.stride[0] > 1 or not divisible:
            return super().forward(x)
        parts = space_to_batch(x, rate)
        half = self.kernel_size[0] // 2
        parts = F.conv2d(parts, self.weight, padding=half, groups=self.groups)
        return batch_to_space(parts, rate, x.shape[-2:])


def space_to_batch(x: Tensor, rate: int) -> Tensor:
    """Divide maps by the remainder of row and column, (N, C, H, W) -> (N * rate**2, C, h, w).

    Zeros at the right and the bottom make H and W multiples of ``rate`` first. The result is
    channels last in memory.
    """
    rows, columns = (-(-side // rate) for side in x.shape[-2:])
    x = pad_to(x, [rows * rate, columns * rate]).permute(0, 2, 3, 1)
    x = x.unflatten(2, (columns, rate)).unflatten(1, (rows, rate))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def batch_to_space(parts: Tensor, rate: int, size: Sequence[int]) -> Tensor:
    """Undo ``space_to_batch``; ``size`` is (H, W) of the maps."""
    parts = parts.permute(0, 2, 3, 1).unflatten(0, (-1, rate, rate))
    x = parts.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)
    # Cut by a copy: batch normalisation is slow on a view, above all backward.
    return pad_to(x.permute(0, 3, 1, 2), size)


def build_classifier_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """Make ``build_conv_bn_relu`` with a 3x3 kernel, then a 1x1 convolution to the classes."""
    return nn.Sequential(
        build_conv_bn_relu(in_channels, channels, kernel_size=3),
        nn.Conv2d(channels, num_classes, kernel_size=1),
    )


def build_logits_layer(
    in_channels: int, num_classes: int, kernel_size: int = 1, rate: int = 1, std: float = 0.01
) -> nn.Conv2d:
    """Make a convolution to the classes with normal weights, as DeepLab's fc8: std 0.01."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size, padding="same", dilation=rate)
    nn.init.normal_(conv.weight, std=std)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def resize_cells(cells: Tensor, features: Tensor) -> Tensor:
    """Resize the cells of a pooled map bilinearly to its size before pooling.

    (N, C, cells, cells) -> (N, C, H, W). The value of a cell lies in the middle of the cell.
    """
    return F.interpolate(cells, size=features.shape[-2:], mode="bilinear", align_corners=False)


def adaptive_average_pool(x: Tensor, cells: int) -> Tensor:
    """Compute ``nn.AdaptiveAvgPool2d`` as two matrix products.

    (N, C, H, W) -> (N, C, cells, cells). On a GPU its gradient is deterministic; torch's is not.
    """
    rows, columns = (build_averaging_matrix(cells, size, x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def build_averaging_matrix(cells: int, size: int, like: Tensor) -> Tensor:
    """Build a matrix (cells, size) whose rows average the positions of each cell."""
    position = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    start, end = compute_cell_bounds(cell, cells, size)
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)


def adaptive_max_pool(x: Tensor, cells: int) -> Tensor:
    """Compute ``nn.AdaptiveMaxPool2d``, first along rows, then along columns.

    (N, C, H, W) -> (N, C, cells, cells). On a GPU its gradient is deterministic; torch's is not.
    """
    for dim in (-2, -1):
        bounds = [compute_cell_bounds(cell, cells, x.shape[dim]) for cell in range(cells)]
        maxima = [x.narrow(dim, start, end - start).amax(dim) for start, end in bounds]
        x = torch.stack(maxima, dim)
    return x


def compute_cell_bounds(cell: Cell, cells: int, size: int) -> tuple[Cell, Cell]:
    """Compute the first position of a cell and the one after its last; cells may overlap."""
    return cell * size // cells, -(-(cell + 1) * size // cells)
