"""Training batches: random scale, crop and flip, the same whatever process makes them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplab_bench.data.augmentation import MEAN, STD, Positions, augment, draw
from deeplab_bench.data.device_batches import DeviceBatches, fits
from deeplab_bench.data.packed import Split
from deeplab_bench.errors import UserError
from deeplab_bench.settings.training import Training

CPU = torch.device("cpu")


class BatchError(UserError):
    """Batches cannot be made as asked; the message names the setting."""


def training_batches(
    split: Split,
    training: Training,
    seed: int,
    *,
    device: torch.device = CPU,
    first_iteration: int = 0,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader[tuple[Tensor, Tensor]] | DeviceBatches:
    """Batches of every iteration from ``first_iteration`` on.

    Images uint8 (N, 3, H, W), labels uint8 (N, H, W) at ``crop_size``. Epochs follow each other
    without a gap, so every batch is full. A batch depends on the seed and its iteration alone, not
    on the number of workers. Process ``rank`` of several gets its share of every batch: one after
    the other, the shares are the batch.

    A GPU that has room for the split's pixels makes the batches itself; otherwise they are made by
    ``workers`` on the CPU, and left there.

    Raises:
        BatchError: the processes cannot share a batch evenly.
    """
    if training.batch_size % processes:
        raise BatchError(
            f"training.batch_size {training.batch_size} cannot be shared by {processes} processes: "
            "make it a multiple of their number"
        )
    positions = Positions(training, first_iteration, rank, processes)
    on_gpu = device.type == "cuda"
    if on_gpu and fits(split, device):
        return DeviceBatches(split, training, seed, positions, device)
    return DataLoader(
        Crops(split, training, seed),
        batch_sampler=positions,
        num_workers=workers,
        pin_memory=on_gpu,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
    )


def normalise(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float32 of zero mean and unit variance, channels last in memory."""
    # Filled in where they are needed: a copy from the host would have a GPU waited for.
    mean, std = (
        torch.stack([torch.full((1, 1), 255 * value, device=images.device) for value in values])
        for values in (MEAN, STD)
    )
    scaled = (images.float() - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Augmented crops by their position in the endless stream of shuffled epochs."""

    split: Split
    training: Training
    seed: int

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        index, crop = draw(self.split.sizes, self.training, self.seed, position)
        image, label = augment(
            self.split.image(index), self.split.label(index), crop, self.training.crop_size
        )
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(label)
