"""What several architectures are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
    inside = (position >= cell * size // cells) & (position < -(-(cell + 1) * size // cells))
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)
