"""The effective receptive field: the pixels that influence an output (Luo et al., NIPS 2016).

The method is that of the paper. It computes the gradient of an output in the middle of the image
with respect to the image, and averages the absolute gradient over images. A pixel belongs to the
field if its gradient is more than 1 - 95.45 % of the largest gradient. The size of the field is the
square root of the number of its pixels. The paper compares with the gradient at the centre instead
of the largest. We do not, because strides can leave a grid in the gradient, which makes the centre
an outlier.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_bench.analysis.receptive_field import compute_theoretical_field, find_seen_pixels
from deeplab_bench.colours import Colours
from deeplab_bench.data.packed import Split, pick_evenly
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.measures.measure import round_fraction
from deeplab_bench.models import build_model
from deeplab_bench.runtime.device import make_deterministic, pick_device, prepare_model
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.training.train import build_initial_model, rebuild

IMAGES = 32
BATCH_SIZE = 8
THRESHOLD = 1 - 0.9545

Map = NDArray[np.float64]


def measure_field(
    experiment: Experiment, seed: int, split: Split, checkpoint: Checkpoint, maps: Path
) -> dict[str, Any]:
    """Measure a model's theoretical field, and its effective field before and after training.

    The result is ready for JSON. The two gradient maps are written to the picture ``maps``, side by
    side. The brightest grey of each map is its largest gradient.

    Raises:
        ReceptiveFieldError: the network calls an operation whose receptive field is not known.
    """
    make_deterministic(seed)
    untrained = build_initial_model(experiment, split.classes)
    images = choose_images(split, IMAGES, untrained.colours)
    arguments = experiment.phases[-1].arguments
    before, after = (
        compute_gradient_map(model, images)
        for model in (
            rebuild(untrained, experiment.architecture, arguments, split.classes),
            checkpoint.build_model(),
        )
    )
    maps.parent.mkdir(parents=True, exist_ok=True)
    both = np.concatenate([convert_to_greys(before), convert_to_greys(after)], axis=1)
    Image.fromarray(both).save(maps, optimize=True)
    height, width = images.shape[-2:]
    return {
        "architecture": experiment.architecture,
        "image_size": [height, width],
        "images": len(images),
        "theoretical": describe_theory(experiment, height, width),
        "effective": {
            "threshold": round(THRESHOLD, 6),
            "before": describe_effective(before),
            "after": describe_effective(after),
        },
    }


def describe_theory(experiment: Experiment, height: int, width: int) -> dict[str, Any]:
    """Compute the theoretical field of the output map and of the middle logit of an image."""
    with torch.device("meta"):
        arguments = experiment.phases[-1].arguments
        model = build_model(experiment.architecture, arguments, num_classes=1).eval()
    field, seen = compute_theoretical_field(model.logits), find_seen_pixels(model, height, width)
    spans = [(seen.rows, height // 2), (seen.columns, width // 2)]
    first = [int(span.first[middle]) for span, middle in spans]
    last = [int(span.last[middle]) for span, middle in spans]
    area = np.prod(np.subtract(last, first) + 1)
    return {
        "size_px": field.size,
        "stride_px": field.stride,
        "padding_px": field.padding,
        "centre_px": field.centre,
        "first_pixel": first,
        "last_pixel": last,
        "share": round_fraction(area / (height * width)),
    }


def choose_images(split: Split, count: int, colours: Colours) -> Tensor:
    """Choose ``count`` images at even distances in the split; return them normalised (N, 3, H, W).

    H and W are the largest of the split. Smaller images are centred and padded with the mean, which
    is zero after normalisation.
    """
    height, width = (max(sides) for sides in zip(*split.sizes, strict=True))
    chosen = pick_evenly(count, len(split))
    return torch.cat([centre_image(split.image(i), height, width, colours) for i in chosen])


def centre_image(image: NDArray[np.uint8], height: int, width: int, colours: Colours) -> Tensor:
    """Put an RGB image (h, w, 3) in the centre of (1, 3, height, width); pad with the mean."""
    x = colours.normalise(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
    top, left = height // 2 - x.shape[-2] // 2, width // 2 - x.shape[-1] // 2
    return F.pad(x, (left, width - left - x.shape[-1], top, height - top - x.shape[-2]))


def compute_gradient_map(model: nn.Module, images: Tensor) -> Map:
    """Compute the gradient of the middle pixel's highest logit with respect to images (N, 3, H, W).

    Returns the absolute gradient (H, W), summed over colours and averaged over images. The model is
    in evaluation mode.
    """
    device = pick_device()
    model = prepare_model(model).requires_grad_(False)
    total = np.zeros(images.shape[-2:])
    for batch in images.split(BATCH_SIZE):
        x = batch.to(device).requires_grad_()
        logits = model(x)
        middle = logits[:, :, logits.shape[-2] // 2, logits.shape[-1] // 2]
        (gradient,) = torch.autograd.grad(middle.amax(dim=1).sum(), x)
        total += gradient.abs().sum(dim=(0, 1)).double().cpu().numpy()
    return total / len(images)


def describe_effective(gradients: Map) -> dict[str, float | None]:
    """Compute size in pixels, share of the image, and side of the square with half the gradient."""
    inside = np.count_nonzero(gradients > THRESHOLD * gradients.max())
    return {
        "size_px": round(float(np.sqrt(inside)), 2),
        "half_px": find_half_square(gradients),
        "share": round_fraction(inside / gradients.size),
    }


def find_half_square(gradients: Map) -> int:
    """Find the side of the smallest central square that holds half of the gradient, in pixels."""
    rows, columns = (np.abs(np.arange(side) - side // 2) for side in gradients.shape)
    distance = np.maximum(rows[:, None], columns)
    within = np.bincount(distance.ravel(), weights=gradients.ravel()).cumsum()
    return 2 * int(np.searchsorted(within, within[-1] / 2)) + 1


def convert_to_greys(gradients: Map) -> NDArray[np.uint8]:
    return np.rint(255 * gradients / max(gradients.max(), np.finfo(float).tiny)).astype(np.uint8)
