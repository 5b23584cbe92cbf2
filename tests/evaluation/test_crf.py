"""Tests of the CRF against a sum over all pairs of pixels; of its processes and its search."""

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

from deeplab_bench.data.packed import pick_evenly
from deeplab_bench.evaluation.crf import (
    CRFError,
    CRFParameters,
    Task,
    iterate_mean_field,
    refine_images,
)
from deeplab_bench.evaluation.crf.processes import WorkerError, map_in_processes
from deeplab_bench.evaluation.crf.refinement import refine_image
from deeplab_bench.evaluation.crf.search import (
    compute_mious,
    get_searched_values,
    search_coarse_to_fine,
)
from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.evaluation.measures.boundaries import count_boundary_regions

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = CRFParameters(w1=1.5, sigma_alpha=4, sigma_beta=40, w2=0.7, sigma_gamma=1.5)
Array = NDArray[Any]


def scene(seed: int, height: int = 6, width: int = 7, classes: int = 3) -> tuple[Array, Array]:
    """Make uncertain probabilities (C, H, W) and an image of two flat halves with some noise."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), size=(height, width)).transpose(2, 0, 1)
    image = random.integers(0, 20, (height, width, 3))
    image[:, width // 2 :] += 100
    return probabilities.astype(np.float32), image.astype(np.uint8)


def task(seed: int, **changes: Any) -> Task:
    probabilities, image = scene(seed, 10 + seed, 12)
    label = (image[..., 0] > 60).astype(np.uint8)
    given = Task(
        probabilities, image, label, PARAMETERS, (0, 1, 3), (1, 3, math.inf), pictured_class=1
    )
    return replace(given, **changes)


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def brute_force(
    probabilities: Array, image: Array, parameters: CRFParameters, iterations: int
) -> Array:
    """Sum over all pairs of pixels; divide each message by the sum of its receiver's kernel."""
    classes, height, width = probabilities.shape
    places = np.array(list(product(range(height), range(width))), dtype=float)
    colours = image.reshape(-1, 3).astype(float)
    near = ((places[:, None] - places) ** 2).sum(axis=-1)
    alike = ((colours[:, None] - colours) ** 2).sum(axis=-1)
    p = parameters
    kernels = [
        (p.w1, np.exp(-near / (2 * p.sigma_alpha**2) - alike / (2 * p.sigma_beta**2))),
        (p.w2, np.exp(-near / (2 * p.sigma_gamma**2))),
    ]
    scores = np.log(probabilities.reshape(classes, -1))
    beliefs = softmax(scores)
    for _ in range(iterations):
        messages = [w * beliefs @ (k / k.sum(axis=1, keepdims=True)).T for w, k in kernels]
        beliefs = softmax(scores + sum(messages))
    return beliefs.reshape(probabilities.shape)


class TestMeanField:
    @pytest.mark.parametrize("iterations", [1, 2, 5, 10])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"w1": 1},
            {"sigma_alpha": 8},
            {"sigma_beta": 80},
            {"w2": 1.4},
            {"sigma_gamma": 3},
        ],
        ids=str,
    )
    def test_by_brute_force(self, changes: dict[str, float], iterations: int) -> None:
        """Check that the library's approximate filter comes close to the sum over all pairs."""
        parameters = replace(PARAMETERS, **changes)
        agreeing, apart = [], []
        for seed in range(6):
            ((_, actual),) = iterate_mean_field(*scene(seed), parameters, (iterations,))
            expected = brute_force(*scene(seed), parameters, iterations)
            agreeing.append(actual.argmax(axis=0) == expected.argmax(axis=0))
            apart.append(np.abs(actual - expected))
        assert np.mean(agreeing) > 0.97
        assert np.mean(apart) < 0.005

    @pytest.mark.parametrize(
        ("height", "width", "classes"), [(1, 1, 2), (1, 9, 3), (9, 1, 3), (2, 2, 2), (6, 7, 1)]
    )
    def test_of_degenerate_sizes_by_brute_force(
        self, height: int, width: int, classes: int
    ) -> None:
        given = scene(3, height, width, classes)
        ((_, actual),) = iterate_mean_field(*given, PARAMETERS, (2,))
        np.testing.assert_allclose(actual, brute_force(*given, PARAMETERS, 2), atol=0.03)

    def test_without_neighbours_nothing_changes(self) -> None:
        probabilities, image = scene(0)
        parameters = replace(PARAMETERS, w1=0, w2=0)
        for scores, beliefs in iterate_mean_field(probabilities, image, parameters, (0, 1, 10)):
            np.testing.assert_allclose(beliefs, probabilities, atol=1e-6)
            np.testing.assert_allclose(scores, np.log(probabilities), atol=1e-6)

    def test_steps_are_those_of_inferences_of_their_own(self) -> None:
        probabilities, image = scene(1)
        steps = (0, 1, 2, 5, 10)
        together = list(iterate_mean_field(probabilities, image, PARAMETERS, steps))
        for iterations, (scores, beliefs) in zip(steps, together, strict=True):
            ((_, alone),) = iterate_mean_field(probabilities, image, PARAMETERS, (iterations,))
            np.testing.assert_array_equal(beliefs, alone)
            np.testing.assert_allclose(softmax(scores), beliefs, atol=1e-6)
        assert np.abs(together[1][1] - together[4][1]).max() > 0.1

    def test_impossible_classes_and_half_precision(self) -> None:
        probabilities, image = scene(2)
        probabilities[0] = 0
        for scores, beliefs in iterate_mean_field(
            probabilities.astype(np.float16), image, PARAMETERS, (0, 2)
        ):
            assert np.isfinite(scores).all()
            assert beliefs[0].max() < 1e-3

    def test_read_only_images_will_do(self) -> None:
        probabilities, image = scene(3)
        image.flags.writeable = False
        assert len(list(iterate_mean_field(probabilities, image, PARAMETERS, (1,)))) == 1

    def test_without_the_library_one_line_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("deeplab_bench.evaluation.crf.mean_field.find_spec", lambda name: None)
        with pytest.raises(CRFError, match="needs the package pydensecrf2: run `pip install"):
            next(iterate_mean_field(*scene(0), PARAMETERS, (1,)))

    def test_the_module_imports_without_the_library_and_torch(self) -> None:
        code = (
            "import sys; sys.modules['pydensecrf'] = None;"
            "import deeplab_bench.__main__, deeplab_bench.evaluation.crf.search;"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class TestRefined:
    def test_labels_scores_and_beliefs_are_of_every_iteration(self) -> None:
        given = task(0)
        pictures = refine_image(given).pictures
        assert pictures is not None
        steps = iterate_mean_field(given.probabilities, given.image, PARAMETERS, given.iterations)
        for index, (scores, beliefs) in enumerate(steps):
            np.testing.assert_array_equal(pictures.labels[index], beliefs.argmax(axis=0))
            np.testing.assert_array_equal(pictures.scores[index], scores[1])
            np.testing.assert_array_equal(pictures.beliefs[index], beliefs[1])
        assert (pictures.labels[0] != pictures.labels[2]).any()

    def test_confusions_are_those_of_the_labels(self) -> None:
        given = task(1)
        result = refine_image(given)
        assert result.pictures is not None and result.confusions.shape == (3, 3, 3, 3)
        for labels, confusions in zip(result.pictures.labels, result.confusions, strict=True):
            expected = metrics.confusion_matrix(given.label, labels, 3)
            np.testing.assert_array_equal(confusions[-1], expected)

    def test_boundary_regions_are_those_of_the_labels(self) -> None:
        given = task(1, count_regions=True)
        result = refine_image(given)
        assert result.pictures is not None and result.regions.shape == (3, 2, 3)
        for labels, regions in zip(result.pictures.labels, result.regions, strict=True):
            expected = count_boundary_regions(given.label, labels, 3)
            np.testing.assert_array_equal(regions, expected)
        assert (result.regions[0] != result.regions[2]).any()

    def test_pictures_and_boundary_regions_are_made_on_request(self) -> None:
        result = refine_image(task(0, pictured_class=None))
        assert result.pictures is None and result.regions.size == 0


def process_id(item: float) -> tuple[float, int, bool]:
    """Return the process that works on the item; the first items take longest."""
    time.sleep(item)
    return item, os.getpid(), "torch" in sys.modules


def fail_at_three(item: int) -> int:
    if item == 3:
        raise ValueError("three is too many")
    return item


def die_at_three(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class TestProcesses:
    def test_parallel_equals_serial_in_order(self) -> None:
        """Check images of different sizes, in workers that have not loaded torch."""
        given = [task(seed) for seed in range(5)]
        for one, parallel in zip(given, refine_images(given, workers=2), strict=True):
            serial = refine_image(one)
            np.testing.assert_array_equal(parallel.confusions, serial.confusions)
            assert parallel.pictures is not None and serial.pictures is not None
            np.testing.assert_array_equal(parallel.pictures.beliefs, serial.pictures.beliefs)

    def test_items_are_drawn_as_workers_become_free(self) -> None:
        """Check also that the workers have not loaded torch and end with the iteration."""
        drawn = []

        def items() -> Iterator[float]:
            for item in (0.4, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0):
                drawn.append(item)
                yield item

        results = map_in_processes(process_id, items(), workers=2)
        first = next(results)
        assert len(drawn) == 4
        rest = list(results)
        assert [first[0], *(item for item, _, _ in rest)] == drawn
        workers = {process for _, process, _ in (first, *rest)}
        assert len(workers) == 2 and os.getpid() not in workers
        assert not any(torch for _, _, torch in (first, *rest))
        assert not any(alive(process) for process in workers)

    def test_an_error_in_a_worker_is_raised_here(self) -> None:
        results = map_in_processes(fail_at_three, range(100), workers=2)
        with pytest.raises(ValueError, match="three is too many"):
            list(results)

    def test_a_killed_worker_is_one_error(self) -> None:
        with pytest.raises(WorkerError, match="one of 2 worker processes was killed"):
            list(map_in_processes(die_at_three, range(100), workers=2))

    def test_workers_end_with_a_killed_parent(self) -> None:
        code = (
            "from deeplab_bench.evaluation.crf.processes import map_in_processes;"
            "from test_crf import process_id;"
            "results = map_in_processes(process_id, iter(lambda: 0.01, None), workers=2);"
            "print(*{next(results)[1] for _ in range(30)}, flush=True);"
            "list(results)"
        )
        path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            workers = [int(number) for number in process.stdout.readline().split()]
            assert all(map(alive, workers)) and len(workers) > 0
            process.kill()
            assert process.stdout.read() == ""  # returns once the workers have closed their end


def peak(parameters: CRFParameters) -> float:
    """Compute a score whose maximum is at (4, 45, 6)."""
    w1, sigma_alpha, sigma_beta = get_searched_values(parameters)
    return -abs(w1 - 4) - abs(sigma_alpha - 45) / 10 - abs(sigma_beta - 6)


class TestSearch:
    GRID = ((3.0, 5.0), (30.0, 40.0, 50.0), (4.0, 8.0))

    def test_the_second_round_halves_the_steps_around_the_best(self) -> None:
        rounds: list[list[CRFParameters]] = []

        def score(candidates: list[CRFParameters]) -> list[float]:
            rounds.append(candidates)
            return [peak(candidate) for candidate in candidates]

        tried = search_coarse_to_fine(PARAMETERS, self.GRID, score)
        assert [len(candidates) for candidates in rounds[:2]] == [1, 12]
        assert get_searched_values(tried[0].parameters) == (4, 45, 6)
        assert (tried[0].parameters.w2, tried[0].parameters.sigma_gamma) == (0.7, 1.5)
        candidates = [one.parameters for one in tried]
        assert len(set(candidates)) == len(candidates) == sum(map(len, rounds))
        assert [one.miou for one in tried] == sorted(map(peak, candidates), reverse=True)
        assert {get_searched_values(c)[1] for c in rounds[2]} == {35, 40, 45}

    def test_of_equals_the_smaller(self) -> None:
        tried = search_coarse_to_fine(
            PARAMETERS, self.GRID, lambda candidates: [0.5] * len(candidates)
        )
        everything = [get_searched_values(one.parameters) for one in tried]
        assert everything == sorted(everything)

    def test_where_it_begins_counts(self) -> None:
        """Check a start that is not on the grid, and is better than all of the grid."""
        start = replace(PARAMETERS, w1=4, sigma_alpha=45, sigma_beta=6)
        tried = search_coarse_to_fine(start, ((8.0,), (90.0,), (1.0,)), lambda c: [*map(peak, c)])
        assert tried[0].parameters == start

    def test_scores_are_those_of_all_examples_together(self) -> None:
        examples = [task(seed, iterations=(10,), widths=(math.inf,)) for seed in range(2)]
        candidates = [PARAMETERS, replace(PARAMETERS, w1=6, sigma_beta=10)]
        actual = compute_mious(candidates, examples, 1, "")
        for candidate, miou in zip(candidates, actual, strict=True):
            counts = np.zeros((3, 3), dtype=np.int64)
            for example in examples:
                steps = iterate_mean_field(example.probabilities, example.image, candidate, (10,))
                labels = next(steps)[1].argmax(axis=0)
                counts += metrics.confusion_matrix(example.label, labels, 3)
            assert miou == round(metrics.miou(counts), 6)
        assert actual[0] != actual[1]

    def test_images_are_spread_over_the_split(self) -> None:
        assert pick_evenly(3, 10) == [0, 3, 6]
        assert pick_evenly(10, 3) == [0, 1, 2]
