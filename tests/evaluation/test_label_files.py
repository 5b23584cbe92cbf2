"""Tests that label files have the scores of the network that wrote them, and are else refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import DataError, write_label
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.evaluation.label_files import OF_LABELS, score_label_files
from deeplab_bench.evaluation.predict import predict
from deeplab_bench.evaluation.protocol_audit import audit
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

OF_OUR_RUNS = {"architecture", "settings", "parameters", "training", "training_images"}


@pytest.fixture
def folder(tmp_path: Path, val: Split, checkpoint: Checkpoint) -> Path:
    """Write the predictions of a network as another program would: as grey PNGs."""
    path = tmp_path / "theirs"
    path.mkdir()
    model = checkpoint.build_model()
    for index, label in predict(model, val, range(len(val)), "predicting", Inference()):
        Image.fromarray(label).save(path / f"{val.names[index]}.png")
    return path


def test_scores_are_those_of_the_network(
    folder: Path, val: Split, checkpoint: Checkpoint, experiment: Experiment
) -> None:
    found = score_label_files(folder, val)
    ours, _ = evaluate(experiment, 0, Inference(), val, val, checkpoint)
    for key in ours.keys() - OF_OUR_RUNS:
        assert found[key] == ours[key], key
    audited = audit(experiment, 0, val, checkpoint)
    assert found["metrics"]["miou"] == audited["protocol"]
    assert len(found["variants"]) == 6
    assert found["variants"] == {name: audited["variants"][name] for name in OF_LABELS}


def test_the_digest_is_of_the_pixels(folder: Path, val: Split) -> None:
    before = score_label_files(folder, val)
    path = folder / f"{val.names[0]}.png"
    label = np.asarray(Image.open(path)).copy()
    write_label(path, label)  # with a palette
    (folder / "further.png").write_bytes(b"not read")
    assert score_label_files(folder, val) == before
    label[0, 0] = (label[0, 0] + 1) % len(val.classes)
    write_label(path, label)
    assert score_label_files(folder, val)["labels_sha256"] != before["labels_sha256"]


def test_a_missing_folder(tmp_path: Path, val: Split) -> None:
    with pytest.raises(DataError, match="gone is no folder: give the one with the label PNGs"):
        score_label_files(tmp_path / "gone", val)


def test_a_missing_file(folder: Path, val: Split) -> None:
    (folder / f"{val.names[1]}.png").unlink()
    said = f"theirs lacks 1 of 8 label PNGs, such as {val.names[1]}.png: name each as its image"
    with pytest.raises(DataError, match=said):
        score_label_files(folder, val)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (np.zeros((9, 7), np.uint8), r"has 7x9 px, its image 48x40: predict at the size"),
        (np.full((40, 48), 6, np.uint8), "has the value 6: predict a class of 0 to 5"),
        (np.full((40, 48), 255, np.uint8), "has the value 255: predict a class of 0 to 5"),
        (np.zeros((40, 48, 3), np.uint8), "is a RGB image: save labels as palette or grey PNGs"),
        (np.zeros((40, 48), np.uint16), "is a I;16 image: save labels as palette or grey PNGs"),
    ],
)
def test_other_content_is_refused(folder: Path, val: Split, label: np.ndarray, said: str) -> None:
    Image.fromarray(label).save(folder / f"{val.names[0]}.png")
    with pytest.raises(DataError, match=f"{val.names[0]}.png {said}"):
        score_label_files(folder, val)


def test_a_file_that_is_no_image(folder: Path, val: Split) -> None:
    (folder / f"{val.names[0]}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{val.names[0]}.png is damaged or no image"):
        score_label_files(folder, val)
