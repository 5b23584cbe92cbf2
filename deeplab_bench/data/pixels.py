"""Pixels of images and labels in memory, and label PNGs in Pascal VOC's colours."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.errors import UserError

VOID = 255

Pixels = NDArray[np.uint8]


class DataError(UserError):
    """A data set has missing or wrong files; the message names them and says what to do."""


def write_label(path: Path, label: Pixels) -> None:
    """Write class indices (H, W) as a palette PNG in Pascal VOC's colours."""
    path.write_bytes(encode_label(label))


def encode_label(label: Pixels) -> bytes:
    """Return class indices (H, W) as the bytes of a palette PNG in Pascal VOC's colours."""
    image = Image.fromarray(label)
    image.putpalette(build_voc_palette())
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def build_voc_palette() -> bytes:
    """Return Pascal VOC's colour map (VOClabelcolormap) as 256 RGB triples."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            for channel in range(3):
                palette[index, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return palette.tobytes()
