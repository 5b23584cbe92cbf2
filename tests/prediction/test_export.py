"""Tests that exported networks compute what the network computes."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ARGUMENTS
from torch import Tensor

from deeplab_bench import load
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.models import build_model, list_arguments
from deeplab_bench.models.backbone import DEPTHS
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.prediction.export import ExportError, export
from deeplab_bench.prediction.predictor import Predictor
from deeplab_bench.runtime.device import prepare_model
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

pytestmark = pytest.mark.long(seconds=40)

SIZE = (41, 57)
CLASSES = ("background", "cat", "dog")


@pytest.fixture
def _shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one unit in each block of the backbone: to trace them takes most of the time."""
    unit, _ = DEPTHS["resnet18"]
    monkeypatch.setitem(DEPTHS, "resnet18", (unit, (1, 1, 1, 1)))


def make_predictor(experiment: Experiment, architecture: str, **others: Any) -> Predictor:
    known = list_arguments(architecture)
    arguments = {key: value for key, value in (ARGUMENTS | others).items() if key in known}
    torch.manual_seed(0)
    model = prepare_model(build_model(architecture, arguments, num_classes=len(CLASSES)))
    return Predictor(CLASSES, experiment, model, Inference())


def run_file(path: Path, images: Tensor) -> Any:
    """Run an exported file on RGB images, and read the classes in it."""
    if path.suffix == ".pt2":
        files = {"classes.json": ""}
        program = torch.export.load(path, extra_files=files)
        return program.module()(images).detach().numpy(), json.loads(files["classes.json"])
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return logits, json.loads(session.get_modelmeta().custom_metadata_map["classes"])


@pytest.mark.usefixtures("_shallow")
@pytest.mark.parametrize(
    ("architecture", "suffix"),
    [*((name, ".onnx") for name in ARCHITECTURES), ("aspp", ".pt2"), ("psp", ".pt2")],
)
def test_any_architecture(
    architecture: str, suffix: str, experiment: Experiment, tmp_path: Path
) -> None:
    """Check another number of images than that of the export, against probabilities."""
    predictor = make_predictor(experiment, architecture)
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    expected = np.stack([predictor.probabilities(image) for image in images])
    path = tmp_path / f"network{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of onnxscript and torch, of no meaning to a user
        export(predictor, path, *SIZE)
    logits, classes = run_file(path, torch.from_numpy(images).permute(0, 3, 1, 2).float())
    assert logits.shape == (3, len(CLASSES), *SIZE)
    found = torch.from_numpy(logits).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert tuple(classes) == CLASSES


def test_another_suffix_is_refused(
    checkpoint: Checkpoint, checkpoint_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"give a path that ends in \.onnx or \.pt2"):
        export(load(checkpoint_file), tmp_path / "x.tflite", *SIZE)
