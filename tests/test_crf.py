"""The CRF beside one that sums over all pairs of pixels; its worker processes; its search."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab_bench import metrics
from deeplab_bench.crf import CRFError, CRFParameters, Refined, Task, mean_field, refine
from deeplab_bench.crf import mean_field as _function
from deeplab_bench.crf.processes import WorkerError, in_processes
from deeplab_bench.crf.refinement import refined
from deeplab_bench.crf.search import coarse_to_fine, mious_of, searched, spread

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = CRFParameters(w1=1.5, sigma_alpha=4, sigma_beta=40, w2=0.7, sigma_gamma=1.5)
Array = NDArray[Any]


def scene(seed: int, height: int = 6, width: int = 7, classes: int = 3) -> tuple[Array, Array]:
    """Uncertain probabilities (C, H, W) and an image of two flat halves with some noise."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), size=(height, width)).transpose(2, 0, 1)
    image = random.integers(0, 20, (height, width, 3))
    image[:, width // 2 :] += 100
    return probabilities.astype(np.float32), image.astype(np.uint8)


def task(seed: int, **changes: Any) -> Task:
    probabilities, image = scene(seed, 10 + seed, 12)
    label = (image[..., 0] > 60).astype(np.uint8)
    given = Task(probabilities, image, label, PARAMETERS, (0, 1, 3), (1, 3, math.inf), pictured=1)
    return replace(given, **changes)


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def brute_force(
    probabilities: Array, image: Array, parameters: CRFParameters, iterations: int
) -> Array:
    """Every pair of pixels; each message over the sum of its receiver's kernel (C, H, W)."""
    classes, height, width = probabilities.shape
    places = np.array(list(product(range(height), range(width))), dtype=float)
    colours = image.reshape(-1, 3).astype(float)
    near = ((places[:, None] - places) ** 2).sum(axis=-1)
    alike = ((colours[:, None] - colours) ** 2).sum(axis=-1)
    p = parameters
    kernels = {
        p.w1: np.exp(-near / (2 * p.sigma_alpha**2) - alike / (2 * p.sigma_beta**2)),
        p.w2: np.exp(-near / (2 * p.sigma_gamma**2)),
    }
    scores = np.log(probabilities.reshape(classes, -1))
    beliefs = softmax(scores)
    for _ in range(iterations):
        messages = [w * beliefs @ (k / k.sum(axis=1, keepdims=True)).T for w, k in kernels.items()]
        beliefs = softmax(scores + sum(messages))
    return beliefs.reshape(probabilities.shape)


def last_beliefs(seed: int, parameters: CRFParameters, iterations: int) -> Array:
    ((_, beliefs),) = mean_field(*scene(seed), parameters, (iterations,))
    return beliefs


@pytest.mark.parametrize("iterations", [1, 2, 5, 10])
def test_mean_field_by_brute_force(iterations: int) -> None:
    """Close, as the library's filter approximates the sum over all pairs."""
    agreeing, apart = [], []
    for seed in range(8):
        expected = brute_force(*scene(seed), PARAMETERS, iterations)
        actual = last_beliefs(seed, PARAMETERS, iterations)
        agreeing.append((actual.argmax(axis=0) == expected.argmax(axis=0)).mean())
        apart.append(np.abs(actual - expected).mean())
    print(np.mean(agreeing), np.mean(apart))
