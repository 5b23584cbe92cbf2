"""Pretraining of a backbone: classification of generated images of one object each.

It stands in for ImageNet. The models of a profile start from its weights as from ImageNet's.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deeplab_bench.data.dataset import DataSet, build_data_set
from deeplab_bench.data.packed import Split
from deeplab_bench.models import count_parameters
from deeplab_bench.models.classifier import Classifier
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.settings.pretraining import PretrainingTask
from deeplab_bench.training.pretrained import compute_weights_sha256
from deeplab_bench.training.train import get_timing_file, read_timing, train_on
from deeplab_bench.writing import write_tensors

SEED = 0  # of the only training
BATCH = 100  # of the held-out images


def pretrain(task: PretrainingTask, weights: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train the classification network, and write its state dict to ``weights``.

    An interrupted run continues from its last snapshot.

    Returns:
        The result with the accuracy on held-out images, and the timing, both ready for JSON.

    Raises:
        LockError: another process does the same pretraining.
        TrainingError: the loss is not finite.
    """
    data = build_data_set(task.data)
    last = task.images + task.held_out_images
    learned, held_out = (
        draw_split(data, indices, task.image_size)
        for indices in (range(task.images), range(task.images, last))
    )
    provenance = {
        "settings": task.model_dump(mode="json"),
        "data_sha256": compute_pixels_sha256([learned, held_out]),
        "code_sha256": compute_code_sha256("pretrain", type(data).__module__),
    }
    checkpoint = weights.with_name("pretraining.pt")
    train_on([learned], task.experiment, SEED, checkpoint, provenance)
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = Classifier(num_classes=len(learned.classes), **task.experiment.arguments)
    model.load_state_dict(content["model"])
    write_tensors(weights, model.classification_state())
    result = provenance | {
        "weights_sha256": compute_weights_sha256(str(weights), ""),
        "parameters": count_parameters(model),
        "classes": data.class_names(),
        "accuracy": measure_accuracy(model, held_out),
        "training": content["history"],
    }
    timing = read_timing(checkpoint)
    for file in (checkpoint, get_timing_file(checkpoint)):
        file.unlink()
    return result, timing


def draw_split(data: DataSet, indices: Sequence[int], size: int) -> Split:
    """Draw images of one object each; every pixel of a label has the image's class."""
    images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
    labels = np.empty((len(indices), size, size), dtype=np.uint8)
    for place, index in enumerate(tqdm(indices, desc="drawing objects", unit="image")):
        images[place], labels[place] = data.draw_object(index, size)
    return Split(
        names=[f"object_{index:05d}" for index in indices],
        sizes=[(size, size)] * len(indices),
        classes=data.class_names(),
        images=images.reshape(-1),
        labels=labels.reshape(-1),
        starts=[place * size * size for place in range(len(indices))],
    )


def compute_pixels_sha256(splits: Iterable[Split]) -> str:
    """Compute a digest of all images and labels."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.images.tobytes())
        digest.update(split.labels.tobytes())
    return digest.hexdigest()


@torch.no_grad()
def measure_accuracy(model: Classifier, split: Split) -> float:
    """Return the share of the images whose class has the highest logit."""
    model.eval()
    right = 0
    for start in range(0, len(split), BATCH):
        indices = range(start, min(start + BATCH, len(split)))
        images = torch.stack([to_tensor(split, index) for index in indices])
        predicted = model.logits(model.colours.normalise(images)).flatten(1).argmax(dim=1)
        classes = [int(split.label(index)[0, 0]) for index in indices]
        right += int((predicted == torch.tensor(classes)).sum())
    return right / len(split)


def to_tensor(split: Split, index: int) -> Tensor:
    """Return an image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(split.image(index))).permute(2, 0, 1)
