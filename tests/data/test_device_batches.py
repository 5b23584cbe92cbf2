"""Tests of batches made on a device, here the CPU, against Pillow's."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_splits import assert_same, random_split, split_of, training
from torch import Tensor
from torch.utils.data import DataLoader

from deeplab_bench.data import device_batches
from deeplab_bench.data.augmentation import Positions, draw
from deeplab_bench.data.batches import iterate_batches
from deeplab_bench.data.device_batches import DeviceBatches, copy_to_device, fits
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.settings.training import Training

CPU = torch.device("cpu")
GPU = torch.device("cuda")
MEAN_PIXEL = (124, 116, 104)


def device_batches_of(
    split: Split, settings: Training, first: int = 0, rank: int = 0, world_size: int = 1
) -> list[list[Tensor]]:
    positions = Positions(settings, first, rank, world_size)
    return [list(batch) for batch in DeviceBatches(split, settings, 0, positions, CPU)]


def pillow_batches_of(split: Split, settings: Training) -> list[list[Tensor]]:
    return [list(batch) for batch in iterate_batches(split, settings, 0)]


def noise(random: np.random.Generator, longest: int) -> Split:
    """Make four images of random sizes up to ``longest`` from noise, where errors show most."""
    sizes = random.integers(1, longest + 1, (4, 2)).tolist()
    return split_of(
        [
            (
                random.integers(0, 256, (h, w, 3), np.uint8),
                random.integers(0, 250, (h, w), np.uint8),
            )
            for h, w in sizes
        ]
    )


def resized_by_columns_first(image: Pixels, index: int, settings: Training) -> Pixels:
    """Resize by Pillow, first columns, then rows; pad with the mean of ImageNet."""
    _, crop = draw([image.shape[:2]], settings, 0, index)
    rows, columns = crop.rows, crop.columns
    across = Image.fromarray(image).resize(
        (columns.filled, image.shape[0]),
        Image.Resampling.BILINEAR,
        (columns.start, 0, columns.stop, image.shape[0]),
    )
    down = across.resize(
        (columns.filled, rows.filled),
        Image.Resampling.BILINEAR,
        (0, rows.start, columns.filled, rows.stop),
    )
    padded = np.full((*settings.crop_size, 3), MEAN_PIXEL, np.uint8)
    padded[: rows.filled, : columns.filled] = np.asarray(down)
    return padded[:, ::-1] if crop.mirrored else padded


@pytest.mark.parametrize(
    "scales", [(0.5, 2.0), (0.25, 0.5), (1.0, 1.0), (0.5, 0.5), (1.5, 1.5), (2.0, 5.0)]
)
@pytest.mark.parametrize("seed", range(8))
def test_crops_are_those_of_pillow(scales: tuple[float, float], seed: int) -> None:
    random = np.random.default_rng(seed)
    crop_size = tuple(random.integers(1, 120, 2).tolist())
    settings = training(
        iterations=3, crop_size=crop_size, random_scale=scales, horizontal_flip=True
    )
    split = noise(random, longest=90)
    made, expected = device_batches_of(split, settings), pillow_batches_of(split, settings)
    for (images, labels), (pillow_images, pillow_labels) in zip(made, expected, strict=True):
        assert torch.equal(labels, pillow_labels)
        assert (images.int() - pillow_images.int()).abs().max() <= 1


@pytest.mark.parametrize("scales", [(0.5, 2.0), (0.1, 0.3), (1.0, 1.0)])
def test_every_pixel_is_that_of_pillow_by_columns_first(scales: tuple[float, float]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    split = split_of([(image, np.zeros((61, 83), np.uint8))])
    settings = training(crop_size=(70, 58), random_scale=scales, horizontal_flip=True)
    images = torch.cat([images for images, _ in device_batches_of(split, settings)])
    for index, made in enumerate(images.permute(0, 2, 3, 1).numpy()):
        assert np.array_equal(made, resized_by_columns_first(image, index, settings))


@pytest.mark.parametrize("flip", [False, True])
def test_beyond_the_image_is_void_and_mean(flip: bool) -> None:
    image = np.full((20, 32, 3), (200, 50, 0), dtype=np.uint8)
    split = split_of([(image, np.full((20, 32), 3, dtype=np.uint8))])
    settings = training(crop_size=(24, 40), random_scale=(0.5, 0.5), horizontal_flip=flip)
    inside = torch.zeros(24, 40, dtype=torch.bool)
    inside[:10, :16] = True
    mirrored = 0
    for images, labels in device_batches_of(split, settings):
        for pixels, truth in zip(images, labels, strict=True):
            if truth[0, 0] == 255:
                mirrored += 1
                pixels, truth = pixels.flip(2), truth.flip(1)
            assert torch.equal(truth, torch.where(inside, 3, 255))
            assert pixels[:, inside].unique(dim=1).flatten().tolist() == [200, 50, 0]
            assert pixels[:, ~inside].unique(dim=1).flatten().tolist() == list(MEAN_PIXEL)
    assert (4 < mirrored < 20) == flip


def test_batches_have_the_stated_form() -> None:
    settings = training(crop_size=(10, 7), random_scale=(0.5, 2.0))
    batches = DeviceBatches(random_split(3), settings, 0, Positions(settings, 2, 0, 1), CPU)
    assert len(batches) == 4
    for images, labels in batches:
        assert (images.shape, images.dtype) == ((4, 3, 10, 7), torch.uint8)
        assert (labels.shape, labels.dtype) == ((4, 10, 7), torch.uint8)


@pytest.mark.parametrize("first", [1, 4, 6])
def test_continues_the_same_stream(first: int) -> None:
    settings = training(random_scale=(0.5, 2.0), horizontal_flip=True)
    split = random_split(5)
    continued = device_batches_of(split, settings, first)
    assert_same(continued, device_batches_of(split, settings)[first:])


@pytest.mark.parametrize("world_size", [2, 6])
def test_shares_of_several_processes_are_the_batch(world_size: int) -> None:
    split = noise(np.random.default_rng(0), longest=60)
    settings = training(
        batch_size=6, crop_size=(40, 50), random_scale=(0.3, 2.0), horizontal_flip=True
    )
    shares = [
        device_batches_of(split, settings, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    joined = [
        [torch.cat(parts) for parts in zip(*batch, strict=True)]
        for batch in zip(*shares, strict=True)
    ]
    assert_same(joined, device_batches_of(split, settings))


@pytest.mark.parametrize("piece", [1, 7, 100, 10**6])
def test_pixels_are_copied_piece_by_piece(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(150, dtype=np.uint8)
    pixels.flags.writeable = False
    monkeypatch.setattr(device_batches, "COPIED_BYTES", piece)
    assert torch.equal(copy_to_device(pixels, CPU), torch.arange(150, dtype=torch.uint8))


@pytest.mark.parametrize("room", [0, 1])
def test_a_gpu_makes_the_batches_where_they_fit(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    split, settings = random_split(3), training()
    pixels = 4 * sum(height * width for height, width in split.sizes)

    def memory(device: torch.device) -> tuple[int, int]:
        return 2 * (pixels - 1 + room), 10**12

    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    assert fits(split, GPU) == bool(room)
    batches: Any = iterate_batches(split, settings, 0, device=GPU, first_iteration=1)
    assert len(batches) == 5
    if room:
        assert isinstance(batches, DeviceBatches)
        assert batches.device == GPU
    else:
        assert isinstance(batches, DataLoader)
        assert batches.pin_memory
    assert isinstance(iterate_batches(split, settings, 0), DataLoader)
