"""Benchmark of our confusion matrix and mIoU against torchmetrics. The results must be equal."""

import numpy as np
import torch

from benchmarks.comparison import OURS, Benchmark, Implementation, Workload, import_peer
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures import confusion as metrics

CLASSES = 21
TOLERANCE = 1e-6  # torchmetrics divides in float32


def build_miou_benchmark(workload: Workload) -> Benchmark:
    """Build the benchmark of mIoU. The benchmark raises ValueError if the two results differ."""
    pairs = make_label_pairs(workload)
    traffic = sum(label.nbytes + prediction.nbytes for label, prediction in pairs)

    def theirs() -> Implementation:
        own, other = compute_own_miou(pairs), compute_torchmetrics_miou(pairs)
        if abs(own - other) > TOLERANCE:
            raise ValueError(f"mIoU is {own} by {OURS} but {other} by torchmetrics")
        return Implementation(lambda: compute_torchmetrics_miou(pairs), traffic_bytes=traffic)

    return Benchmark(
        "miou",
        f"The mIoU of {workload.batch} predictions of {workload.crop} px and {CLASSES} classes, "
        "computed on the CPU. The results must be equal.",
        {
            OURS: lambda: Implementation(lambda: compute_own_miou(pairs), traffic_bytes=traffic),
            "torchmetrics": theirs,
        },
    )


def make_label_pairs(workload: Workload) -> list[tuple[Pixels, Pixels]]:
    """Make labels with some void pixels, and predictions that are right in most pixels."""
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(workload.batch):
        label = random.integers(0, CLASSES, workload.size, dtype=np.uint8)
        prediction = np.where(random.random(workload.size) < 0.7, label, label[::-1])
        label[random.random(workload.size) < 0.05] = VOID
        pairs.append((label, prediction))
    return pairs


def compute_own_miou(pairs: list[tuple[Pixels, Pixels]]) -> float:
    matrices = [metrics.confusion_matrix(*pair, CLASSES) for pair in pairs]
    return metrics.miou(np.sum(matrices, axis=0))


def compute_torchmetrics_miou(pairs: list[tuple[Pixels, Pixels]]) -> float:
    classification = import_peer("torchmetrics.classification")
    metric = classification.MulticlassJaccardIndex(num_classes=CLASSES, ignore_index=VOID)
    for label, prediction in pairs:
        metric.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return float(metric.compute())
