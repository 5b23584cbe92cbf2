"""Training loss: cross-entropy over the valid pixels, optionally with class weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID
from deeplab_bench.models.grid import Grid
from deeplab_bench.runtime import distributed


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean cross-entropy over the valid pixels of a batch; zero if there are none.

    If several processes share a batch, the mean of their losses is the loss of the batch. This does
    not use ``F.cross_entropy`` because its gradient for images is not deterministic on a GPU.

    Args:
        logits: (N, C, H, W).
        labels: int64 (N, H, W); void is 255.
        weights: class weights (C,) of a weighted mean.
    """
    valid = labels != VOID
    index = labels.where(valid, 0)
    losses = -F.log_softmax(logits, dim=1).gather(1, index.unsqueeze(1)).squeeze(1)
    counted = valid.float() if weights is None else weights[index] * valid
    smallest = torch.finfo(counted.dtype).tiny
    return (losses * counted).sum() / distributed.all_reduce_mean(counted.sum()).clamp(min=smallest)


def subsample(labels: Tensor, size: Sequence[int], grid: Grid) -> Tensor:
    """Take the label of the pixel on which a position lies, int64 (N, H, W) -> (N, h, w).

    ``size`` is that of the map. As in Caffe's shrinking, these are the pixels 0, s, 2s, ... for a
    map of stride s; if a position lies between two pixels, it is the second. A position on the
    padding has a void label.
    """
    padded = grid.pad(labels, VOID)
    first = int(grid.from_first_pixel)
    steps = [
        max(1, (side - first) // max(1, cells - first))
        for side, cells in zip(padded.shape[-2:], size, strict=True)
    ]
    rows, columns = (slice(0 if first else step // 2, None, step) for step in steps)
    return padded[:, rows, columns][:, : size[0], : size[1]]


def compute_class_weights(split: Split, power: float) -> Tensor | None:
    """Compute weights by median frequency balancing (Eigen and Fergus, ICCV 2015).

    A weight is the median of all classes' frequencies divided by the class's frequency, raised to
    ``power``. The frequency is the class's share of the valid pixels of the images with this class.

    Returns:
        float32 (C,), zero for a class without pixels; None if ``power`` is 0.
    """
    if power == 0:
        return None
    shown = torch.zeros(2, len(split.classes), dtype=torch.float64)
    for index in tqdm(range(len(split)), desc="count classes", unit="image"):
        label = torch.from_numpy(np.array(split.label(index)))
        pixels = torch.bincount(label[label != VOID], minlength=len(split.classes))
        shown += torch.stack([pixels, (pixels > 0) * pixels.sum()])
    frequencies = (shown[0] / shown[1])[shown[1] > 0]
    weights = torch.zeros(len(split.classes))
    weights[shown[1] > 0] = ((frequencies.quantile(0.5) / frequencies) ** power).float()
    return weights
