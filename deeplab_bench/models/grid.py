"""The pixels on which the positions of a network's maps lie, and bilinear resizing between them.

A convolution or pool of odd kernel size with stride 2, padded by half its kernel, looks at the
positions 0, 2, 4, ... of its input. So a network of stride s looks at the pixels 0, s, 2s, ..., and
its last position is on the last pixel of an image of k * s + 1 pixels. This is why DeepLab's crops
have 513 and 321 pixels, and why its code resizes with ``align_corners``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Grid:
    """The positions of all maps of a backbone; ``stride`` is that of its last map, in pixels.

    Position i of a map of stride s lies on pixel s * i. After 2x2 pools it lies in the middle of
    its cell of s pixels instead, s * i + (s - 1) / 2; then ``from_first_pixel`` is false.

    Images are padded to sides of k * stride + 1 pixels, or of k * stride pixels after 2x2 pools.
    Then every map covers the whole image, and the sizes of two maps say how their positions lie.
    """

    stride: int
    from_first_pixel: bool = True

    def pad_side(self, side: int) -> int:
        """Compute the number of pixels to which a side is padded."""
        first = int(self.from_first_pixel)
        return -(-(side - first) // self.stride) * self.stride + first

    def pad(self, images: Tensor, value: float = 0.0) -> Tensor:
        """Pad (..., H, W) at the right and the bottom with ``value``, the mean colour by default.

        The images are normalised: their mean colour is zero.
        """
        return pad_to(images, [self.pad_side(side) for side in images.shape[-2:]], value)

    def resize_like(self, x: Tensor, reference: Tensor) -> Tensor:
        """Resize bilinearly, (N, C, h, w) -> (N, C, H, W), both maps of the same padded images."""
        return self.resize(x, reference.shape[-2:])

    def resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Resize bilinearly to ``size``, that of another map of the same padded images."""
        if x.shape[-2:] == tuple(size):
            return x
        corners = self.from_first_pixel
        return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=corners)

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Resize logits (N, C, h, w) to float32 (N, C, H, W) of the images, without their padding.

        ``size`` is that of the images before padding.
        """
        return cut(self.resize(logits.float(), [self.pad_side(side) for side in size]), size)


def sample(x: Tensor, step: Fraction, size: Sequence[int]) -> Tensor:
    """Sample maps (N, C, h, w) bilinearly at the positions 0, step, 2 * step, ... of both axes.

    ``size`` is the number of samples (H, W). Beyond the last position of a map, values are zero.
    """
    # A step of p / q takes m * p + 1 positions to m * q + 1, so that the ends of both coincide.
    periods = [-(-(side - 1) // step.denominator) for side in size]
    x = pad_to(x, [step.numerator * period + 1 for period in periods])
    ends = [step.denominator * period + 1 for period in periods]
    return cut(F.interpolate(x, size=ends, mode="bilinear", align_corners=True), size)


def pad_to(x: Tensor, size: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad (..., h, w) with ``value`` at the right and the bottom to (..., H, W), or cut it."""
    rows, columns = (after - before for before, after in zip(x.shape[-2:], size, strict=True))
    if not rows and not columns:
        return x
    return F.pad(x, (0, columns, 0, rows), value=value)


def cut(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return the upper left part of ``size`` (H, W), without a copy."""
    return x.narrow(-2, 0, size[0]).narrow(-1, 0, size[1])
