"""Tests of the CRF's evaluation against the run's own figures and a CRF called by hand."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_bench.data.packed import Split, load_split, pick_evenly
from deeplab_bench.data.pixels import VOID
from deeplab_bench.data.samples import SAMPLES
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.crf import CRFError, CRFParameters, Refined, Task, iterate_mean_field
from deeplab_bench.evaluation.crf import evaluate as crf_evaluation
from deeplab_bench.evaluation.crf.evaluate import (
    evaluate_crf,
    find_main_class,
    record_iterations,
    scale_to_grey,
    search_parameters,
    sum_results,
)
from deeplab_bench.evaluation.crf.refinement import refine_image
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.evaluation.measures.boundaries import (
    TRIMAP_WIDTHS,
    count_boundary_regions,
    count_trimap_confusions,
)
from deeplab_bench.models import build_model
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.settings.crf import CRF, CRFSearch
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference
from deeplab_bench.writing import format_json

Result = tuple[dict[str, Any], dict[str, Any]]

SETTINGS = CRF(
    w1=2.0,
    sigma_alpha=8.0,
    sigma_beta=12.0,
    w2=1.0,
    sigma_gamma=2.0,
    iterations=(0, 1, 3),
    search=CRFSearch(images=3, w1=(1.0, 6.0), sigma_alpha=(20.0,), sigma_beta=(12.0,)),
)


def loaded(experiment: Experiment, checkpoint: Checkpoint) -> Segmenter:
    model = build_model(experiment.architecture, experiment.arguments, num_classes=6).eval()
    model.load_state_dict(checkpoint.weights)
    return model


@torch.no_grad()
def logits(model: Segmenter, split: Split, index: int) -> torch.Tensor:
    image = torch.from_numpy(split.image(index).transpose(2, 0, 1)[None].copy())
    return model(model.colours.normalise(image))[0]


class ByHand:
    """Scores and beliefs (N, C, H, W) and labels (N, H, W) after each of N iterations."""

    def __init__(
        self,
        model: Segmenter,
        split: Split,
        index: int,
        searched: list[float],
        iterations: list[int],
    ) -> None:
        w1, sigma_alpha, sigma_beta = searched
        given = CRFParameters(
            w1=w1, sigma_alpha=sigma_alpha, sigma_beta=sigma_beta, w2=1, sigma_gamma=2
        )
        probabilities = logits(model, split, index).softmax(dim=0).numpy()
        steps = [*iterate_mean_field(probabilities, split.image(index), given, iterations)]
        self.scores, self.beliefs = (np.stack(maps) for maps in zip(*steps, strict=True))
        self.labels = self.beliefs.argmax(axis=1).astype(np.uint8)


def samples_in(folder: Path) -> dict[str, Path]:
    return {what: folder / "crf" / f"{what}.png" for what in ("labels", "scores", "beliefs")}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return samples_in(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def evaluated(
    experiment: Experiment, data_folder: Path, checkpoint: Checkpoint, samples: dict[str, Path]
) -> Result:
    return evaluate_crf(experiment, 0, SETTINGS, data_folder, checkpoint, samples, workers=2)


@pytest.fixture(scope="module")
def result(evaluated: Result) -> dict[str, Any]:
    return evaluated[0]


def test_no_iteration_is_the_run_itself(
    result: dict[str, Any], experiment: Experiment, val: Split, checkpoint: Checkpoint
) -> None:
    run, _ = evaluate(experiment, 0, Inference(), val, val, checkpoint)
    network = result["iterations"]["0"]
    assert network["miou"] == pytest.approx(run["metrics"]["miou"], abs=1e-5)
    assert network["pixel_accuracy"] == pytest.approx(run["metrics"]["pixel_accuracy"], abs=1e-5)
    assert network["iou"] == pytest.approx(run["iou"], abs=1e-5)
    near = run["boundaries"]
    assert network["boundary_iou"] == pytest.approx(near["boundary_iou"], abs=1e-5)
    assert network["boundary_miou"] == pytest.approx(near["boundary_miou"], abs=1e-5)
    assert 0 < near["boundary_miou"] < 1
    assert result["distance_share"] == near["distance_share"]


def test_an_edge_that_the_crf_sets_right() -> None:
    """Check a bright square that an uncertain network predicts one pixel too far right."""
    label, predicted = np.zeros((2, 20, 20), dtype=np.uint8)
    label[5:11, 5:11] = predicted[5:11, 6:12] = 1
    image = np.repeat(200 * label[..., None], 3, axis=-1)
    probabilities = np.where(np.arange(2)[:, None, None] == predicted, 0.6, 0.4)
    parameters = CRFParameters(w1=4, sigma_alpha=8, sigma_beta=10, w2=1, sigma_gamma=1)
    task = Task(probabilities, image, label, parameters, (0, 10), (math.inf,), count_regions=True)
    confusions, regions, *_ = sum_results([refine_image(task), refine_image(task)])
    before, after = record_iterations(confusions, regions, (0, 10), ("ground", "square")).values()
    # Of the square, 10 of 30 pixels; of the ground, the image's border and 14 of 42 around it.
    iou = {"ground": (76 + 14) / (76 + 42), "square": 10 / 30}
    assert before["boundary_iou"] == pytest.approx(iou, abs=1e-6)
    assert before["boundary_miou"] == pytest.approx(sum(iou.values()) / 2, abs=1e-6)
    assert after["boundary_iou"] == {"ground": 1, "square": 1}
    assert after["boundary_miou"] == 1


def test_figures_by_hand(
    result: dict[str, Any], experiment: Experiment, val: Split, checkpoint: Checkpoint
) -> None:
    model = loaded(experiment, checkpoint)
    parameters = [result["parameters"][key] for key in ("w1", "sigma_alpha", "sigma_beta")]
    whole = np.zeros((3, 6, 6), dtype=np.int64)
    bands = np.zeros((3, len(TRIMAP_WIDTHS), 6, 6), dtype=np.int64)
    regions = np.zeros((3, 2, 6), dtype=np.int64)
    for index in range(len(val)):
        label, labels = val.label(index), ByHand(model, val, index, parameters, [0, 1, 3]).labels
        whole += np.stack([metrics.confusion_matrix(label, each, 6) for each in labels])
        bands += count_trimap_confusions(label, labels, 6, TRIMAP_WIDTHS)
        regions += np.stack([count_boundary_regions(label, each, 6) for each in labels])
    everything = zip(whole, bands, regions, result["iterations"].values(), strict=True)
    for counts, near, (intersection, union), actual in everything:
        found = union > 0
        boundary_miou = (intersection[found] / union[found]).mean()
        assert actual["boundary_miou"] == pytest.approx(boundary_miou, abs=1e-6)
        assert actual["miou"] == pytest.approx(metrics.miou(counts), abs=1e-6)
        assert actual["trimap_miou"] == pytest.approx([*map(metrics.miou, near)], abs=1e-6)
        assert list(actual["iou"]) == val.classes
        iou = [np.nan if value is None else value for value in actual["iou"].values()]
        assert iou == pytest.approx(metrics.iou(counts), abs=1e-6, nan_ok=True)
        assert actual["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum(), abs=1e-6)
    assert [*result["iterations"]] == ["0", "1", "3"]
    for key in ("miou", "boundary_miou"):
        assert len({each[key] for each in result["iterations"].values()}) == 3


def test_the_search_scores_training_images(
    result: dict[str, Any], experiment: Experiment, data_folder: Path, checkpoint: Checkpoint
) -> None:
    """Compute every score again; the best parameters are used, and are not those of the start."""
    model, train = loaded(experiment, checkpoint), load_split(data_folder, "train")
    search = result["search"]
    assert (search["split"], search["images"]) == ("train", 3)
    tried = [candidate for *candidate, _ in search["tried"]]
    assert [2.0, 8.0, 12.0] in tried and [1.0, 20.0, 12.0] in tried and [6.0, 20.0, 12.0] in tried
    for candidate, actual in zip(tried, (each[3] for each in search["tried"]), strict=True):
        counts = np.zeros((6, 6), dtype=np.int64)
        for index in pick_evenly(3, len(train)):
            (labels,) = ByHand(model, train, index, candidate, [10]).labels
            counts += metrics.confusion_matrix(train.label(index), labels, 6)
        assert actual == pytest.approx(metrics.miou(counts), abs=2e-3)  # half precision
    mious = [each[3] for each in search["tried"]]
    assert mious == sorted(mious, reverse=True) and mious[0] > mious[-1]
    found = [result["parameters"][key] for key in ("w1", "sigma_alpha", "sigma_beta")]
    assert found == tried[0] != [2.0, 8.0, 12.0]


def test_the_search_counts_no_boundary_regions(
    experiment: Experiment,
    data_folder: Path,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def refine_images(tasks: Iterable[Task], workers: int) -> Iterator[Refined]:
        for task in tasks:
            asked.append(task.count_regions)
            yield refine_image(task)

    monkeypatch.setattr("deeplab_bench.evaluation.crf.search.refine_images", refine_images)
    model, train = loaded(experiment, checkpoint), load_split(data_folder, "train")
    search_parameters(model, train, SETTINGS, 1, "")
    assert asked and not any(asked)


def test_nothing_varies_with_the_number_of_workers(
    evaluated: Result,
    samples: dict[str, Path],
    experiment: Experiment,
    data_folder: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    again = samples_in(tmp_path)
    result, timing = evaluate_crf(
        experiment, 0, SETTINGS, data_folder, checkpoint, again, workers=1
    )
    assert format_json(result) == format_json(evaluated[0])
    for what, path in again.items():
        assert path.read_bytes() == samples[what].read_bytes()
    assert set(timing) == {
        "seconds_per_image",
        "evaluation_seconds",
        "search_seconds",
        "workers",
        "environment",
    }
    assert not set(timing) & set(result)


def test_without_a_search_the_given_parameters_are_used(
    experiment: Experiment,
    data_folder: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run in this process, since processes are slow to start."""
    monkeypatch.setattr(
        crf_evaluation, "refine_images", lambda tasks, workers: map(refine_image, tasks)
    )
    settings = SETTINGS.model_copy(update={"search": None})
    result, _ = evaluate_crf(experiment, 0, settings, data_folder, checkpoint, samples_in(tmp_path))
    assert result["search"] is None
    assert result["parameters"] == {
        "w1": 2,
        "sigma_alpha": 8,
        "sigma_beta": 12,
        "w2": 1,
        "sigma_gamma": 2,
    }
    assert result["settings"]["search"] is None


def test_pictures_are_strips_of_the_first_images(
    result: dict[str, Any],
    samples: dict[str, Path],
    experiment: Experiment,
    val: Split,
    checkpoint: Checkpoint,
) -> None:
    model = loaded(experiment, checkpoint)
    parameters = [result["parameters"][key] for key in ("w1", "sigma_alpha", "sigma_beta")]
    pixels = {}
    for what, path in samples.items():
        with Image.open(path) as image:
            assert image.mode == ("P" if what == "labels" else "L")
            pixels[what] = np.asarray(image)
    height = max(rows for rows, _ in val.sizes[:SAMPLES])
    left = 0
    for index, (rows, columns) in enumerate(val.sizes[:SAMPLES]):
        labels = ByHand(model, val, index, parameters, [0, 1]).labels
        for place in range(2):
            top, right = place * height, left + columns
            here = pixels["labels"][top : top + height, left:right]
            np.testing.assert_array_equal(here[:rows], labels[place])
            assert (here[rows:] == VOID).all()
        left += columns
    assert result["pictured"] == [0, 1]
    assert all(array.shape == (2 * height, left) for array in pixels.values())
    main, (rows, columns) = find_main_class(val.label(0), 0), val.sizes[0]
    first = ByHand(model, val, 0, parameters, [0, 1])
    for place, beliefs in enumerate(first.beliefs[:, main]):
        here = pixels["beliefs"][place * height :][:rows, :columns]
        np.testing.assert_allclose(here, 255 * beliefs, atol=0.51)
    scores = np.stack([pixels["scores"][top:][:rows, :columns] for top in (0, height)])
    np.testing.assert_array_equal(scores, scale_to_grey(first.scores[:, main]))


def test_scores_span_the_greys() -> None:
    grey = scale_to_grey(np.array([[[-3.0, 1.0]], [[-1.0, 2.0]]], dtype=np.float32))
    assert grey.tolist() == [[[0, 204]], [[102, 255]]]
    assert scale_to_grey(np.zeros((1, 2, 2), dtype=np.float32)).max() == 0


@pytest.mark.parametrize(
    ("label", "background", "main"),
    [
        ([0, 0, 0, 2, 2, 1], 0, 2),
        ([0, 0, 0, 2, 2, 1], None, 0),
        ([0, VOID, VOID], 0, 0),
        ([VOID, VOID], 0, 0),
        ([3, VOID, VOID], 0, 3),
    ],
)
def test_main_class(label: list[int], background: int | None, main: int) -> None:
    assert find_main_class(np.array(label, dtype=np.uint8), background) == main


def test_what_is_missing_is_said_before_any_work(
    experiment: Experiment,
    data_folder: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deeplab_bench.evaluation.crf.mean_field.find_spec", lambda name: None)
    with pytest.raises(CRFError, match="pydensecrf2"):
        evaluate_crf(experiment, 0, SETTINGS, data_folder, checkpoint, samples_in(tmp_path))
    assert not list(tmp_path.iterdir())
