"""What several architectures are made of."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cell = TypeVar("Cell", int, Tensor)


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, rate: int = 1) -> nn.Module:
    """Convolution that keeps the resolution, batch normalisation, ReLU."""
    padding = rate * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=rate, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def classifier_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """3x3 convolution with its normalisation, 1x1 convolution to the classes."""
    return nn.Sequential(
        conv_bn_relu(in_channels, channels, kernel_size=3),
        nn.Conv2d(channels, num_classes, kernel_size=1),
    )


def scores_layer(
    in_channels: int, num_classes: int, kernel_size: int = 1, rate: int = 1
) -> nn.Conv2d:
    """Convolution to the classes, started near zero as DeepLab's fc8: Gaussian, deviation 0.01."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size, padding="same", dilation=rate)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Bilinear, (N, C, h, w) -> (N, C, H, W) where H and W are those of ``reference``."""
    if x.shape[-2:] == reference.shape[-2:]:
        return x
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def upsample_logits(logits: Tensor, images: Tensor) -> Tensor:
    """(N, C, h, w) -> float32 (N, C, H, W), the size of the images, whatever the precision."""
    return resize_like(logits.float(), images)


def average_over_grid(x: Tensor, cells: int) -> Tensor:
    """(N, C, H, W) -> (N, C, cells, cells): ``nn.AdaptiveAvgPool2d``, as two matrix products.

    On a GPU its gradient is the same every time, which torch's is not.
    """
    rows, columns = (averaging_matrix(cells, size, x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def averaging_matrix(cells: int, size: int, like: Tensor) -> Tensor:
    """(cells, size), whose rows average the stretch of positions that belongs to each cell."""
    position = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    start, end = stretch_of(cell, cells, size)
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)


def maximum_over_grid(x: Tensor, cells: int) -> Tensor:
    """(N, C, H, W) -> (N, C, cells, cells): ``nn.AdaptiveMaxPool2d``, rows first, then columns.

    On a GPU its gradient is the same every time, which torch's is not.
    """
    for dim in (-2, -1):
        stretches = [stretch_of(cell, cells, x.shape[dim]) for cell in range(cells)]
        maxima = [x.narrow(dim, start, end - start).amax(dim) for start, end in stretches]
        x = torch.stack(maxima, dim)
    return x


def stretch_of(cell: Cell, cells: int, size: int) -> tuple[Cell, Cell]:
    """Start and end of the positions that belong to a cell; neighbours may share some."""
    return cell * size // cells, -(-(cell + 1) * size // cells)
