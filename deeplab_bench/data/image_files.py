"""Reading of image and label files, and the faults by which their pixels would be misread."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from deeplab_bench.data.pixels import DataError, Pixels

ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
DAMAGED = "replace the damaged files"
IMAGE_MODES = {"RGB", "RGBA", "L", "LA", "P", "PA", "1"}


class Fault(NamedTuple):
    """Why a file is not used: what to do with all such files, and what was found in this one."""

    remedy: str
    finding: str


def read_image(path: Path) -> Pixels:
    """Return the RGB image, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_photograph(source: Path | Image.Image) -> Pixels:
    """Return an image for prediction, RGB uint8 (H, W, 3): upright, its colours in sRGB.

    Raises:
        DataError: it is damaged, very large, or no image; or it has 16 bits a channel or
            transparent pixels, or a colour profile that cannot be used.
        FileNotFoundError: it does not exist.
    """
    if isinstance(source, Path):
        with _opened(source) as image:
            if isinstance(image, Fault):
                why = "it is damaged or no image" if image.remedy == DAMAGED else image.remedy
                raise DataError(f"{source} cannot be read: {why}")
            if _read_png_depth(source) == 16:
                raise DataError(f"{source} has 16 bits a channel: save it with 8")
            return _convert_photograph(image, str(source))
    return _convert_photograph(source, "the image")


def _convert_photograph(image: Image.Image, name: str) -> Pixels:
    if image.mode not in (*IMAGE_MODES, "CMYK", "YCbCr"):
        raise DataError(f"{name} has the mode {image.mode}: convert it to RGB of 8 bits a channel")
    if _has_transparent_pixels(image):
        raise DataError(f"{name} has transparent pixels: put a background behind them")
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    if profile and _describe_profile(image):
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            plain = upright if upright.mode == "CMYK" else upright.convert("RGB")
            converted = ImageCms.profileToProfile(plain, given, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError) as error:
            raise DataError(
                f"{name} has a colour profile that cannot be used ({error}): remove it, if the "
                "colours look right without it"
            ) from error
        return np.asarray(converted)
    return np.asarray(upright.convert("RGB"))


def read_label(path: Path) -> Pixels:
    """Return the class indices, uint8 (H, W); the palette's colours are ignored.

    Raises:
        DataError: the file is no PNG that holds class indices as they are.
        FileNotFoundError: it does not exist.
    """
    fault = find_label_fault(path)
    if fault:
        raise DataError(f"{fault.finding}: {fault.remedy}")
    return decode_label(path)


def decode_label(path: Path) -> Pixels:
    """Return the values of a label in which ``find_label_fault`` has found nothing."""
    with Image.open(path) as image:
        return np.asarray(image)


def find_image_fault(path: Path) -> Fault | None:
    """Find the first reason for which the pixels of an image are not, or may not be, what we read.

    Refused are files that are damaged or very large, of another format than JPEG or PNG, of 16 bits
    a channel, in CMYK, with transparent pixels, with a colour profile other than sRGB, with several
    frames, or that are to be turned before they are shown.
    """
    with _opened(path) as image:
        if isinstance(image, Fault):
            return image
        if image.format not in ("JPEG", "PNG"):
            return Fault("save images as JPEG or PNG", f"{path} is {image.format}")
        if _read_png_depth(path) == 16:
            return Fault("save images with 8 bits a channel", f"{path} has 16")
        if image.mode not in IMAGE_MODES:
            return Fault("save images in RGB or grey", f"{path} is {image.mode}")
        if fault := _find_fault_of_any_kind(path, image):
            return fault
        if profile := _describe_profile(image):
            return Fault("convert images to sRGB", f"{path} has the colour profile {profile}")
        if _has_transparent_pixels(image):
            return Fault("save images without transparent pixels", f"{path} has some")
    return None


def find_label_fault(path: Path) -> Fault | None:
    """Find the first reason for which a label does not hold class indices as they are."""
    with _opened(path) as image:
        if isinstance(image, Fault):
            return image
        if image.format != "PNG":
            return Fault("save labels as PNG", f"{path} is {image.format}")
        if image.mode not in ("P", "L"):
            return Fault(
                "save labels as palette or grey PNGs of class indices",
                f"{path} is a {image.mode} image",
            )
        depth = _read_png_depth(path)
        if image.mode == "L" and depth != 8:  # its values would be scaled
            return Fault("save grey labels with 8 bits", f"{path} has {depth}")
        return _find_fault_of_any_kind(path, image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | Fault]:
    """Open and decode an image. If this fails, the value is the fault."""
    try:
        image = Image.open(path)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        yield Fault(f"cut images of more than {limit} pixels into parts", str(path))
        return
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError):
        yield Fault(DAMAGED, str(path))
        return
    with image:
        try:
            image.load()
        except (OSError, SyntaxError):
            yield Fault(DAMAGED, str(path))
            return
        yield image


def _find_fault_of_any_kind(path: Path, image: Image.Image) -> Fault | None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        return Fault("save one frame alone", f"{path} has {frames}")
    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation != 1:
        return Fault(
            "turn images as their labels are and save them without EXIF orientation",
            f"{path} has orientation {orientation}",
        )
    return None


def _has_transparent_pixels(image: Image.Image) -> bool:
    if "A" not in image.mode and "transparency" not in image.info:
        return False
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())


def _read_png_depth(path: Path) -> int | None:
    """Read the bits a channel from the header of a PNG; None for other files."""
    with path.open("rb") as file:
        header = file.read(25)
    return header[24] if header.startswith(b"\x89PNG\r\n\x1a\n") else None


def _describe_profile(image: Image.Image) -> str | None:
    """Describe the colour profile of an image, unless it has none or that of sRGB."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode in ("L", "LA", "1"):
        return None
    try:
        described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return "that cannot be read"
    return None if "srgb" in described.lower() else described.strip()
