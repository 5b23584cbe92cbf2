"""Splits of a few made-up images, the settings of their batches, and expected values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.settings.training import Training


def training(**changes: Any) -> Training:
    """Make settings without augmentation, unless the changes ask for it."""
    settings: dict[str, Any] = {
        "iterations": 6,
        "batch_size": 4,
        "crop_size": (8, 6),
        "base_lr": 0.1,
        "poly_power": 0.9,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "random_scale": (1.0, 1.0),
        "horizontal_flip": False,
        "precision": "float32",
    }
    return Training(**settings | changes)


def split_of(pairs: Sequence[tuple[Pixels, Pixels]]) -> Split:
    sizes = [label.shape for _, label in pairs]
    starts = np.cumsum([0, *(label.size for _, label in pairs)])[:-1].tolist()
    images, labels = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    names = [str(index) for index in range(len(pairs))]
    return Split(names, [(h, w) for h, w in sizes], [], images, labels, starts)


def random_split(count: int) -> Split:
    random = np.random.default_rng(0)
    return split_of(
        [
            (random.integers(0, 256, (9 + i, 12 - i, 3), np.uint8),
             random.integers(0, 5, (9 + i, 12 - i), np.uint8))
            for i in range(count)
        ]
    )  # fmt: skip


def assert_same(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(our, their, strict=True))


def labelled_split(labels: Sequence[NDArray[np.integer]], classes: Sequence[str]) -> Split:
    """Make images that show their labels."""
    maps = [label.astype(np.uint8) for label in labels]
    split = split_of([(np.repeat(label[..., None], 3, axis=2), label) for label in maps])
    return replace(split, classes=list(classes))


def true_predictions(split: Split, void_as: int = 0) -> list[Pixels]:
    """Copy the labels of a split, with a class in place of void."""
    labels = [split.label(index) for index in range(len(split))]
    return [np.where(label == VOID, void_as, label).astype(np.uint8) for label in labels]
