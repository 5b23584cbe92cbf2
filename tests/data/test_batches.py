from typing import Any

import numpy as np
import pytest
import torch
from small_splits import assert_same, random_split, split_of, training
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from deeplab_bench.colours import IMAGENET
from deeplab_bench.data import augmentation
from deeplab_bench.data.augmentation import compute_window, draw_crop, draw_order
from deeplab_bench.data.batches import BatchError, iterate_batches
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.settings.training import Training

MEAN_PIXEL = (124, 116, 104)  # ImageNet's mean of 0.485, 0.456 and 0.406, times 255
BLOCK = 5


def numbered(count: int, height: int = 8, width: int = 6) -> Split:
    """Make images whose pixels are 10 i and whose labels are i, where i is the index."""
    return split_of(
        [
            (np.full((height, width, 3), 10 * i, np.uint8), np.full((height, width), i, np.uint8))
            for i in range(count)
        ]
    )


def located(height: int, width: int) -> tuple[Pixels, Pixels]:
    """Make an image with red = 4 row and green = 4 column, and a label in blocks."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([4 * y, 4 * x, np.full_like(x, 9)], axis=2).astype(np.uint8)
    return image, blocks(y, x).astype(np.uint8)


def blocks(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (y // BLOCK * 7 + x // BLOCK * 3) % 20


def augment(
    image: Pixels, label: Pixels, settings: Training, random: np.random.Generator
) -> tuple[Pixels, Pixels]:
    height, width = label.shape
    crop = draw_crop((height, width), settings, random)
    return augmentation.augment(image, label, crop, settings.crop_size)


def batches_of(split: Split, settings: Training, seed: int = 0, **more: Any) -> list[list[Tensor]]:
    return [list(batch) for batch in iterate_batches(split, settings, seed, **more)]


def random_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_augmentation_nothing_changes() -> None:
    image, label = located(20, 14)
    for seed in range(5):
        crop, truth = augment(image, label, training(crop_size=(20, 14)), random_of(seed))
        assert np.array_equal(crop, image)
        assert np.array_equal(truth, label)


def test_a_crop_is_cut_out_at_every_place() -> None:
    image, label = located(12, 11)
    places = set()
    for seed in range(300):
        crop, truth = augment(image, label, training(crop_size=(8, 8)), random_of(seed))
        top, left = crop[0, 0, :2] // 4
        assert np.array_equal(crop, image[top : top + 8, left : left + 8])
        assert np.array_equal(truth, label[top : top + 8, left : left + 8])
        places.add((int(top), int(left)))
    assert places == {(top, left) for top in range(5) for left in range(4)}


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("flip", [False, True])
def test_beyond_the_image_is_void_and_mean(scale: float, flip: bool) -> None:
    image = np.full((20, 32, 3), (200, 50, 0), dtype=np.uint8)
    label = np.full((20, 32), 3, dtype=np.uint8)
    rows, columns = round(20 * scale), round(32 * scale)
    settings = training(crop_size=(24, 40), random_scale=(scale, scale), horizontal_flip=flip)
    for seed in range(4):
        crop, truth = augment(image, label, settings, random_of(seed))
        if truth[0, 0] == 255:
            assert flip
            crop, truth = crop[:, ::-1], truth[:, ::-1]
        inside = np.zeros((24, 40), dtype=bool)
        inside[:rows, :columns] = True
        assert (truth[inside] == 3).all() and (truth[~inside] == 255).all()
        assert (crop[inside] == (200, 50, 0)).all() and (crop[~inside] == MEAN_PIXEL).all()


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("crop_size", [(32, 24), (48, 80)])
def test_image_and_label_stay_aligned(scale: float, crop_size: tuple[int, int]) -> None:
    image, label = located(40, 60)
    settings = training(crop_size=crop_size, random_scale=(scale, scale), horizontal_flip=True)
    mirrored = set()
    for seed in range(12):
        crop, truth = augment(image, label, settings, random_of(seed))
        filled = truth != 255
        rows, columns = filled.any(axis=1).sum(), filled.any(axis=0).sum()
        assert (rows, columns) == (
            min(crop_size[0], round(40 * scale)), min(crop_size[1], round(60 * scale))
        )  # fmt: skip
        shown = crop[filled].reshape(rows, columns, 3)[2:-2, 2:-2]
        y, x = np.moveaxis(shown[..., :2] / 4, 2, 0)
        assert np.diff(y, axis=0).mean() == pytest.approx(1 / scale, rel=0.05)
        assert abs(np.diff(x, axis=1).mean()) == pytest.approx(1 / scale, rel=0.05)
        mirrored.add(bool(x[0, 0] > x[0, -1]))
        # Near the middle between two pixels, either may be the nearest.
        near = [
            blocks(np.rint(y + down).astype(int), np.rint(x + right).astype(int))
            for down in (-0.3, 0.3)
            for right in (-0.3, 0.3)
        ]
        inner = truth[filled].reshape(rows, columns)[2:-2, 2:-2]
        assert (inner == near).any(axis=0).all()
    assert mirrored == {False, True}


def test_labels_are_never_blended() -> None:
    image, _ = located(30, 30)
    label = np.where(np.indices((30, 30)).sum(axis=0) % 2, 200, 10).astype(np.uint8)
    for seed in range(10):
        settings = training(crop_size=(24, 24), random_scale=(0.5, 2.0))
        _, truth = augment(image, label, settings, random_of(seed))
        assert set(np.unique(truth)) <= {10, 200, 255}


def test_half_are_mirrored() -> None:
    image, label = located(2, 4)
    settings = training(crop_size=(2, 4), horizontal_flip=True)
    crops = [augment(image, label, settings, random_of(seed)) for seed in range(1000)]
    mirrored = sum(int(crop[0, 0, 1] > crop[0, 3, 1]) for crop, _ in crops)
    assert 460 < mirrored < 540


def test_scales_lie_in_their_range() -> None:
    label = np.ones((40, 40), dtype=np.uint8)
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    settings = training(crop_size=(80, 90), random_scale=(0.5, 2.0))
    scales = []
    for seed in range(200):
        _, truth = augment(image, label, settings, random_of(seed))
        rows, columns = (truth == 1).any(axis=1).sum(), (truth == 1).any(axis=0).sum()
        assert rows == columns
        scales.append(rows / 40)
    assert 0.5 <= min(scales) < 0.6
    assert 1.9 < max(scales) <= 2.0
    assert np.mean(scales) == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize("side", [1, 2, 7, 100, 481])
@pytest.mark.parametrize("crop", [1, 7, 64, 512])
@pytest.mark.parametrize("scale", [0.01, 0.5, 0.77, 1.0, 1.5, 2.0])
def test_window(side: int, crop: int, scale: float) -> None:
    scaled = max(1, round(side * scale))
    places = scaled - min(crop, scaled) + 1
    starts = []
    for place in (np.arange(places) + 0.5) / places:
        filled, start, stop = compute_window(side, crop, scale, float(place))
        assert filled == min(crop, scaled)
        assert 0 <= start < stop <= side
        assert (stop - start) * scaled == pytest.approx(filled * side)
        starts.append(start * scaled / side)
    assert starts == pytest.approx(range(places), abs=1e-6)
    assert compute_window(side, crop, scale, 0.0).start == 0
    assert compute_window(side, crop, scale, 1 - 2**-53).stop == side


def test_batches_have_the_stated_form() -> None:
    settings = training(crop_size=(10, 7), random_scale=(0.5, 2.0), horizontal_flip=True)
    loader = iterate_batches(random_split(3), settings, 0)
    assert len(loader) == 6
    for images, labels in batches_of(random_split(3), settings):
        assert (images.shape, images.dtype) == ((4, 3, 10, 7), torch.uint8)
        assert (labels.shape, labels.dtype) == ((4, 10, 7), torch.uint8)
        assert ((labels < 5) | (labels == 255)).all()


def test_channels_are_red_green_blue() -> None:
    image = np.broadcast_to(np.array((1, 2, 3), dtype=np.uint8), (8, 6, 3))
    [(images, _), *_] = batches_of(split_of([(image, np.zeros((8, 6), np.uint8))]), training())
    assert images[0].flatten(1).unique(dim=1).tolist() == [[1], [2], [3]]


# The first depends on the number of cores, the second on the version of Python.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    split = random_split(5)
    settings = training(random_scale=(0.5, 2.0), horizontal_flip=True)
    assert_same(batches_of(split, settings, workers=workers), batches_of(split, settings))


@pytest.mark.parametrize("first", [0, 1, 4, 6])
def test_continues_the_same_stream(first: int) -> None:
    split = random_split(5)
    settings = training(random_scale=(0.5, 2.0), horizontal_flip=True)
    assert len(iterate_batches(split, settings, 0, first_iteration=first)) == 6 - first
    continued = batches_of(split, settings, first_iteration=first)
    assert_same(continued, batches_of(split, settings)[first:])


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_shares_of_several_processes_are_the_batch(world_size: int) -> None:
    split = random_split(5)
    settings = training(batch_size=6, random_scale=(0.5, 2.0), horizontal_flip=True)
    shares = [
        batches_of(split, settings, first_iteration=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    joined = [
        [torch.cat(parts) for parts in zip(*batch, strict=True)]
        for batch in zip(*shares, strict=True)
    ]
    assert_same(joined, batches_of(split, settings, first_iteration=2))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(
        BatchError, match=r"^training\.batch_size 4 .* 3 processes: make it [^\n]*$"
    ):
        iterate_batches(random_split(2), training(batch_size=4), 0, world_size=3)


def test_an_order_is_drawn_once_an_epoch() -> None:
    draw_order.cache_clear()
    batches_of(numbered(6), training(iterations=4, batch_size=4))
    assert draw_order.cache_info().misses == 3


@pytest.mark.parametrize("images", [1, 3, 6, 11])
def test_every_image_once_an_epoch(images: int) -> None:
    settings = training(iterations=11, batch_size=3)
    drawn = []
    for pixels, labels in batches_of(numbered(images), settings):
        assert torch.equal(pixels, 10 * labels[:, None].expand_as(pixels))
        drawn += labels[:, 0, 0].tolist()
    assert len(drawn) == 33
    epochs = [drawn[start : start + images] for start in range(0, 33 - images + 1, images)]
    assert all(sorted(epoch) == list(range(images)) for epoch in epochs)
    if images > 3:
        assert len({tuple(epoch) for epoch in epochs}) > 1
        assert list(range(images)) not in epochs


def test_seeds_differ() -> None:
    def order(seed: int) -> list[int]:
        settings = training(iterations=4, batch_size=3)
        batches = batches_of(numbered(12), settings, seed)
        return [int(label[0, 0]) for _, labels in batches for label in labels]

    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in range(4)}) == 4
    image = [located(30, 30)]
    crops = [batches_of(split_of(image), training(iterations=1), seed)[0][0] for seed in range(3)]
    assert not any(torch.equal(crops[i], crops[i - 1]) for i in range(3))


def test_fewer_images_than_a_batch() -> None:
    batches = batches_of(numbered(2), training(batch_size=5, iterations=4))
    drawn = torch.cat([labels[:, 0, 0] for _, labels in batches])
    assert [len(labels) for _, labels in batches] == [5] * 4
    assert drawn.bincount().tolist() == [10, 10]


def test_no_two_positions_are_augmented_alike() -> None:
    settings = training(batch_size=6, iterations=1, random_scale=(0.5, 2.0))
    [(images, _)] = batches_of(split_of([located(40, 40)] * 6), settings)
    assert len(images.flatten(1).unique(dim=0)) == 6


def test_normalise() -> None:
    images = torch.arange(2 * 3 * 16 * 8).mul(37).remainder(256).to(torch.uint8).view(2, 3, 16, 8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = transforms.normalize(images / 255, mean, std)
    normalised = IMAGENET.normalise(images)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normalised, expected)


def test_padding_is_about_zero_to_the_model() -> None:
    image, label = located(4, 4)
    crop, truth = augment(image, label, training(crop_size=(6, 6)), random_of(0))
    [normalised] = IMAGENET.normalise(torch.from_numpy(crop).permute(2, 0, 1)[None])
    assert normalised[:, torch.from_numpy(truth == 255)].abs().max() < 0.01
