"""Tests that a run's figures are those of its predictions at every image's own size."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import open_run, train_balanced
from PIL import Image
from small_splits import true_predictions
from torch import Tensor, nn

from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.pixels import VOID, Pixels, build_voc_palette, write_label
from deeplab_bench.data.samples import SAMPLES, tile, write_samples
from deeplab_bench.evaluation import evaluate as evaluation
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.evaluate import evaluate, measure_predictions
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, miou
from deeplab_bench.evaluation.measures.object_size import BINS
from deeplab_bench.evaluation.predict import predict
from deeplab_bench.models import build_model
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference
from deeplab_bench.writing import format_json

ONE_PASS = Inference()
Result = tuple[dict[str, Any], list[Pixels]]


@pytest.fixture(scope="module")
def evaluated(experiment: Experiment, val: Split, checkpoint: Checkpoint) -> Result:
    return evaluate(experiment, 0, ONE_PASS, val, val, checkpoint)


@pytest.fixture(scope="module")
def result(evaluated: Result) -> dict[str, Any]:
    return evaluated[0]


@pytest.fixture(scope="module")
def model(experiment: Experiment, checkpoint: Checkpoint) -> Segmenter:
    model = build_model(experiment.architecture, experiment.arguments, num_classes=6)
    model.load_state_dict(checkpoint.weights)
    return model


@pytest.fixture(scope="module")
def predictions(model: Segmenter, val: Split) -> list[Pixels]:
    return predicted(model, val)


def test_training_images_are_scored_too(
    experiment: Experiment, val: Split, data_folder: Path, checkpoint: Checkpoint, model: Segmenter
) -> None:
    train = load_split(data_folder, "train")
    result, _ = evaluate(experiment, 0, ONE_PASS, val, train, checkpoint)
    counts = sum(
        confusion_matrix(train.label(index), prediction, 6)
        for index, prediction in enumerate(predicted(model, train))
    )
    assert result["training_images"] == {"images": 7, "miou": round(miou(np.asarray(counts)), 6)}


def test_a_hundred_training_images_are_enough(
    experiment: Experiment,
    val: Split,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "TRAINING_IMAGES", 3)
    result, _ = evaluate(experiment, 0, ONE_PASS, val, val, checkpoint)
    assert result["training_images"]["images"] == 3
    assert result["training_images"]["miou"] != result["metrics"]["miou"]


def predicted(model: Segmenter, split: Split) -> list[Pixels]:
    found = dict(predict(model, split, range(len(split)), "", ONE_PASS))
    return [found[index] for index in range(len(split))]


def source_files(data_folder: Path, name: str) -> tuple[Pixels, Pixels]:
    """Read an image and its label as they were before packing."""
    voc = data_folder.parent / "voc"
    with Image.open(voc / "JPEGImages" / f"{name}.png") as image:
        pixels = np.asarray(image)
    with Image.open(voc / "SegmentationClass" / f"{name}.png") as image:
        return pixels, np.asarray(image)


def test_predictions_at_every_image_size(
    model: Segmenter, predictions: list[Pixels], data_folder: Path, val: Split
) -> None:
    """Compare with the model called by hand; pixels between two classes may differ."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    model = model.cpu().eval()
    for name, size, prediction in zip(val.names, val.sizes, predictions, strict=True):
        image, _ = source_files(data_folder, name)
        normalised = torch.from_numpy((image / 255 - mean) / std).float().permute(2, 0, 1)
        with torch.no_grad():
            expected = model(normalised[None])[0].argmax(dim=0).numpy()
        assert prediction.shape == size == image.shape[:2]
        assert (prediction != expected).mean() < 0.005
    assert len(set(val.sizes)) > 5
    assert len(np.unique(np.concatenate([p.ravel() for p in predictions]))) > 1


def test_metrics_by_a_slow_loop(
    result: dict[str, Any], predictions: list[Pixels], data_folder: Path
) -> None:
    counts = np.zeros((6, 6))
    for name, prediction in zip(result["images"], predictions, strict=True):
        _, label = source_files(data_folder, name)
        for t, p in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if t != 255:
                counts[t, p] += 1
    with np.errstate(invalid="ignore"):
        iou = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
        recall = counts.diagonal() / counts.sum(1)
    shares = counts.sum(1) / counts.sum()
    expected = {
        "miou": np.nanmean(iou),
        "pixel_accuracy": counts.trace() / counts.sum(),
        "mean_accuracy": np.nanmean(recall),
        "frequency_weighted_iou": np.nansum(shares * iou),
    }
    assert result["metrics"] == pytest.approx(expected, abs=1e-6)
    actual = [math.nan if value is None else value for value in result["iou"].values()]
    assert actual == pytest.approx(iou.tolist(), abs=1e-6, nan_ok=True)
    assert 0 in actual
    absent = [result["classes"][c] for c in range(6) if math.isnan(iou[c])]
    assert result["absent_classes"] == absent


def test_images_add_up_to_the_classes(
    result: dict[str, Any], predictions: list[Pixels], val: Split
) -> None:
    totals = np.zeros((6, 2))
    for name, entries in result["images"].items():
        index = val.names.index(name)
        label, prediction = val.label(index), predictions[index]
        for c, intersection, union in entries:
            valid = label != VOID
            assert intersection == ((label == c) & (prediction == c)).sum()
            assert union == (((label == c) | (prediction == c)) & valid).sum() > 0
            totals[c] += intersection, union
    expected = [i / u if u else None for i, u in totals]
    assert [*result["iou"]] == result["classes"] == val.classes
    for actual, value in zip(result["iou"].values(), expected, strict=True):
        assert actual == (value if value is None else pytest.approx(value, abs=1e-6))


def test_nothing_varies_between_identical_runs(
    evaluated: Result, experiment: Experiment, data_folder: Path, val: Split, tmp_path: Path
) -> None:
    """Train one of the runs again, and draw random numbers before it is evaluated."""
    torch.manual_seed(7)
    path = tmp_path / "elsewhere.pt"
    train_balanced(experiment, data_folder, path)
    again = open_run(experiment, 0, data_folder, path)
    torch.rand(3)
    result, samples = evaluate(experiment, 0, ONE_PASS, val, val, again)
    assert format_json(result) == format_json(evaluated[0])
    assert [*result] == [*evaluated[0]]
    for one, other in zip(samples, evaluated[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_result_says_what_it_is_of(
    result: dict[str, Any], experiment: Experiment, model: Segmenter
) -> None:
    """Check what the result says of itself; the stage adds the run's identity, such as its seed."""
    assert result["architecture"] == "fcn"
    assert result["settings"]["arguments"] == experiment.arguments
    schedule = experiment.training.model_dump(mode="json")
    assert result["settings"]["training"] == schedule
    weights = [math.prod(p.shape) for p in model.parameters()]
    assert result["parameters"] == sum(weights)
    assert len(result["training"]["loss"]) == experiment.training.iterations
    json.dumps(result, allow_nan=False)


class TestOracle:
    @pytest.mark.parametrize("void_as", [0, 3])
    def test_scores_one(
        self,
        void_as: int,
        experiment: Experiment,
        val: Split,
        checkpoint: Checkpoint,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Check perfect predictions, with any class at void; a class in no image is null."""

        def oracle(
            model: Segmenter, split: Split, indices: Sequence[int], title: str, inference: Inference
        ) -> Iterator[tuple[int, Pixels]]:
            return zip(indices, true_predictions(split, void_as), strict=True)

        monkeypatch.setattr(evaluation, "predict", oracle)
        result, _ = evaluate(experiment, 0, ONE_PASS, val, val, checkpoint)
        assert set(result["metrics"].values()) == {1.0}
        assert result["iou"].pop("star") is None
        assert set(result["iou"].values()) == {1.0}
        assert result["absent_classes"] == ["star"]
        assert result["object_size"]["miou"] == [1.0] * BINS
        for entries in result["images"].values():
            assert entries and all(inter == union for _, inter, union in entries)
            assert 5 not in [c for c, _, _ in entries]

    def test_in_place_of_the_network(
        self,
        experiment: Experiment,
        val: Split,
        checkpoint: Checkpoint,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Check that sizes, argmax and the order of images keep the logits of the truth."""

        class Oracle(Segmenter):
            colours = IMAGENET

            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(()))
                self.answers = chain(true_predictions(val), true_predictions(val))

            def forward(self, images: Tensor) -> Tensor:
                assert not self.training and len(images) == 1
                answer = torch.from_numpy(next(self.answers)).to(images.device).long()
                assert images.shape[2:] == answer.shape
                return nn.functional.one_hot(answer, 6).permute(2, 0, 1)[None].float()

        monkeypatch.setattr(Checkpoint, "build_model", lambda *_: Oracle())
        result, _ = evaluate(experiment, 0, ONE_PASS, val, val, checkpoint)
        assert set(result["metrics"].values()) == {1.0}

    def test_one_wrong_pixel_shows(self, val: Split) -> None:
        answers = true_predictions(val)
        y, x = np.argwhere(val.label(3) != VOID)[5]
        answers[3][y, x] = (answers[3][y, x] + 1) % 5
        figures = measure_predictions(val, enumerate(answers))
        assert 0.99 < figures["metrics"]["pixel_accuracy"] < 1
        assert sum(value != 1 for value in figures["iou"].values() if value is not None) == 2


class TestInference:
    def test_another_output_stride(
        self, experiment: Experiment, checkpoint: Checkpoint, val: Split
    ) -> None:
        """Compare with a network of that stride that has the same weights."""
        result, _ = evaluate(experiment, 0, Inference(output_stride=8), val, val, checkpoint)
        assert result["settings"]["inference"]["output_stride"] == 8
        arguments = experiment.arguments | {"output_stride": 8}
        model = build_model("fcn", arguments, num_classes=6)
        model.load_state_dict(checkpoint.weights)
        expected = measure_predictions(val, enumerate(predicted(model, val)))
        assert {key: result[key] for key in expected} == expected


@pytest.fixture(scope="module")
def samples(evaluated: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the picture that the stage makes of the predictions."""
    path = tmp_path_factory.mktemp("samples") / "plain-0.png"
    write_label(path, tile(evaluated[1]))
    return path


class TestSamples:
    def test_predictions_as_palette_png(self, samples: Path) -> None:
        with Image.open(samples) as image:
            assert image.mode == "P"
            palette = image.getpalette()
        assert palette is not None
        assert bytes(palette) == build_voc_palette()[: len(palette)]

    def test_tiling_is_that_of_the_images(
        self,
        samples: Path,
        data_folder: Path,
        predictions: list[Pixels],
        val: Split,
        tmp_path: Path,
    ) -> None:
        """Check the tiles from the top left; below smaller ones is void, white in the image."""
        write_samples(data_folder, tmp_path / "images.png", tmp_path / "labels.png")
        tiled = {}
        for name, path in (
            ("images", tmp_path / "images.png"),
            ("labels", tmp_path / "labels.png"),
            ("predictions", samples),
        ):
            with Image.open(path) as image:
                assert image.mode == ("RGB" if name == "images" else "P")
                tiled[name] = np.asarray(image)
        height, width = max(h for h, _ in val.sizes[:SAMPLES]), 0
        for index, (rows, columns) in enumerate(val.sizes[:SAMPLES]):
            expected = {
                "images": source_files(data_folder, val.names[index])[0],
                "labels": source_files(data_folder, val.names[index])[1],
                "predictions": predictions[index],
            }
            for name, pixels in expected.items():
                here = tiled[name][:, width : width + columns]
                np.testing.assert_array_equal(here[:rows], pixels)
                assert (here[rows:] == VOID).all()
            width += columns
        assert all(pixels.shape[:2] == (height, width) for pixels in tiled.values())
        assert len(val) > SAMPLES
