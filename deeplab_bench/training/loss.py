"""The loss of training: cross-entropy over the valid pixels, classes perhaps weighed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from deeplab_bench.data.packed import Split
from deeplab_bench.data.voc_layout import VOID
from deeplab_bench.runtime import distributed


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, the mean over the valid pixels of the batch; zero where there are none.

    Logits (N, C, H, W), labels int64 (N, H, W) with void 255, ``weights`` of the classes (C,) in
    the mean. Where several processes have a share of the batch each, the mean of their losses is
    that of the batch. Spelt out because on a GPU the gradient of torch's own is not deterministic
    for images.
    """
    valid = labels != VOID
    index = labels.where(valid, 0)
    losses = -F.log_softmax(logits, dim=1).gather(1, index.unsqueeze(1)).squeeze(1)
    counted = valid.float() if weights is None else weights[index] * valid
    smallest = torch.finfo(counted.dtype).tiny
    return (losses * counted).sum() / distributed.mean(counted.sum()).clamp(min=smallest)


def subsample(labels: Tensor, size: Sequence[int]) -> Tensor:
    """int64 (N, H, W) -> (N, h, w): the label under the centre of every cell."""
    rows, columns = (
        (2 * torch.arange(cells, device=labels.device) + 1) * side // (2 * cells)
        for side, cells in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def class_weights(split: Split, power: float) -> Tensor | None:
    """float32 (C,), zero for a class that no image shows; None for a power of 0.

    A class's frequency is its share of the valid pixels of those images that show it: median
    frequency balancing (Eigen and Fergus, ICCV 2015), to this power.
    """
    if power == 0:
        return None
    shown = torch.zeros(2, len(split.classes), dtype=torch.float64)
    for index in tqdm(range(len(split)), desc="weighing classes", unit="image"):
        label = torch.from_numpy(np.array(split.label(index)))
        pixels = torch.bincount(label[label != VOID], minlength=len(split.classes))
        shown += torch.stack([pixels, (pixels > 0) * pixels.sum()])
    frequencies = (shown[0] / shown[1])[shown[1] > 0]
    weights = torch.zeros(len(split.classes))
    weights[shown[1] > 0] = ((frequencies.quantile(0.5) / frequencies) ** power).float()
    return weights
