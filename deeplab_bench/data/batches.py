"""Training batches, made by processes on the CPU or by the GPU itself."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplab_bench.data.augmentation import Positions, augment, draw
from deeplab_bench.data.device_batches import DeviceBatches, fits
from deeplab_bench.data.packed import Split
from deeplab_bench.errors import UserError
from deeplab_bench.settings.training import Training

CPU = torch.device("cpu")


class BatchError(UserError):
    """Batches cannot be made with these settings; the message names the setting."""


def iterate_batches(
    split: Split,
    training: Training,
    seed: int,
    *,
    device: torch.device = CPU,
    first_iteration: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[tuple[Tensor, Tensor]] | DeviceBatches:
    """Return the batches of every iteration from ``first_iteration`` on.

    Images are uint8 (N, 3, H, W), labels uint8 (N, H, W), both of ``crop_size``. Every batch is
    full: a batch may end one epoch and begin the next. A batch depends only on the seed and its
    iteration, not on the number of workers. With several processes, each gets an equal part of
    every batch; the parts in the order of ``rank`` are the whole batch.

    If the data set fits in GPU memory, the GPU makes the crops. Pixels differ from Pillow's by at
    most one grey level. Otherwise ``workers`` processes make the batches, and they stay on the CPU.

    Raises:
        BatchError: the batch size is not a multiple of the number of processes.
    """
    if training.batch_size % world_size:
        raise BatchError(
            f"training.batch_size {training.batch_size} cannot be shared by {world_size} "
            "processes: make it a multiple of their number"
        )
    positions = Positions(training, first_iteration, rank, world_size)
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


@dataclass(frozen=True)
class Crops(Dataset[tuple[Tensor, Tensor]]):
    """The augmented crops of a split by their position in the stream (see ``augmentation``)."""

    split: Split
    training: Training
    seed: int

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        index, crop = draw(self.split.sizes, self.training, self.seed, position)
        image, label = augment(
            self.split.image(index), self.split.label(index), crop, self.training.crop_size
        )
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(label)
