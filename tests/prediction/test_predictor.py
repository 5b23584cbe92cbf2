"""Tests of prediction with a checkpoint that is opened by itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deeplab_bench
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import DataError
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.predict import predict, predict_probabilities
from deeplab_bench.prediction import predictor
from deeplab_bench.prediction.predictor import Predictor
from deeplab_bench.settings.inference import Inference


@pytest.fixture(scope="module")
def opened(checkpoint_file: Path) -> Predictor:
    return deeplab_bench.load(checkpoint_file)


def test_classes_and_settings_are_those_of_the_training(
    opened: Predictor, checkpoint: Checkpoint
) -> None:
    assert opened.classes == tuple(checkpoint.classes)
    assert opened.experiment == checkpoint.experiment


def test_labels_and_probabilities_are_those_of_the_evaluation(
    opened: Predictor, checkpoint: Checkpoint, val: Split
) -> None:
    model, indices = checkpoint.build_model(), range(len(val))
    expected = dict(predict(model, val, indices, "", Inference()))
    probabilities = predict_probabilities(model, val, indices, "", Inference())
    for index, expected_probabilities in zip(indices, probabilities, strict=True):
        assert np.array_equal(opened.predict(val.image(index)), expected[index])
        found = opened.probabilities(val.image(index))
        np.testing.assert_allclose(found, expected_probabilities.numpy(), atol=1e-6)


def test_the_way_of_inference_can_be_chosen(
    checkpoint_file: Path, checkpoint: Checkpoint, val: Split
) -> None:
    opened = deeplab_bench.load(checkpoint_file, output_stride=8, scales=(1.0, 1.5), flip=True)
    inference = Inference(output_stride=8, scales=(1.0, 1.5), flip=True)
    (expected,) = predict_probabilities(checkpoint.build_model(8), val, [0], "", inference)
    np.testing.assert_allclose(opened.probabilities(val.image(0)), expected.numpy(), atol=1e-6)


def test_a_path_an_image_and_an_array_give_the_same(
    opened: Predictor, val: Split, tmp_path: Path
) -> None:
    pixels = val.image(0)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = opened.predict(pixels)
    for photograph in (tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(pixels)):
        assert np.array_equal(opened.predict(photograph), expected)


def test_tiles_differ_little_from_the_whole(
    opened: Predictor, val: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check labels, and that the probabilities of tiles are those of the labels."""
    image = np.tile(val.image(2), (3, 3, 1))
    whole = opened.predict(image)
    monkeypatch.setattr(predictor, "MOST_PIXELS", 112 * 112)
    monkeypatch.setattr(predictor, "MARGIN", 32)
    seen: list[torch.Size] = []
    hook = opened.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    tiled = opened.predict(image)
    hook.remove()
    assert len(seen) == 9 and max(shape[2] * shape[3] for shape in seen) <= 112 * 112
    assert np.mean(tiled == whole) > 0.95
    assert np.array_equal(opened.probabilities(image).argmax(axis=0), tiled)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (1, 4, 4, 3)])
def test_another_array_is_refused(opened: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"give uint8 \(H, W, 3\), RGB"):
        opened.predict(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(DataError, match="the image is float64"):
        opened.predict(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


def test_it_needs_nothing_but_the_package(checkpoint_file: Path, tmp_path: Path) -> None:
    """Check a folder with the checkpoint and a photograph alone."""
    shutil.copy(checkpoint_file, tmp_path / "plain-0.pt")
    Image.new("RGB", (40, 30), (90, 160, 70)).save(tmp_path / "photo.jpg")
    code = (
        "import deeplab_bench; print(deeplab_bench.load('plain-0.pt').predict('photo.jpg').shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(30, 40)\n", done.stderr
