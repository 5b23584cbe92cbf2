"""Our confusion matrix and mIoU, and those of torchmetrics, which have to be equal."""

import numpy as np
import torch

from benchmarks.comparison import OURS, Benchmark, Contender, Settings, peer
from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.evaluation.measures import confusion as metrics

CLASSES = 21
TOLERANCE = 1e-6  # torchmetrics divides in float32


def miou(settings: Settings) -> Benchmark:
    """
    Raises:
        ValueError: the two are not equal.
    """
    pairs = made_up(settings)
    traffic = sum(label.nbytes + prediction.nbytes for label, prediction in pairs)

    def theirs() -> Contender:
        own, other = own_miou(pairs), torchmetrics_miou(pairs)
        if abs(own - other) > TOLERANCE:
            raise ValueError(f"mIoU is {own} by ours and {other} by torchmetrics")
        return Contender(lambda: torchmetrics_miou(pairs), traffic_bytes=traffic)

    return Benchmark(
        "miou",
        f"{settings.batch} labels of {settings.crop} px and their predictions, on the processor, "
        f"to one mIoU of {CLASSES} classes; the results are equal.",
        {
            OURS: lambda: Contender(lambda: own_miou(pairs), traffic_bytes=traffic),
            "torchmetrics": theirs,
        },
    )


def made_up(settings: Settings) -> list[tuple[Pixels, Pixels]]:
    """Labels, void among them, and predictions that are right in most pixels."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(settings.batch):
        label = random.integers(0, CLASSES, settings.size, dtype=np.uint8)
        prediction = np.where(random.random(settings.size) < 0.7, label, label[::-1])
        label[random.random(settings.size) < 0.05] = VOID
        pairs.append((label, prediction))
    return pairs


def own_miou(pairs: list[tuple[Pixels, Pixels]]) -> float:
    matrices = [metrics.confusion_matrix(*pair, CLASSES) for pair in pairs]
    return metrics.miou(np.sum(matrices, axis=0))


def torchmetrics_miou(pairs: list[tuple[Pixels, Pixels]]) -> float:
    classification = peer("torchmetrics.classification")
    metric = classification.MulticlassJaccardIndex(num_classes=CLASSES, ignore_index=VOID)
    for label, prediction in pairs:
        metric.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return float(metric.compute())
