"""Predictions of a trained network for the images of a split, at the images' own sizes."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.models.multi_scale import rescale, undo_rescale
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import pick_device, prepare_model
from deeplab_bench.settings.inference import Inference

# The pixels of a batch; on a CPU, no more than its caches hold.
BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**21}


def predict(
    model: Segmenter, split: Split, indices: Sequence[int], title: str, inference: Inference
) -> Iterator[tuple[int, Pixels]]:
    """Predict the class indices (H, W) of these images; yield (index of the image, prediction).

    Images of the same size share a batch, so the order is not that of ``indices``.
    """
    model = prepare_model(model)
    with tqdm(
        desc=title, total=len(indices), unit="image", disable=distributed.rank() > 0
    ) as progress:
        for batch in batch_by_size(split.sizes, indices, BATCH_PIXELS[pick_device().type]):
            images = np.stack([split.image(index) for index in batch])
            labels = pick_most_probable(compute_probabilities(model, images, inference))
            yield from zip(batch, labels, strict=True)
            progress.update(len(batch))


def batch_by_size(
    sizes: Sequence[tuple[int, int]], indices: Sequence[int], max_pixels: int
) -> Iterator[list[int]]:
    """Group images of the same size into batches of at most ``max_pixels``.

    An image with more pixels is a batch by itself.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        by_size.setdefault(sizes[index], []).append(index)
    for (height, width), alike in by_size.items():
        count = max(1, max_pixels // (height * width))
        yield from (alike[start : start + count] for start in range(0, len(alike), count))


def pick_most_probable(probabilities: Tensor) -> Pixels:
    """Pick the class of each pixel: indices (N, H, W) from probabilities (N, C, H, W)."""
    return probabilities.argmax(dim=1).to(torch.uint8).cpu().numpy()


def predict_probabilities(
    model: Segmenter, split: Split, indices: Sequence[int], title: str, inference: Inference
) -> Iterator[Tensor]:
    """Yield the class probabilities (C, H, W) of each image, in the order of ``indices``."""
    model = prepare_model(model)
    for index in tqdm(indices, desc=title, unit="image"):
        yield compute_probabilities(model, split.image(index)[None], inference)[0]


@torch.inference_mode()
def compute_probabilities(model: Segmenter, pixels: Pixels, inference: Inference) -> Tensor:
    """Average the class probabilities (N, C, H, W) over all scales and flips of the images.

    ``model`` comes from ``prepare_model``; ``pixels`` are images (N, H, W, 3) of values 0 to 255.
    """
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    images = model.colours.normalise(images.to(pick_device()))
    views = [
        (scale, flip)
        for scale in inference.scales
        for flip in ((False, True) if inference.flip else (False,))
    ]
    mean = compute_view_probabilities(model, images, *views[0])
    for view in views[1:]:
        mean += compute_view_probabilities(model, images, *view)
    return mean / len(views)


def compute_view_probabilities(
    model: nn.Module, images: Tensor, scale: float, flip: bool
) -> Tensor:
    """Compute class probabilities (N, C, H, W) from rescaled and perhaps mirrored images.

    ``images`` are normalised, (N, 3, H, W); the probabilities have their size and orientation.
    """
    seen = rescale(images, scale, antialias=True)
    logits = model(seen.flip(-1)).flip(-1) if flip else model(seen)
    return undo_rescale(logits, scale, like=images).softmax(dim=1)
