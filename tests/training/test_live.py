"""Tests of the curves of a training that runs: what they hold, and that they change nothing."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from conftest import train_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import interrupt

from deeplab_bench.data.packed import Split
from deeplab_bench.evaluation.checkpoint import read_checkpoint
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.models import build_model
from deeplab_bench.runtime.source import run_git
from deeplab_bench.settings.experiment import Experiment, Phase
from deeplab_bench.settings.inference import Inference
from deeplab_bench.training import live as module
from deeplab_bench.training import validation
from deeplab_bench.training.snapshots import Snapshots
from deeplab_bench.training.trainer import Trainer

FOLDER = Path("logs/live/toy/plain-0")
CHECKPOINT = Path("checkpoints/toy/plain-0.pt")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a repository with the data of ``toy``; log every step and validate after it."""
    monkeypatch.chdir(tmp_path)
    CHECKPOINT.parent.mkdir(parents=True)
    Path("data").mkdir()
    Path("data/toy").symlink_to(data_folder)
    for command in ("init --quiet", "commit --quiet --allow-empty --message begin"):
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        run_git(*author, *command.split())
    monkeypatch.setattr(module, "FIRST_SECONDS", 0)
    monkeypatch.setattr(module, "EVERY_SECONDS", 0)
    monkeypatch.setattr(validation, "LOOK_EVERY", 1)
    monkeypatch.setattr(validation, "POINTS", 6)
    return tmp_path


def read_curve(name: str) -> dict[int, float]:
    path = FOLDER / "plots" / "metrics" / f"{name}.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        return {int(step): float(value) for step, value in rows}


def test_curves_and_the_same_bytes(
    experiment: Experiment, data_folder: Path, val: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = train_run(experiment, 0, data_folder, CHECKPOINT)
    with_curves = CHECKPOINT.read_bytes()
    losses = read_curve("train/loss")
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses == pytest.approx({int(k): v for k, v in found["losses"].items()}, rel=1e-6)
    rates = read_curve("train/learning_rate")
    assert rates[3] == pytest.approx(0.05 * (1 - 2 / 6) ** 0.9)
    assert min(read_curve("train/images_per_second").values()) > 0

    scored, _ = evaluate(experiment, 0, Inference(), val, val, read_checkpoint(CHECKPOINT))
    assert read_curve("val/miou")[6] == pytest.approx(scored["metrics"]["miou"], abs=1e-6)
    assert json.loads((FOLDER / "metrics.json").read_text())["step"] == 6
    events = EventAccumulator(str(FOLDER / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/loss")] == [1, 2, 3, 4, 5, 6]

    monkeypatch.setenv(module.SWITCH, "0")
    CHECKPOINT.unlink()
    train_run(experiment, 0, data_folder, CHECKPOINT)
    assert CHECKPOINT.read_bytes() == with_curves
    assert not FOLDER.exists()


def test_a_resumed_training_goes_on_with_its_curves(
    experiment: Experiment, data_folder: Path
) -> None:
    interrupt(experiment, data_folder, CHECKPOINT, at=4)
    curve = FOLDER / "plots" / "metrics" / "train" / "loss.tsv"
    with curve.open("a", encoding="utf-8") as file:  # a killed process was ahead of its snapshot
        file.write("5\t0.5\n6\t0.5\n")
    train_run(experiment, 0, data_folder, CHECKPOINT)
    steps = [line.partition("\t")[0] for line in curve.read_text().splitlines()[1:]]
    assert steps == ["1", "2", "3", "4", "5", "6"]
    assert list(read_curve("val/miou")) == [1, 2, 3, 4, 5, 6]
    assert 0.5 not in read_curve("train/loss").values()


def test_a_new_training_removes_the_curves_of_an_earlier_one(
    experiment: Experiment, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 600)
    stale = FOLDER / "plots" / "metrics" / "stale.tsv"
    stale.parent.mkdir(parents=True)
    stale.touch()
    train_run(experiment, 0, data_folder, CHECKPOINT)
    assert not FOLDER.exists()


def test_each_phase_has_its_own_curves(experiment: Experiment, data_folder: Path) -> None:
    second = Phase(arguments=experiment.arguments, training=experiment.training)
    train_run(experiment.model_copy(update={"second_phase": second}), 0, data_folder, CHECKPOINT)
    for name in ("plain-0", "plain-0.phase2"):
        assert (FOLDER.with_name(name) / "plots" / "metrics" / "val" / "miou.tsv").is_file()


def test_a_curve_is_not_worth_a_training(
    experiment: Experiment,
    data_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(module.DVCLiveWriter, "write", fail)
    train_run(experiment, 0, data_folder, CHECKPOINT)
    assert caplog.messages == ["no more live curves: the disk is full"]
    assert CHECKPOINT.exists()


class Recorder:
    def __init__(self) -> None:
        self.entries: list[tuple[int, Mapping[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.entries.append((step, values))


def test_pauses_and_late_points(experiment: Experiment) -> None:
    """Check a rate without the time of a validation, and a point before the first entry."""
    model = build_model(experiment.architecture, experiment.arguments, num_classes=6)
    trainer = Trainer(model, experiment.training, torch.device("cpu"))
    snapshots = Snapshots(CHECKPOINT, {})
    snapshots.points[1] = {1: (0.5, None)}
    live, recorder = module.Live(snapshots, 1, trainer), Recorder()
    live.writers = [recorder]
    trainer.iteration, trainer.seconds = 2, 1000.0
    live(trainer, paused=3000.0)
    trainer.iteration, trainer.seconds = 4, 5000.0
    live(trainer, paused=0.0)
    assert [step for step, _ in recorder.entries] == [1, 2, 4]
    assert recorder.entries[0][1] == {"val/loss": 0.5}
    rates = [values["train/images_per_second"] for _, values in recorder.entries[1:]]
    assert rates == pytest.approx([0.004, 0.004], rel=0.01)


def test_a_short_training_leaves_none(
    experiment: Experiment, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 600)
    train_run(experiment, 0, data_folder, CHECKPOINT)
    assert not FOLDER.exists()
