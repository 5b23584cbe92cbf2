"""A run's figures: those of its predictions at every image's own size, and no others."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ARGUMENTS, train_balanced
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_bench.data.batches import normalise
from deeplab_bench.data.context_radius import RADIUS_BINS
from deeplab_bench.data.packed import MANIFEST, Split, load_split
from deeplab_bench.data.samples import SAMPLES, write_samples
from deeplab_bench.data.voc_layout import VOID, Pixels, voc_palette
from deeplab_bench.evaluation import evaluate as evaluation
from deeplab_bench.evaluation.evaluate import (
    EvaluationError,
    batches_by_size,
    class_probabilities,
    evaluate,
    evaluate_inference,
    predict,
    score,
    summary,
)
from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.evaluation.measures.boundaries import TRIMAP_WIDTHS
from deeplab_bench.evaluation.measures.object_size import BINS, object_areas
from deeplab_bench.models import arguments_of, build_model
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.schema import Experiment, Inference
from deeplab_bench.training import train as training
from deeplab_bench.writing import format_json

ONE_PASS = Inference()
Result = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def samples(checkpoint: Path) -> Path:
    return checkpoint.parent / "samples" / "plain-0.png"


@pytest.fixture(scope="module")
def evaluated(experiment: Experiment, data_folder: Path, checkpoint: Path, samples: Path) -> Result:
    return evaluate(experiment, 0, data_folder, checkpoint, samples)


@pytest.fixture(scope="module")
def result(evaluated: Result) -> dict[str, Any]:
    return evaluated[0]


@pytest.fixture(scope="module")
def model(experiment: Experiment, checkpoint: Path) -> nn.Module:
    model = build_model(experiment.architecture, experiment.arguments, num_classes=6)
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])
    return model


@pytest.fixture(scope="module")
def val(data_folder: Path) -> Split:
    return load_split(data_folder, "val")


@pytest.fixture(scope="module")
def predictions(model: nn.Module, val: Split) -> list[Pixels]:
    return predicted(model, val)


def predicted(model: nn.Module, split: Split) -> list[Pixels]:
    found = dict(predict(model, split, range(len(split)), "", ONE_PASS))
    return [found[index] for index in range(len(split))]


def source_files(data_folder: Path, name: str) -> tuple[Pixels, Pixels]:
    """An image and its label as they lay on disk before they were packed."""
    voc = data_folder.parent / "voc"
    with Image.open(voc / "JPEGImages" / f"{name}.png") as image:
        pixels = np.asarray(image)
    with Image.open(voc / "SegmentationClass" / f"{name}.png") as image:
        return pixels, np.asarray(image)


def split_of(labels: list[NDArray[np.int64]], classes: list[str]) -> Split:
    flat = np.concatenate([label.ravel() for label in labels]).astype(np.uint8)
    return Split(
        names=[f"image{index}" for index in range(len(labels))],
        sizes=[(label.shape[0], label.shape[1]) for label in labels],
        classes=classes,
        images=np.zeros(3 * flat.size, dtype=np.uint8),
        labels=flat,
        starts=[sum(label.size for label in labels[:index]) for index in range(len(labels))],
    )


def truth(split: Split, void_as: int = 0) -> list[Pixels]:
    labels = [split.label(index) for index in range(len(split))]
    return [np.where(label == VOID, void_as, label).astype(np.uint8) for label in labels]


def test_predictions_at_every_image_size(
    model: nn.Module, predictions: list[Pixels], data_folder: Path, val: Split
) -> None:
    """Beside the model called by hand, but for a pixel on the border of two classes."""
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
    evaluated: Result,
    experiment: Experiment,
    data_folder: Path,
    checkpoint: Path,
    samples: Path,
    tmp_path: Path,
) -> None:
    """Even if one of them was trained again, and other code drew random numbers before."""
    torch.manual_seed(7)
    again = tmp_path / "elsewhere.pt"
    train_balanced(experiment, data_folder, again)
    torch.rand(3)
    result, timing = evaluate(experiment, 0, data_folder, again, tmp_path / "samples.png")
    assert format_json(result) == format_json(evaluated[0])
    assert [*result] == [*evaluated[0]]
    assert (tmp_path / "samples.png").read_bytes() == samples.read_bytes()
    assert set(timing) == {"training_seconds", "evaluation_seconds", "environment"}
    assert not set(timing) & set(result)


def test_result_says_what_it_is_of(
    result: dict[str, Any], experiment: Experiment, model: nn.Module
) -> None:
    assert [result[key] for key in ("profile", "model", "seed", "architecture")] == [
        "toy",
        "plain",
        0,
        "fcn",
    ]
    assert result["settings"]["arguments"] == experiment.arguments
    schedule = experiment.training.model_dump(mode="json")
    assert result["settings"]["training"] == schedule
    assert set(result["provenance"]) == {"settings_sha256", "code_sha256", "data_sha256"}
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
        data_folder: Path,
        checkpoint: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whatever it says of void; the class that no image shows is null and listed."""

        def oracle(
            model: nn.Module, split: Split, indices: Sequence[int], title: str, inference: Inference
        ) -> Iterator[tuple[int, Pixels]]:
            return zip(indices, truth(split, void_as), strict=True)

        monkeypatch.setattr(evaluation, "predict", oracle)
        result, _ = evaluate(experiment, 0, data_folder, checkpoint, tmp_path / "samples.png")
        assert set(result["metrics"].values()) == {1.0}
        assert result["iou"].pop("star") is None
        assert set(result["iou"].values()) == {1.0}
        assert result["absent_classes"] == ["star"]
        assert result["object_size"]["miou"] == [1.0] * len(BINS)
        for entries in result["images"].values():
            assert entries and all(inter == union for _, inter, union in entries)
            assert 5 not in [c for c, _, _ in entries]

    def test_in_place_of_the_network(
        self,
        experiment: Experiment,
        data_folder: Path,
        checkpoint: Path,
        val: Split,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Logits of the truth go through unharmed: sizes, argmax, order of images."""

        class Oracle(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(()))
                self.answers = iter(truth(val))

            def load_state_dict(self, *_: Any, **__: Any) -> Any:
                return None

            def forward(self, images: Tensor) -> Tensor:
                assert not self.training and len(images) == 1
                answer = torch.from_numpy(next(self.answers)).to(images.device).long()
                assert images.shape[2:] == answer.shape
                return nn.functional.one_hot(answer, 6).permute(2, 0, 1)[None].float()

        monkeypatch.setattr(evaluation, "build_model", lambda *_, **__: Oracle())
        result, _ = evaluate(experiment, 0, data_folder, checkpoint, tmp_path / "samples.png")
        assert set(result["metrics"].values()) == {1.0}

    def test_one_wrong_pixel_shows(self, val: Split) -> None:
        answers = truth(val)
        y, x = np.argwhere(val.label(3) != VOID)[5]
        answers[3][y, x] = (answers[3][y, x] + 1) % 5
        figures = summary(score(val, enumerate(answers)), val)
        assert 0.99 < figures["metrics"]["pixel_accuracy"] < 1
        assert sum(value != 1 for value in figures["iou"].values() if value is not None) == 2


class TestScore:
    def test_sizes_add_up_to_the_split(self, val: Split, predictions: list[Pixels]) -> None:
        """But for images without an object."""
        scores = score(val, enumerate(predictions))
        labels = [val.label(index) for index in range(len(val))]
        with_objects = [bool(object_areas(label, 0).any()) for label in labels]
        assert 0 < with_objects.count(False) < len(labels)
        np.testing.assert_array_equal(
            scores.per_size.sum(axis=0), scores.per_image[with_objects].sum(axis=0)
        )
        assert all(confusion.any() for confusion in scores.per_size)
        for index, prediction in enumerate(predictions):
            np.testing.assert_array_equal(
                scores.per_image[index],
                metrics.confusion_matrix(val.label(index), prediction, 6),
            )

    def test_sizes_by_hand(self) -> None:
        """Objects of 1, 4 and 9 pixels; the false alarm lies beside that of 1.

        The image of background alone counts in the split and in no size.
        """
        label = np.zeros((5, 12), dtype=np.int64)
        label[0, 0], label[0:2, 5:7], label[0:3, 9:12] = 1, 1, 1
        split = split_of([label, np.zeros((2, 2), dtype=np.int64)], ["background", "thing"])
        prediction = label.astype(np.uint8)
        prediction[1, 0] = 1
        scores = score(split, enumerate([prediction, np.ones((2, 2), dtype=np.uint8)]))
        edges = [1 + 2 / 3 * 3, 4 + 1 / 3 * 5]
        assert scores.area_edges == pytest.approx(edges)
        assert [int(c[0, 1]) for c in scores.per_size] == [1, 0, 0]
        assert [int(c[1, 1]) for c in scores.per_size] == [1, 4, 9]
        assert scores.per_size.sum() == label.size
        assert scores.per_image.sum() == label.size + 4
        figures = summary(scores, split)["object_size"]
        assert figures["edges_px"] == [round(math.sqrt(edge), 2) for edge in edges]
        small = metrics.miou(scores.per_size[0])
        assert figures["miou"] == [pytest.approx(small, abs=1e-6), 1, 1]

    def test_boundaries_of_the_truth_and_of_another(self, val: Split) -> None:
        """One class with nothing to find; all bands of the truth are right."""
        figures = summary(score(val, enumerate(truth(val))), val)["boundaries"]
        assert figures["trimap_miou"] == [1.0] * len(TRIMAP_WIDTHS)
        assert figures["boundary_iou"].pop("star") is None
        assert set(figures["boundary_iou"].values()) == {figures["boundary_miou"]} == {1.0}
        ground = [np.zeros_like(label) for label in truth(val)]
        figures = summary(score(val, enumerate(ground)), val)["boundaries"]
        assert all(0 < miou < 0.3 for miou in figures["trimap_miou"])
        assert 0 < figures["boundary_miou"] < 0.3

    def test_pixels_by_context_radius(self) -> None:
        """Summed over images, and null for photographs, which have no such radii."""
        labels = [np.array([[0, 1, VOID]]), np.array([[1, 1]])]
        split = split_of(labels, ["background", "thing"])
        answers = [np.array([[0, 0, 0]], dtype=np.uint8), np.array([[1, 0]], dtype=np.uint8)]
        assert summary(score(split, enumerate(answers)), split)["context_radius"] is None
        radii = np.array([0, 5, 5, 5, 255], dtype=np.uint8)
        split = replace(split, context_radii=radii)
        record = summary(score(split, enumerate(answers)), split)["context_radius"]
        assert record["largest_px"] == list(RADIUS_BINS)
        assert record["total"] == [1, 0, 2] + [0] * (len(RADIUS_BINS) - 3) + [1]
        assert record["correct"] == [1, 0, 1] + [0] * (len(RADIUS_BINS) - 2)

    def test_without_objects(self) -> None:
        """As without a valid pixel, there is nothing to measure: null, which JSON can say."""
        split = split_of([np.full((2, 3), VOID), np.zeros((3, 2), int)], ["background", "thing"])
        figures = summary(score(split, enumerate(truth(split))), split)
        assert figures["object_size"] == {"edges_px": [], "miou": [None] * len(BINS)}
        assert figures["metrics"]["miou"] == 1
        assert figures["absent_classes"] == ["thing"]

    def test_all_void(self) -> None:
        split = split_of([np.full((2, 3), VOID)], ["background", "thing"])
        figures = summary(score(split, enumerate(truth(split))), split)
        assert set(figures["metrics"].values()) == {None}
        assert figures["absent_classes"] == split.classes

    def test_first_class_is_no_background_unless_called_so(self) -> None:
        label = np.array([[0, 0, 0, 0, 1, 1, 1, 2]])
        answers = [label.astype(np.uint8)]
        for first, edges in (("sky", [1 + 4 / 3, 3 + 1 / 3]), ("background", [5 / 3, 7 / 3])):
            split = split_of([label], [first, "road", "car"])
            assert score(split, enumerate(answers)).area_edges == pytest.approx(edges)

    def test_is_no_mean_over_images(self) -> None:
        labels = [np.array([[1] * 8 + [0] * 2]), np.array([[1] * 2 + [0] * 8])]
        split = split_of(labels, ["background", "thing"])
        answers = [labels[0].astype(np.uint8), np.zeros((1, 10), dtype=np.uint8)]
        figures = summary(score(split, enumerate(answers)), split)
        assert figures["metrics"]["miou"] == pytest.approx(49 / 60, abs=1e-6)


class TestPredict:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_any_architecture_and_size(self, architecture: str, val: Split) -> None:
        """One image at a time, with the statistics of training, which stay as they are."""
        known = arguments_of(architecture)
        arguments = {key: value for key, value in ARGUMENTS.items() if key in known}
        torch.manual_seed(0)
        model = build_model(architecture, arguments, num_classes=6).train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert [p.shape for p in predicted(model, val)] == val.sizes
        for key, value in model.state_dict().items():
            assert torch.equal(value.cpu(), before[key]), key

    def test_images_do_not_see_each_other(
        self, model: nn.Module, val: Split, predictions: list[Pixels]
    ) -> None:
        """Beside others of its size, which go through the network together."""
        image, label = val.image(2), val.label(2)
        together = Split(
            ["image", "mirrored", "turned"],
            [val.sizes[2]] * 3,
            val.classes,
            np.concatenate([image.ravel(), image[:, ::-1].ravel(), image[::-1].ravel()]),
            np.tile(label.ravel(), 3),
            [0, label.size, 2 * label.size],
        )
        found = predicted(model, together)
        np.testing.assert_array_equal(found[0], predictions[2])
        assert all((found[0] != other).any() for other in found[1:])

    def test_batches_are_of_one_size(self) -> None:
        sizes = [(2, 3), (4, 5), (2, 3), (3, 2), (2, 3), (4, 5)]
        assert list(batches_by_size(sizes, range(6), 12)) == [[0, 2], [4], [1], [5], [3]]
        assert list(batches_by_size(sizes, [5, 1, 2], 40)) == [[5, 1], [2]]


class TestCheckpoint:
    def refused(self, *arguments: Any) -> str:
        with pytest.raises(EvaluationError) as caught:
            evaluate(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_missing(self, experiment: Experiment, data_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        message = self.refused(experiment, 0, data_folder, path, tmp_path / "x.png")
        assert message == f"{path} is missing: run `dvc repro`"

    @pytest.mark.parametrize(
        ("what", "seed"),
        [("settings", 0), ("settings", 1), ("code", 0), ("data", 0)],
        ids=["settings", "seed", "code", "data"],
    )
    def test_of_another_run(
        self,
        what: str,
        seed: int,
        experiment: Experiment,
        data_folder: Path,
        checkpoint: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if what == "settings" and seed == 0:
            arguments = experiment.arguments | {"output_stride": 8}
            experiment = experiment.model_copy(update={"arguments": arguments})
        elif what == "code":
            monkeypatch.setattr(training, "run_code_sha256", lambda *_: "another")
        elif what == "data":
            other = shutil.copytree(data_folder, tmp_path / "toy")
            content = json.loads((other / MANIFEST).read_text())
            content["splits"]["val"]["sha256"] = "another"
            (other / MANIFEST).write_text(json.dumps(content))
            data_folder = other
        samples = tmp_path / "samples.png"
        message = self.refused(experiment, seed, data_folder, checkpoint, samples)
        assert f"{checkpoint} was trained with other {what} than" in message
        assert message.endswith(f"run `dvc repro --force train@toy-plain-{seed}`")
        assert not samples.exists()


class TestInference:
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0), (0.75, 1.5)])
    def test_probabilities_by_hand(
        self, scales: tuple[float, ...], flip: bool, experiment: Experiment, val: Split
    ) -> None:
        """The mean of what every rescaled, mirrored image gives, each turned and resized back."""
        torch.manual_seed(0)
        model = build_model("fcn", experiment.arguments, num_classes=6).eval()
        inference = Inference(scales=scales, flip=flip)
        found = list(class_probabilities(model, val, range(len(val)), "", inference))
        assert len(found) == len(val)
        for index in (0, 1):
            image = torch.from_numpy(val.image(index).transpose(2, 0, 1)[None].copy())
            height, width = val.sizes[index]
            views = []
            for scale in scales:
                size = [round(height * scale), round(width * scale)]
                seen = F.interpolate(normalise(image), size, mode="bilinear")
                for mirrored in [seen, seen.flip(3)][: 1 + flip]:
                    with torch.no_grad():
                        logits = model(mirrored)
                    logits = logits if mirrored is seen else logits.flip(3)
                    logits = F.interpolate(logits, (height, width), mode="bilinear")
                    views.append(logits.softmax(1)[0])
            expected = torch.stack(views).mean(0)
            torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-6)
            assert found[index].argmax(0).tolist() == expected.argmax(0).tolist()

    def test_a_mirror_image_gives_the_mirror_image(
        self, experiment: Experiment, val: Split
    ) -> None:
        """With flip the network treats left and right alike."""
        torch.manual_seed(0)
        model = build_model("fcn", experiment.arguments, num_classes=6).eval()
        image = val.images.reshape(-1)[: 3 * 48 * 48].reshape(48, 48, 3)
        pair = [image, image[:, ::-1]]
        split = Split(
            ["a", "b"],
            [(48, 48)] * 2,
            val.classes,
            np.concatenate([p.ravel() for p in pair]),
            np.zeros(2 * 48 * 48, dtype=np.uint8),
            [0, 48 * 48],
        )
        one, other = class_probabilities(model, split, range(2), "", Inference(flip=True))
        torch.testing.assert_close(one, other.flip(-1), rtol=1e-4, atol=1e-6)
        plain, mirrored = class_probabilities(model, split, range(2), "", ONE_PASS)
        assert not torch.allclose(plain, mirrored.flip(-1), rtol=1e-3)

    def test_another_output_stride(
        self, experiment: Experiment, data_folder: Path, checkpoint: Path, val: Split
    ) -> None:
        """The same weights in the network of that stride."""
        inference = Inference(output_stride=8)
        result = evaluate_inference(experiment, 0, data_folder, checkpoint, "os8", inference)
        assert result["inference"] == "os8"
        assert result["settings"]["inference"]["output_stride"] == 8
        arguments = experiment.arguments | {"output_stride": 8}
        model = build_model("fcn", arguments, num_classes=6)
        model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
        expected = summary(score(val, enumerate(predicted(model, val))), val)
        assert {key: result[key] for key in expected} == expected

    def test_one_pass_is_the_result_of_the_run(
        self, experiment: Experiment, data_folder: Path, checkpoint: Path, result: Any
    ) -> None:
        again = evaluate_inference(experiment, 0, data_folder, checkpoint, "plain", ONE_PASS)
        assert again == {"inference": "plain"} | result


class TestSamples:
    def test_predictions_as_palette_png(self, result: Any, samples: Path) -> None:
        with Image.open(samples) as image:
            assert image.mode == "P"
            palette = image.getpalette()
        assert palette is not None
        assert bytes(palette) == voc_palette()[: len(palette)]

    def test_tiling_is_that_of_the_images(
        self,
        result: Any,
        samples: Path,
        data_folder: Path,
        predictions: list[Pixels],
        val: Split,
        tmp_path: Path,
    ) -> None:
        """Left to right from the top; below the lower ones there is void, white in the image."""
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
