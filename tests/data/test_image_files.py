"""Tests of files whose pixels are not what they seem: each is read rightly or refused by name."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from deeplab_bench.data.image_files import (
    find_image_fault,
    find_label_fault,
    read_image,
    read_label,
    read_photograph,
)
from deeplab_bench.data.pixels import DataError

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
LABEL = np.array([[0, 1, 2], [255, 2, 0]], dtype=np.uint8)


def write_png(path: Path, depth: int, colour_type: int, rows: list[bytes], width: int) -> None:
    """Write a PNG by hand, since Pillow cannot write all depths."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*pair) for pair in chunks))


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def colour_profile(name: str) -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(name))  # type: ignore[arg-type]
    return profile.tobytes()


def profile_of_bgr() -> bytes:
    """Return the profile of sRGB with the colours of its first and last channel exchanged."""
    profile = colour_profile("sRGB")
    red, blue = (profile.index(name) for name in (b"rXYZ", b"bXYZ"))
    swapped = bytearray(profile)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(swapped).replace("sRGB".encode("utf-16-be"), "sBGR".encode("utf-16-be"))


class TestImages:
    @pytest.mark.parametrize(
        ("mode", "save"),
        [
            ("RGB", {}),
            ("RGB", {"exif": with_orientation(1)}),
            ("RGB", {"icc_profile": colour_profile("sRGB")}),
            ("RGBA", {}),  # all pixels are opaque
        ],
    )
    def test_read_as_they_are(self, mode: str, save: dict[str, Any], tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        Image.fromarray(RGB).convert(mode).save(path, **save)
        assert find_image_fault(path) is None
        assert np.array_equal(read_image(path), RGB)

    @pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
    def test_grey_and_palette(self, mode: str, tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        Image.fromarray(RGB).convert(mode).save(path)
        assert find_image_fault(path) is None
        with Image.open(path) as image:
            assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))

    def test_grey_of_four_bits_is_scaled_rightly(self, tmp_path: Path) -> None:
        write_png(tmp_path / "x.png", 4, 0, [bytes([0x0F, 0x80])], width=4)
        assert find_image_fault(tmp_path / "x.png") is None
        assert read_image(tmp_path / "x.png")[0, :, 0].tolist() == [0, 255, 136, 0]

    @pytest.mark.parametrize("colour_type", [0, 2])
    def test_sixteen_bits(self, colour_type: int, tmp_path: Path) -> None:
        """Pillow clips grey ones to white and takes the upper 8 bits of colours."""
        row = struct.pack(">H", 46 * 16) * (3 if colour_type == 2 else 1)
        write_png(tmp_path / "x.png", 16, colour_type, [row], width=1)
        fault = find_image_fault(tmp_path / "x.png")
        assert fault == ("save images with 8 bits a channel", f"{tmp_path / 'x.png'} has 16")

    @pytest.mark.parametrize("orientation", [2, 3, 6, 8])
    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    def test_orientation(self, orientation: int, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(RGB).save(path, exif=with_orientation(orientation))
        fault = find_image_fault(path)
        assert fault is not None
        assert fault.remedy.endswith("save them without EXIF orientation")
        assert fault.finding == f"{path} has orientation {orientation}"

    def test_transparent_pixels(self, tmp_path: Path) -> None:
        alpha = np.full(RGB.shape[:2], 255, dtype=np.uint8)
        alpha[2, 3] = 254
        path = tmp_path / "x.png"
        Image.fromarray(np.dstack([RGB, alpha])).save(path)
        assert find_image_fault(path) == (
            "save images without transparent pixels",
            f"{path} has some",
        )

    def test_transparent_colour(self, tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        Image.fromarray(RGB).save(path, transparency=tuple(RGB[1, 2].tolist()))
        fault = find_image_fault(path)
        assert fault is not None and "transparent" in fault.remedy

    @pytest.mark.parametrize("profile", [colour_profile("XYZ"), b"no profile"])
    def test_colour_profile(self, profile: bytes, tmp_path: Path) -> None:
        path = tmp_path / "x.jpg"
        Image.fromarray(RGB).save(path, icc_profile=profile)
        fault = find_image_fault(path)
        assert fault is not None and fault.remedy == "convert images to sRGB"

    @pytest.mark.parametrize(
        ("mode", "suffix", "kind", "finding"),
        [
            ("CMYK", "jpg", "JPEG", "is CMYK"),
            ("RGB", "png", "GIF", "is GIF"),
            ("RGB", "jpg", "TIFF", "is TIFF"),
            ("RGB", "png", "WEBP", "is WEBP"),
        ],
    )
    def test_other_kinds(
        self, mode: str, suffix: str, kind: str, finding: str, tmp_path: Path
    ) -> None:
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(RGB).convert(mode).save(path, kind)
        fault = find_image_fault(path)
        assert fault is not None and fault.finding == f"{path} {finding}"

    def test_several_frames(self, tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert find_image_fault(path) == ("save one frame alone", f"{path} has 2")

    def test_very_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "x.png"
        Image.fromarray(RGB).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)
        fault = find_image_fault(path)
        assert fault == ("cut images of more than 22 pixels into parts", str(path))

    @pytest.mark.parametrize("left", [0, 20, 60])
    def test_damaged(self, left: int, tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        Image.fromarray(RGB).save(path)
        path.write_bytes(path.read_bytes()[:left])
        assert find_image_fault(path) == ("replace the damaged files", str(path))


class TestLabels:
    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_palettes_of_any_depth_are_read_as_indices(self, depth: int, tmp_path: Path) -> None:
        label = (LABEL.astype(int) % 2**depth).astype(np.uint8)
        image = Image.fromarray(label)
        image.putpalette(bytes(range(48)) * 16)
        image.save(tmp_path / "x.png", bits=depth)
        assert (tmp_path / "x.png").read_bytes()[24] == depth
        assert find_label_fault(tmp_path / "x.png") is None
        assert np.array_equal(read_label(tmp_path / "x.png"), label)

    @pytest.mark.parametrize("depth", [2, 4])
    def test_grey_of_few_bits_is_refused(self, depth: int, tmp_path: Path) -> None:
        """Pillow would read the class 1 as 85 or 17."""
        path = tmp_path / "x.png"
        write_png(path, depth, 0, [bytes([0b01010101])], width=2)
        with Image.open(path) as image:
            assert np.asarray(image).max() > 2
        with pytest.raises(DataError, match=rf"x\.png has {depth}: save grey labels with 8 bits"):
            read_label(path)

    def test_jpeg_with_the_name_of_a_png(self, tmp_path: Path) -> None:
        Image.fromarray(LABEL).save(tmp_path / "x.png", "JPEG")
        with pytest.raises(DataError, match=r"x\.png is JPEG: save labels as PNG"):
            read_label(tmp_path / "x.png")

    def test_turned(self, tmp_path: Path) -> None:
        Image.fromarray(LABEL).save(tmp_path / "x.png", exif=with_orientation(3))
        with pytest.raises(DataError, match="orientation 3"):
            read_label(tmp_path / "x.png")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_label(tmp_path / "x.png")


class TestPhotographs:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_turned_upright(self, orientation: int, tmp_path: Path) -> None:
        """Check against a camera that was turned: the file has the turned pixels."""
        turned = {
            1: RGB,
            2: RGB[:, ::-1],
            3: RGB[::-1, ::-1],
            4: RGB[::-1],
            5: RGB.transpose(1, 0, 2),
            6: np.rot90(RGB),
            7: np.rot90(RGB, 2).transpose(1, 0, 2),
            8: np.rot90(RGB, 3),
        }[orientation]
        path = tmp_path / "x.png"
        Image.fromarray(np.ascontiguousarray(turned)).save(path, exif=with_orientation(orientation))
        assert np.array_equal(read_photograph(path), RGB)
        with Image.open(path) as image:
            assert np.array_equal(read_photograph(image), RGB)

    def test_colours_are_converted_to_srgb(self, tmp_path: Path) -> None:
        """Check white, whose three values are the same in LAB's profile and in sRGB."""
        Image.new("CMYK", (2, 2), (0, 0, 0, 0)).save(tmp_path / "x.jpg")
        assert read_photograph(tmp_path / "x.jpg").min() > 250

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
    def test_the_colour_profile_counts(self, mode: str, tmp_path: Path) -> None:
        """Check a profile whose first channel is blue and whose last is red."""
        path = tmp_path / "x.png"
        Image.fromarray(RGB).convert(mode).save(path, icc_profile=profile_of_bgr())
        with Image.open(path) as image:
            stored = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(read_photograph(path) - stored[..., ::-1]).max() <= 1

    @pytest.mark.parametrize("profile", [colour_profile("XYZ"), b"no profile"])
    def test_a_profile_that_cannot_be_used_is_refused(self, profile: bytes, tmp_path: Path) -> None:
        path = tmp_path / "x.jpg"
        Image.fromarray(RGB).save(path, icc_profile=profile)
        with pytest.raises(DataError, match=r"x.jpg has a colour profile that cannot be used"):
            read_photograph(path)

    @pytest.mark.parametrize(
        ("mode", "said"),
        [("I;16", "has 16 bits a channel"), ("RGBA", "has transparent pixels"), ("F", "mode F")],
    )
    def test_refusal(self, mode: str, said: str, tmp_path: Path) -> None:
        if mode == "F":
            with pytest.raises(DataError, match=said):
                read_photograph(Image.new("F", (2, 2)))
            return
        path = tmp_path / "x.png"
        Image.new(mode, (2, 2)).save(path)
        with pytest.raises(DataError, match=f"x.png {said}"):
            read_photograph(path)
