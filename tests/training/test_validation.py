"""Tests of the validation curve: its values, its bytes, and that it leaves the training alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import open_run, train_run
from test_training import PixelClassifier, interrupt
from torch import Tensor, nn

from deeplab_bench.data.packed import MANIFEST, Split
from deeplab_bench.data.pixels import VOID, DataError
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.models import build_model
from deeplab_bench.results.files import RunFiles
from deeplab_bench.results.records import CurveRecord, read_record
from deeplab_bench.settings.experiment import Experiment, Phase
from deeplab_bench.settings.inference import Inference
from deeplab_bench.training import validation as module
from deeplab_bench.training.snapshots import Snapshots
from deeplab_bench.training.trainer import Trainer

CPU = torch.device("cpu")
RUN = RunFiles("toy", "plain", 0)


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside the data of the profile ``toy``, and validate after iterations 2, 4 and 6."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/toy").symlink_to(data_folder)
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    monkeypatch.setattr(module, "POINTS", 3)
    return tmp_path


@pytest.fixture
def curve(experiment: Experiment, data_folder: Path) -> bytes:
    """Train without interruption, and return the curve."""
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    content = RUN.curve.read_bytes()
    RUN.curve.unlink()
    RUN.checkpoint.unlink()
    return content


def read_curve() -> CurveRecord:
    return read_record(RUN.curve, CurveRecord)


def test_the_last_point_is_that_of_the_checkpoint(
    experiment: Experiment, data_folder: Path, val: Split, finished: Path
) -> None:
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    assert RUN.checkpoint.read_bytes() == finished.read_bytes()
    found, checkpoint = read_curve(), open_run(experiment, 0, data_folder, RUN.checkpoint)
    assert (found.profile, found.model, found.seed) == ("toy", "plain", 0)
    assert found.provenance == checkpoint.provenance
    assert (found.images, found.iteration) == (len(val), (2, 4, 6))
    scored, _ = evaluate(experiment, 0, Inference(), val, val, checkpoint)
    assert found.miou[-1] == scored["metrics"]["miou"]

    network, cross_entropy = checkpoint.build_model().eval(), nn.CrossEntropyLoss(reduction="none")
    losses = []
    for index in range(len(val)):
        image = torch.tensor(val.image(index)).permute(2, 0, 1)[None]
        label = torch.tensor(val.label(index)).flatten().long()
        with torch.no_grad():
            logits = network(network.colours.normalise(image))[0].flatten(1).T
        losses.append(cross_entropy(logits[label != VOID], label[label != VOID]))
    assert found.loss[-1] == pytest.approx(torch.cat(losses).mean().item(), abs=2e-5)
    assert len(set(found.loss)) == 3


@pytest.mark.parametrize("at", [(3,), (2, 5)])
def test_an_interrupted_training_has_the_same_curve(
    at: tuple[int, ...], experiment: Experiment, data_folder: Path, curve: bytes
) -> None:
    for iteration in at:
        interrupt(experiment, data_folder, RUN.checkpoint, iteration)
    assert not RUN.curve.exists()
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    assert RUN.curve.read_bytes() == curve


def test_the_second_phase_continues_the_curve(
    experiment: Experiment, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check a training of two phases, also one that was interrupted in the second."""
    second = Phase(arguments=experiment.arguments, training=experiment.training)
    experiment = experiment.model_copy(update={"second_phase": second})
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    assert read_curve().iteration == (2, 4, 6, 8, 10, 12)
    expected = RUN.curve.read_bytes()
    RUN.curve.unlink()
    step, done = Trainer.step, 0

    def fail_later(self: Trainer, images: Tensor, labels: Tensor) -> None:
        nonlocal done
        done += 1
        if done == 10:
            raise InterruptedError
        step(self, images, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", fail_later)
        patch.setattr("deeplab_bench.training.watch.SNAPSHOT_SECONDS", -1)
        with pytest.raises(InterruptedError):
            train_run(experiment, 0, data_folder, RUN.checkpoint)
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    assert RUN.curve.read_bytes() == expected


def test_what_cannot_be_validated_is_trained(
    experiment: Experiment,
    data_folder: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Let the second point fail: the curve is empty, not one with a gap."""
    validate, calls = module.validate, []

    def fail_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError("too large")
        return validate(*arguments)

    monkeypatch.setattr(module, "validate", fail_once)
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    assert RUN.checkpoint.read_bytes() == finished.read_bytes()
    assert caplog.messages == ["no validation curve: too large"]
    assert len(calls) == 2 and read_curve().iteration == ()


def test_a_snapshot_of_before_there_were_curves_gives_none(
    experiment: Experiment, data_folder: Path, finished: Path
) -> None:
    interrupt(experiment, data_folder, RUN.checkpoint, at=3)
    for path in RUN.checkpoint.parent.glob("*.snapshot"):
        state = torch.load(path, weights_only=True)
        del state["points"]
        torch.save(state, path)
    train_run(experiment, 0, data_folder, RUN.checkpoint)
    assert RUN.checkpoint.read_bytes() == finished.read_bytes()
    assert read_curve().iteration == ()


class Restless(PixelClassifier):
    """A network that draws numbers and counts, in evaluation mode, too."""

    calls: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def logits(self, images: Tensor) -> Tensor:
        self.calls += torch.rand(()) + 1
        return super().logits(images)


@pytest.mark.parametrize("network", ["frozen", "restless"])
def test_the_network_and_its_random_numbers_are_left_alone(
    network: str, experiment: Experiment, val: Split
) -> None:
    """Check also that frozen batch normalisation stays frozen."""
    training = experiment.training.model_copy(update={"batch_norm": "frozen"})
    model = (
        Restless(num_classes=6)
        if network == "restless"
        else build_model(experiment.architecture, experiment.arguments, num_classes=6)
    )
    trainer = Trainer(model, training, CPU)
    modes = [layer.training for layer in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    module.validate(model, val, trainer.device)
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_not_defined_is_none(val: Split) -> None:
    """Check a network whose logits are not finite."""
    model = PixelClassifier(num_classes=len(val.classes))
    torch.nn.init.constant_(model.classifier.weight, float("inf"))
    assert module.validate(model, val, CPU)[0] is None


def test_few_iterations_have_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that each point is one at which a GPU stops, or the last."""
    monkeypatch.undo()
    assert module.list_due(3) == [3]
    assert module.list_due(20) == [20]
    assert module.list_due(100) == [20, 40, 60, 80, 100]
    assert module.list_due(480) == [60, 120, 180, 240, 300, 360, 420, 480]
    assert module.list_due(30007) == [3740, 7500, 11240, 15000, 18740, 22500, 26240, 30007]


@pytest.mark.parametrize(
    "checkpoint",
    ["checkpoints/toy/pretraining.pt", "elsewhere/toy/plain-0.pt", "checkpoints/none/plain-0.pt"],
)
def test_a_training_outside_the_profiles_has_no_curve(checkpoint: str) -> None:
    assert module.begin_validation(Snapshots(Path(checkpoint), {}), phase=1) is None


def test_a_profile_without_validation_images_has_no_curve(data_folder: Path) -> None:
    """Check also that a split which is incomplete is named before the training."""
    manifest = json.loads((data_folder / MANIFEST).read_text(encoding="utf-8"))
    snapshots = Snapshots(RUN.checkpoint, {})
    Path("data/toy").unlink()
    Path("data/toy").mkdir()
    Path("data/toy", MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.images\.bin is missing or incomplete"):
        module.begin_validation(snapshots, phase=1)
    del manifest["splits"]["val"]
    Path("data/toy", MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    assert module.begin_validation(snapshots, phase=1) is None
