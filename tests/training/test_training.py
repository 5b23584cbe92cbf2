"""Tests that training follows its settings, and is repeatable even after an interruption."""

import hashlib
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
from conftest import ARGUMENTS, train_run
from small_networks import count_positions, interpolate_by_hand
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.pixels import VOID, DataError
from deeplab_bench.models import build_model, list_arguments
from deeplab_bench.models.grid import Grid
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.results import provenance
from deeplab_bench.runtime.signals import SIGNALS
from deeplab_bench.settings.experiment import Experiment, Phase
from deeplab_bench.settings.training import Training
from deeplab_bench.training import snapshots as snapshots_module
from deeplab_bench.training import train as train_module
from deeplab_bench.training import trainer as trainer_module
from deeplab_bench.training import watch as watch_module
from deeplab_bench.training.loss import compute_class_weights, segmentation_loss, subsample
from deeplab_bench.training.pretrained import WeightsError
from deeplab_bench.training.snapshots import KEPT, LockError, Snapshots
from deeplab_bench.training.train import get_timing_file, read_timing
from deeplab_bench.training.trainer import Trainer, TrainingError, TrainingLoss

CPU = torch.device("cpu")

# Both depend on the machine: the second is of Python 3.12 and later.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]


class PixelClassifier(Segmenter):
    """The smallest network: a linear function of each pixel."""

    colours = IMAGENET

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, num_classes, 1)

    @property
    def grid(self) -> Grid:
        return Grid(1)

    def logits(self, images: Tensor) -> Tensor:
        return self.classifier(images)


class Interrupted(BaseException):
    """An exception in place of SIGINT."""


def changed(experiment: Experiment, **settings: Any) -> Experiment:
    update = {"training": experiment.training.model_copy(update=settings)}
    return experiment.model_copy(update=update)


def watch_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[int]:
    """Record the iterations from now on, and interrupt at the iteration ``stop_at``."""
    steps: list[int] = []
    step = Trainer.step

    def watched(self: Trainer, images: Tensor, labels: Tensor) -> None:
        if self.iteration == stop_at:
            raise Interrupted
        steps.append(self.iteration)
        step(self, images, labels)

    monkeypatch.setattr(Trainer, "step", watched)
    return steps


def interrupt(
    experiment: Experiment, data: Path, checkpoint: Path, at: int, workers: int = 0
) -> None:
    """Leave the snapshot of a run of seed 0 that got as far as iteration ``at``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_module, "SNAPSHOT_SECONDS", -1)
        watch_steps(patch, stop_at=at)
        with pytest.raises(Interrupted):
            train_run(experiment, 0, data, checkpoint, workers)
    assert not checkpoint.exists()
    assert 1 <= len(list(checkpoint.parent.glob("*.snapshot"))) <= KEPT


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def load(checkpoint: Path) -> Any:
    return torch.load(checkpoint, map_location="cpu", weights_only=True)


class TestReproducibility:
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_same_seed_same_bytes(
        self,
        workers: int,
        experiment: Experiment,
        data_folder: Path,
        finished: Path,
        tmp_path: Path,
    ) -> None:
        torch.manual_seed(workers)
        np.random.seed(workers)
        train_run(experiment, 0, data_folder, tmp_path / "other.pt", workers)
        assert (tmp_path / "other.pt").read_bytes() == finished.read_bytes()

    def test_other_seed_other_model(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        """Check the initial weights, by training with a learning rate near zero."""
        experiment = changed(experiment, base_lr=1e-30)
        for seed in range(2):
            train_run(experiment, seed, data_folder, tmp_path / f"{seed}.pt")
        one, other = (load(tmp_path / f"{seed}.pt") for seed in range(2))
        assert one["history"] != other["history"]
        name = "backbone.conv1.weight"
        assert not torch.allclose(one["model"][name], other["model"][name])

    @pytest.mark.parametrize(
        ("precision", "workers", "at"),
        [("float32", 0, 1), ("float32", 2, 3), ("bfloat16", 0, 3), ("float32", 0, 5)],
    )
    def test_resumed_run_equals_uninterrupted(
        self,
        precision: str,
        workers: int,
        at: int,
        experiment: Experiment,
        data_folder: Path,
        finished: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        experiment = changed(experiment, precision=precision)
        if precision != "float32":
            monkeypatch.setattr(
                trainer_module, "require_precision", lambda *_: None
            )  # it is emulated
            train_run(experiment, 0, data_folder, tmp_path / "uninterrupted.pt")
            assert load(tmp_path / "uninterrupted.pt")["history"] != load(finished)["history"]
            finished = tmp_path / "uninterrupted.pt"
        checkpoint = tmp_path / "run" / "plain-0.pt"
        interrupt(experiment, data_folder, checkpoint, at, workers)
        steps = watch_steps(monkeypatch)
        train_run(experiment, 0, data_folder, checkpoint, workers)
        assert steps == list(range(at, experiment.training.iterations))
        assert checkpoint.read_bytes() == finished.read_bytes()
        assert names_in(checkpoint.parent) == {"plain-0.pt", "plain-0.timing.json", "plain-0.lock"}

    def test_interrupted_twice_and_at_the_end(
        self,
        experiment: Experiment,
        data_folder: Path,
        finished: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Interrupt the last time after all steps, before the checkpoint is written."""
        checkpoint = tmp_path / "plain-0.pt"
        interrupt(experiment, data_folder, checkpoint, at=2)
        interrupt(experiment, data_folder, checkpoint, at=4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watch_module, "SNAPSHOT_SECONDS", -1)
            patch.setattr(Trainer, "history", lambda self: next(iter(())))
            with pytest.raises(StopIteration):
                train_run(experiment, 0, data_folder, checkpoint)
        steps = watch_steps(monkeypatch)
        train_run(experiment, 0, data_folder, checkpoint)
        assert steps == []
        assert checkpoint.read_bytes() == finished.read_bytes()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_signal_to_end_saves_the_step(
        self,
        number: signal.Signals,
        workers: int,
        experiment: Experiment,
        data_folder: Path,
        finished: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Check the exit status, that no step is lost, and the bytes after going on."""
        checkpoint, step = tmp_path / "plain-0.pt", Trainer.step

        def signalled(self: Trainer, images: Tensor, labels: Tensor) -> None:
            if self.iteration == 3:
                os.kill(os.getpid(), number)
            step(self, images, labels)

        handlers = [signal.getsignal(each) for each in SIGNALS]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", signalled)
            with pytest.raises(SystemExit) as end:
                train_run(experiment, 0, data_folder, checkpoint, workers)
        assert end.value.code == 128 + number
        assert [signal.getsignal(each) for each in SIGNALS] == handlers
        steps = watch_steps(monkeypatch)
        train_run(experiment, 0, data_folder, checkpoint, workers)
        assert steps == [4, 5]
        assert checkpoint.read_bytes() == finished.read_bytes()

    def test_a_second_ctrl_c_ends_at_once(
        self,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupted(*_: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_run(experiment, 0, data_folder, tmp_path / "plain-0.pt")
        assert not list(tmp_path.glob("*.snapshot"))

    @pytest.mark.parametrize(("damaged", "goes_on_from"), [(0, 4), (1, 3), (KEPT, 0)])
    @pytest.mark.parametrize("left", [0, 0.5, 0.999])
    def test_truncated_snapshots(
        self,
        damaged: int,
        goes_on_from: int,
        left: float,
        experiment: Experiment,
        data_folder: Path,
        finished: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Truncate the newest snapshots, as a full disk or a power failure would."""
        checkpoint = tmp_path / "plain-0.pt"
        interrupt(experiment, data_folder, checkpoint, at=4)
        newest_first = sorted(tmp_path.glob("*.snapshot"), reverse=True)
        assert len(newest_first) == KEPT
        for snapshot in newest_first[:damaged]:
            content = snapshot.read_bytes()
            snapshot.write_bytes(content[: int(left * len(content))])
        steps = watch_steps(monkeypatch)
        train_run(experiment, 0, data_folder, checkpoint)
        assert steps == list(range(goes_on_from, experiment.training.iterations))
        assert checkpoint.read_bytes() == finished.read_bytes()
        assert names_in(tmp_path) == {"plain-0.pt", "plain-0.timing.json", "plain-0.lock"}
        named = [record.args for record in caplog.records if "is damaged" in record.message]
        assert named == [(path,) for path in newest_first[:damaged]]

    def test_snapshots_of_other_settings_go_with_the_first_own(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        checkpoint = tmp_path / "plain-0.pt"
        interrupt(experiment, data_folder, checkpoint, at=2)
        before = set(tmp_path.glob("*.snapshot"))
        other = changed(experiment, weight_decay=0.0)
        interrupt(other, data_folder, checkpoint, at=0)
        assert set(tmp_path.glob("*.snapshot")) == before
        (tmp_path / f"{next(iter(before)).name}.partial").write_bytes(b"half")
        interrupt(other, data_folder, checkpoint, at=1)
        after = set(tmp_path.glob("*.snapshot*"))
        assert len(after) == 1
        assert after.isdisjoint(before)

    @pytest.mark.parametrize("other", ["settings", "seed", "code", "data", "weights"])
    def test_snapshot_of_another_run_is_not_taken_up(
        self,
        other: str,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        checkpoint = tmp_path / "plain-0.pt"
        interrupt(experiment, data_folder, checkpoint, at=2)
        seed = 0
        if other == "settings":
            experiment = changed(experiment, weight_decay=0.0)
        elif other == "seed":
            seed = 1
        else:
            name = f"compute_{other}_sha256"
            monkeypatch.setattr(provenance, name, lambda *_: "another")
        steps = watch_steps(monkeypatch)
        train_run(experiment, seed, data_folder, checkpoint)
        assert steps == list(range(experiment.training.iterations))

    def test_timing_is_kept_out_of_the_checkpoint(self, finished: Path) -> None:
        assert set(load(finished)) == {"model", "provenance", "history", "classes", "experiment"}
        timing = read_timing(finished)
        assert timing["training_seconds"] > 0
        assert torch.__version__.startswith(timing["environment"]["torch"])

    def test_missing_timing_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError) as caught:
            read_timing(tmp_path / "plain-0.pt")
        path = get_timing_file(tmp_path / "plain-0.pt")
        assert str(caught.value) == f"{path} is missing: run `dvc repro`"


class TestLoss:
    def random(self, seed: int, void: float) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(seed)
        logits = 5 * torch.randn(3, 4, 6, 5, generator=random, dtype=torch.float64)
        labels = torch.randint(0, 4, (3, 6, 5), generator=random)
        labels[torch.rand(labels.shape, generator=random) < void] = VOID
        return logits.requires_grad_(), labels

    @pytest.mark.parametrize("void", [0.0, 0.3, 0.9])
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_torch(self, seed: int, void: float) -> None:
        logits, labels = self.random(seed, void)
        expected = F.cross_entropy(logits, labels, ignore_index=VOID)
        loss = segmentation_loss(logits, labels)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
        )

    def test_all_void(self) -> None:
        logits, labels = self.random(0, void=1.1)
        loss = segmentation_loss(logits, labels)
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None and not logits.grad.any()

    def test_void_pixels_have_no_part(self) -> None:
        logits, labels = self.random(1, void=0.5)
        (gradient,) = torch.autograd.grad(segmentation_loss(logits, labels), logits)
        touched = gradient.abs().sum(dim=1) > 0
        assert torch.equal(touched, labels != VOID)

    @pytest.mark.parametrize("batch", [1, 2, 16])
    def test_is_a_mean_over_pixels_not_divided_again(self, batch: int) -> None:
        """Check that for equally likely classes the loss is log C, for any batch and crop."""
        labels = torch.zeros(batch, 3, 5, dtype=torch.int64)
        loss = segmentation_loss(torch.zeros(batch, 7, 3, 5), labels)
        assert loss.item() == pytest.approx(math.log(7))

    def test_images_weigh_by_their_valid_pixels(self) -> None:
        """Check two images with 1 and 3 valid pixels."""
        logits = torch.tensor([[0.0, 0.0], [0.0, 3.0]]).view(2, 2, 1, 1).expand(2, 2, 2, 2)
        labels = torch.tensor([[[0, VOID], [VOID, VOID]], [[0, 0], [0, VOID]]])
        expected = (math.log(2) + 3 * math.log(1 + math.exp(3))) / 4
        assert segmentation_loss(logits, labels).item() == pytest.approx(expected)

    @pytest.mark.parametrize("void", [0.0, 0.4])
    def test_classes_weigh_in_the_mean(self, void: float) -> None:
        logits, labels = self.random(2, void)
        weights = torch.linspace(0.2, 3.0, logits.shape[1], dtype=logits.dtype)
        expected = F.cross_entropy(logits, labels, weights, ignore_index=VOID)
        torch.testing.assert_close(segmentation_loss(logits, labels, weights), expected)

    def test_weighted_and_all_void(self) -> None:
        logits, labels = self.random(0, void=1.1)
        weights = torch.ones(logits.shape[1], dtype=logits.dtype)
        assert segmentation_loss(logits, labels, weights).item() == 0

    @pytest.mark.parametrize("power", [0.5, 1.0])
    def test_weights_of_classes(self, power: float, data_folder: Path) -> None:
        """Compare with a loop over the images; no image shows the last class."""
        split = load_split(data_folder, "train")
        labels = [np.array(split.label(index)) for index in range(len(split))]
        frequencies = [
            sum((label == c).sum() for label in labels)
            / sum((label != VOID).sum() for label in labels if (label == c).any())
            for c in range(5)
        ]
        weights = compute_class_weights(split, power)
        assert weights is not None
        expected = [*(np.median(frequencies) / frequencies) ** power, 0.0]
        np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
        assert compute_class_weights(split, 0.0) is None

    def test_training_weighs_the_classes(self, experiment: Experiment) -> None:
        weights, batch = torch.tensor([0.0, 1.0]), random_batch(2, 2)
        settings = experiment.training.model_copy(update={"iterations": 1})
        torch.manual_seed(0)
        plain = Trainer(PixelClassifier(2), settings, CPU)
        torch.manual_seed(0)
        weighted = Trainer(PixelClassifier(2), settings, CPU, weights)
        logits = plain.model(by_hand_normalised(batch[0]).float())
        labels = batch[1].long()
        plain.step(*batch)
        weighted.step(*batch)
        only_second = labels.where(labels == 1, VOID)
        expected = F.cross_entropy(logits, only_second, ignore_index=VOID)
        assert weighted.losses[0].item() == pytest.approx(expected.item(), rel=1e-4)
        assert weighted.losses[0] != plain.losses[0]


def random_batch(batch_size: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch_size, 3, 32, 40), generator=random).byte()
    labels = torch.randint(0, classes, (batch_size, 32, 40), generator=random).byte()
    labels[:, :3] = VOID
    return images, labels


def by_hand_normalised(images: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)
    return (images.double() / 255 - mean) / std


class TestOptimisation:
    @pytest.mark.parametrize("batch_size", [2, 8])
    @pytest.mark.parametrize("iterations", [3, 10])
    def test_poly_schedule(self, batch_size: int, iterations: int, experiment: Experiment) -> None:
        settings = experiment.training.model_copy(
            update={"batch_size": batch_size, "iterations": iterations, "base_lr": 0.2}
        )
        trainer = Trainer(PixelClassifier(2), settings, CPU)
        for i in range(iterations):
            (group,) = trainer.optimizer.param_groups
            assert group["lr"] == pytest.approx(0.2 * (1 - i / iterations) ** 0.9, rel=1e-9)
            trainer.step(*random_batch(batch_size, 2))
        assert trainer.optimizer.param_groups[0]["lr"] == 0

    def test_step_schedule(self, experiment: Experiment) -> None:
        changes = {"lr_policy": "step", "step_iterations": 2, "step_factor": 0.1, "base_lr": 0.2}
        trainer = Trainer(PixelClassifier(2), changed(experiment, **changes).training, CPU)
        rates = []
        for _ in range(5):
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            trainer.step(*random_batch(2, 2))
        assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002])

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ({"lr_policy": "poly", "poly_power": 1.0}, [0.05, 0.1, 0.15, 0.2, 0.4 / 3, 0.2 / 3]),
            (
                {"lr_policy": "step", "step_iterations": 2, "step_factor": 0.1},
                [0.05, 0.1, 0.15, 0.2, 0.2, 0.02],
            ),
            ({"lr_policy": "fixed"}, [0.05, 0.1, 0.15, 0.2, 0.2, 0.2]),
        ],
    )
    def test_warmup_comes_before_the_policy(
        self, policy: dict[str, Any], expected: list[float], experiment: Experiment
    ) -> None:
        """Check equal steps up to the rate, on all groups; then the policy from its beginning."""
        changes = policy | {"warmup_iterations": 3, "base_lr": 0.2, "head_lr_multiplier": 10.0}
        settings = changed(experiment, **changes).training
        trainer = Trainer(build_model("fcn", experiment.arguments, num_classes=2), settings, CPU)
        rates = []
        for _ in range(settings.iterations):
            rates.append([group["lr"] for group in trainer.optimizer.param_groups])
            trainer.step(*random_batch(2, 2))
        assert [min(rate) for rate in rates] == pytest.approx(expected)
        assert [max(rate) for rate in rates] == pytest.approx([10 * rate for rate in expected])

    def test_a_run_resumes_within_its_warmup(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        experiment = changed(experiment, warmup_iterations=4)
        whole, parts = tmp_path / "whole.pt", tmp_path / "parts" / "plain-0.pt"
        train_run(experiment, 0, data_folder, whole)
        interrupt(experiment, data_folder, parts, at=2)
        train_run(experiment, 0, data_folder, parts)
        assert parts.read_bytes() == whole.read_bytes()

    @pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
    def test_residual_units_start_as_identities_if_the_setting_asks(
        self, backbone: str, experiment: Experiment
    ) -> None:
        """Compare all scales with those of torchvision's network with ``zero_init_residual``."""
        arguments = {"backbone": backbone, "width": 0.25, "output_stride": 16}
        cascade = experiment.model_copy(update={"architecture": "cascade", "arguments": arguments})
        build = getattr(torchvision.models, backbone)
        theirs = build(zero_init_residual=True).state_dict()
        for zero_init_residual in (True, False):
            settings = changed(cascade, zero_init_residual=zero_init_residual)
            state = train_module.build_initial_model(settings, ["a", "b"]).backbone.state_dict()
            for key, x in theirs.items():
                if ".bn" in key and key.endswith(".weight"):
                    zero = zero_init_residual and not x.any()
                    assert (state[key] == (0 if zero else 1)).all(), key
            last = "bn3" if backbone == "resnet50" else "bn2"
            assert state[f"layer7.1.{last}.weight"].any() != zero_init_residual

    def test_of_pretrained_units_only_copies_start_as_identities(
        self, experiment: Experiment, tmp_path: Path
    ) -> None:
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "x.pth")
        arguments = {"backbone": "resnet18", "width": 1.0, "output_stride": 16}
        cascade = experiment.model_copy(update={"architecture": "cascade", "arguments": arguments})
        settings = {"weights": str(tmp_path / "x.pth"), "zero_init_residual": True}
        initial = train_module.build_initial_model(changed(cascade, **settings), ["a", "b"])
        state = initial.backbone.state_dict()
        for key in [key for key in state if key.endswith("bn2.weight")]:
            assert state[key].any() != key.startswith(("layer5", "layer6", "layer7")), key
        assert torch.equal(state["layer6.0.conv2.weight"], state["layer4.1.conv2.weight"])

    def test_the_head_has_a_rate_of_its_own(self, experiment: Experiment) -> None:
        """Check that in one plain step every parameter moves by its gradient times its rate."""
        changes = {"head_lr_multiplier": 10.0, "momentum": 0.0, "weight_decay": 0.0}
        model = build_model("fcn", experiment.arguments, num_classes=4)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer = Trainer(model, changed(experiment, **changes).training, CPU)
        trainer.step(*random_batch(2, 4))
        for name, p in model.named_parameters():
            assert p.grad is not None
            rate = 0.05 if name.startswith("backbone.") else 0.5
            torch.testing.assert_close(p, before[name] - rate * p.grad, msg=name)

    @pytest.mark.parametrize(
        ("settings", "bias_rate", "decayed"),
        [
            ({}, 1, {"weight", "bias", "norm"}),
            ({"decay_norm": False}, 1, {"weight", "bias"}),
            ({"decay_bias": False}, 1, {"weight", "norm"}),
            ({"decay_norm": False, "decay_bias": False, "bias_lr_multiplier": 2.0}, 2, {"weight"}),
        ],
    )
    @pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
    def test_biases_and_normalisation_have_settings_of_their_own(
        self,
        backbone: str,
        settings: dict[str, Any],
        bias_rate: float,
        decayed: set[str],
        experiment: Experiment,
    ) -> None:
        """Caffe's lr_mult 1, 2, 10 and 20 and decay_mult 1 and 0, seen in one plain step."""
        settings = settings | {"head_lr_multiplier": 10.0, "momentum": 0.0, "weight_decay": 0.3}
        arguments = ARGUMENTS | {"backbone": backbone, "channels": 16, "atrous_rate": 2}
        known = list_arguments("largefov")
        arguments = {key: value for key, value in arguments.items() if key in known}
        model = build_model("largefov", arguments, num_classes=4)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer = Trainer(model, changed(experiment, **settings).training, CPU)
        trainer.step(*random_batch(2, 4))
        for name, p in model.named_parameters():
            owner, _, kind = name.rpartition(".")
            kind = kind if isinstance(model.get_submodule(owner), nn.Conv2d) else "norm"
            rate = 0.05 * (1 if name.startswith("backbone.") else 10)
            rate *= bias_rate if kind == "bias" else 1
            assert p.grad is not None
            step = p.grad + 0.3 * before[name] * (kind in decayed)
            torch.testing.assert_close(p, before[name] - rate * step, msg=name)

    def test_a_fixed_rate(self, experiment: Experiment) -> None:
        settings = changed(experiment, lr_policy="fixed", base_lr=0.2).training
        trainer = Trainer(PixelClassifier(2), settings, CPU)
        for _ in range(settings.iterations):
            assert trainer.optimizer.param_groups[0]["lr"] == 0.2
            trainer.step(*random_batch(2, 2))

    def test_frozen_batch_normalisation_stays_as_it_is(self, experiment: Experiment) -> None:
        model = build_model("aspp", ARGUMENTS, num_classes=4)
        frozen = {
            f"{name}.{key}": value.clone()
            for name, module in model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for key, value in module.state_dict().items()
        }
        before = {key: value.clone() for key, value in model.state_dict().items()}
        trainer = Trainer(model, changed(experiment, batch_norm="frozen").training, CPU)
        for seed in range(2):
            trainer.step(*random_batch(2, 4, seed))
        assert frozen
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]) == (key in frozen), key

    @pytest.mark.parametrize("batch_size", [2, 5])
    def test_iterations_do_not_depend_on_the_batch_size(
        self,
        batch_size: int,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        steps = watch_steps(monkeypatch)
        experiment = changed(experiment, batch_size=batch_size, iterations=4)
        train_run(experiment, 0, data_folder, tmp_path / "x.pt")
        assert steps == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param({"momentum": 0.0, "weight_decay": 0.0}, id="plain"),
            pytest.param({"momentum": 0.9, "weight_decay": 0.0}, id="momentum"),
            pytest.param({"momentum": 0.0, "weight_decay": 0.3}, id="weight-decay"),
            pytest.param({"momentum": 0.7, "weight_decay": 0.1, "poly_power": 2.0}, id="all"),
        ],
    )
    def test_steps_by_hand(self, settings: dict[str, Any], experiment: Experiment) -> None:
        """Compare with three steps of SGD written out, on images normalised by hand."""
        settings = experiment.training.model_dump() | {"iterations": 3, "base_lr": 0.5} | settings
        torch.manual_seed(0)
        model = PixelClassifier(4)
        expected = [p.detach().clone().double().requires_grad_() for p in model.parameters()]
        velocity = [torch.zeros_like(p) for p in expected]
        trainer = Trainer(model, Training(**settings), CPU)
        for i in range(3):
            images, labels = random_batch(2, 4, seed=i)
            trainer.step(images, labels)

            logits = F.conv2d(by_hand_normalised(images), expected[0], expected[1])
            loss = F.cross_entropy(logits, labels.long(), ignore_index=255)
            assert trainer.last_loss() == pytest.approx(loss.item(), rel=1e-5)
            rate = 0.5 * (1 - i / 3) ** settings["poly_power"]
            for p, v, g in zip(
                expected, velocity, torch.autograd.grad(loss, expected), strict=True
            ):
                v.mul_(settings["momentum"]).add_(g + settings["weight_decay"] * p.detach())
                p.data -= rate * v
        for actual, p in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(actual.double(), p, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("momentum", [0.1, 0.0003])
    def test_batch_statistics_by_hand(self, momentum: float, experiment: Experiment) -> None:
        """Check how far one step moves the running statistics towards those of the batch."""
        experiment = changed(experiment, batch_norm_momentum=momentum)
        torch.manual_seed(0)
        model = build_model("fcn", experiment.arguments, num_classes=4).eval()
        backbone = cast(Any, model).backbone
        images, labels = random_batch(4, 4)
        with torch.no_grad():
            padded = backbone.grid.pad(by_hand_normalised(images))
            responses = backbone.conv1.double()(padded).transpose(0, 1)
        backbone.conv1.float()
        Trainer(model, experiment.training, CPU).step(images, labels)
        responses = responses.flatten(1)
        means = momentum * responses.mean(1)
        variances = 1 - momentum + momentum * responses.var(1)
        torch.testing.assert_close(backbone.bn1.running_mean.double(), means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            backbone.bn1.running_var.double(), variances, rtol=1e-4, atol=1e-5
        )

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_every_architecture_trains(self, architecture: str, experiment: Experiment) -> None:
        """Check that every parameter and statistic changes; one crop of the batch is all void."""
        known = list_arguments(architecture)
        arguments = {key: value for key, value in ARGUMENTS.items() if key in known}
        torch.manual_seed(0)
        model = build_model(architecture, arguments, num_classes=4)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        trainer = Trainer(model, experiment.training, CPU)
        for seed in range(2):
            images, labels = random_batch(2, 4, seed)
            labels[seed] = VOID
            trainer.step(images, labels)
        trainer.require_finite_losses()
        for key, value in model.state_dict().items():
            assert value.isfinite().all(), key
            assert not torch.equal(value, before[key]), key

    def test_compiled_steps_are_the_same(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Compile with the backend "eager", since compiling kernels takes half a minute."""
        compiled: list[Any] = []

        def by_reading(module: nn.Module, compile_: Any = torch.compile) -> Any:
            compiled.append(module)
            return compile_(module, backend="eager", fullgraph=True)

        monkeypatch.setattr(torch, "compile", by_reading)
        losses = []
        for compile_ in (False, True):
            torch.manual_seed(0)
            model = build_model("aspp", ARGUMENTS, num_classes=4)
            trainer = Trainer(model, changed(experiment, compile=compile_).training, CPU)
            for seed in range(2):
                trainer.step(*random_batch(2, 4, seed))
            losses.append(trainer.losses)
        assert len(compiled) == 1
        torch.testing.assert_close(*losses)

    def test_batch_of_void_teaches_nothing(self, experiment: Experiment) -> None:
        settings = experiment.training.model_copy(update={"weight_decay": 0.0})
        torch.manual_seed(0)
        model = build_model("fcn", experiment.arguments, num_classes=4)
        before = [p.detach().clone() for p in model.parameters()]
        trainer = Trainer(model, settings, CPU)
        images, labels = random_batch(2, 4)
        trainer.step(images, torch.full_like(labels, VOID))
        trainer.require_finite_losses()
        assert trainer.losses[0] == 0
        assert all(map(torch.equal, model.parameters(), before))

    def test_learns_what_is_trivial(self, experiment: Experiment) -> None:
        """Learn images whose halves have the colour of their class."""
        random = np.random.default_rng(0)
        labels = np.repeat(random.integers(0, 3, (24, 1, 2)), 20, axis=2).repeat(32, axis=1)
        images = np.array([[40, 40, 40], [220, 60, 60], [60, 220, 60]])[labels]
        settings = experiment.training.model_copy(update={"iterations": 24, "batch_size": 8})
        torch.manual_seed(0)
        arguments = experiment.arguments | {"output_stride": 8}
        model = build_model("fcn", arguments, num_classes=3)
        trainer = Trainer(model, settings, CPU)
        for i in range(24):
            batch = np.arange(8 * i, 8 * i + 8) % 24
            trainer.step(
                torch.from_numpy(images[batch]).byte().permute(0, 3, 1, 2),
                torch.from_numpy(labels[batch]).byte(),
            )
        losses = trainer.losses[: trainer.iteration]
        assert losses[-4:].mean() < 0.4 * losses[:2].mean()
        found = model(model.colours.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
        assert (found.argmax(1).numpy() == labels).mean() > 0.9


def test_bfloat16_is_refused_where_it_is_emulated(experiment: Experiment) -> None:
    """Check on AVX2, to which the tests are pinned."""
    settings = changed(experiment, precision="bfloat16").training
    with pytest.raises(TrainingError, match=r"^training\.precision is bfloat16, .* to float32"):
        Trainer(PixelClassifier(2), settings, CPU)


class TestSupervision:
    def test_loss_at_the_logits(self, experiment: Experiment) -> None:
        """Check that at output_stride 16 one label of each 16 x 16 is compared."""
        model = build_model("fcn", experiment.arguments | {"output_stride": 16}, num_classes=4)
        images, labels = random_batch(2, 4)
        settings = changed(experiment, loss_resolution="logits").training
        with torch.no_grad():
            logits = model.logits(model.colours.normalise(images))
        height, width = labels.shape[-2:]
        assert logits.shape[-2:] == (-(-(height - 1) // 16) + 1, -(-(width - 1) // 16) + 1)
        few = torch.full((2, *logits.shape[-2:]), VOID)  # a position beyond the crop has no label
        inside = labels[:, ::16, ::16].long()
        few[:, : inside.shape[1], : inside.shape[2]] = inside
        expected = F.cross_entropy(logits, few, ignore_index=VOID)
        loss = TrainingLoss(model, settings, None).loss(logits, labels.long())
        assert loss.item() == pytest.approx(expected.item())

    def test_loss_at_the_image(self, experiment: Experiment) -> None:
        labels = random_batch(2, 4)[1].long()
        model = build_model("fcn", experiment.arguments | {"output_stride": 16}, num_classes=4)
        size = count_positions(labels.shape[-2:], 16, 16)
        logits = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
        training_loss = TrainingLoss(model, experiment.training, None)
        upsampled = interpolate_by_hand(logits, 1 / 16, labels.shape[-2:])
        expected = F.cross_entropy(upsampled, labels, ignore_index=VOID)
        assert training_loss.loss(logits, labels).item() == pytest.approx(expected.item())

    def test_subsampled_labels_are_those_of_caffes_shrinking(self) -> None:
        """DeepLabv1 and v2 shrink crops of 321 pixels to 41: the pixels 0, 8, ..., 320."""
        labels = torch.arange(321)[:, None].expand(321, 321)[None]
        few = subsample(labels, (41, 41), Grid(8))
        assert few[0, :, 0].tolist() == [*range(0, 321, 8)]
        assert torch.equal(subsample(labels.mT, (41, 41), Grid(8)), few.mT)

    def test_labels_beyond_the_crop_are_void(self) -> None:
        labels = torch.arange(24)[:, None].expand(24, 9)[None]
        few = subsample(labels, (5, 3), Grid(16))  # of stride 8 in a network of stride 16
        assert few[0].tolist() == [[x, x, VOID] for x in (0, 8, 16)] + [[VOID] * 3] * 2

    def test_labels_in_the_middle_of_a_cell(self) -> None:
        """After 2x2 pools, a position lies between four pixels."""
        labels = torch.arange(50)[:, None].expand(50, 50)[None]
        few = subsample(labels, (4, 4), Grid(32, from_first_pixel=False))
        assert few[0, :, 0].tolist() == [8, 24, 40, VOID]

    def test_losses_are_weighted(
        self, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = PixelClassifier(4)

        def two(images: Tensor) -> list[tuple[float, Tensor]]:
            return [(1.0, model.logits(images)), (0.4, 2 * model.logits(images))]

        monkeypatch.setattr(model, "training_logits", two)
        images, labels = random_batch(2, 4)
        trainer = Trainer(model, experiment.training, CPU)
        with torch.no_grad():
            logits = model.logits(model.colours.normalise(images))
        main, extra = (
            F.cross_entropy(s, labels.long(), ignore_index=VOID).item()
            for s in (logits, 2 * logits)
        )
        trainer.step(images, labels)
        assert trainer.last_loss() == pytest.approx((main + 0.4 * extra) / 1.4, rel=1e-5)


def in_two_phases(
    experiment: Experiment, train_split: str = "train", **settings: Any
) -> Experiment:
    """Add a second phase at output_stride 8 to the experiment."""
    arguments = experiment.arguments | {"output_stride": 8}
    schedule = experiment.training.model_copy(update={"iterations": 4} | settings)
    second = Phase(arguments=arguments, training=schedule, train_split=train_split)
    return experiment.model_copy(update={"second_phase": second})


SPLIT_USERS = ("iterate_batches", "compute_class_weights")


def watch_splits(monkeypatch: pytest.MonkeyPatch, name: str) -> list[list[str]]:
    """The names of the images that a function of the training is called with from now on."""
    original, seen = getattr(train_module, name), list[list[str]]()

    def watched(split: Split, *args: Any, **keys: Any) -> Any:
        seen.append(split.names)
        return original(split, *args, **keys)

    monkeypatch.setattr(train_module, name, watched)
    return seen


class TestTwoPhases:
    def test_second_goes_on_from_the_first(
        self, experiment: Experiment, data_folder: Path, finished: Path, tmp_path: Path
    ) -> None:
        """Check that a rate near zero and frozen statistics keep the weights of the first."""
        settings: dict[str, Any] = {"base_lr": 1e-12, "batch_norm": "frozen"}
        path = tmp_path / "x.pt"
        train_run(in_two_phases(experiment, **settings), 0, data_folder, path)
        first, second = load(finished), load(path)
        for key, value in second["model"].items():
            torch.testing.assert_close(value, first["model"][key], msg=key)
        iterations = second["history"]["iteration"]
        assert iterations == list(range(1, experiment.training.iterations + 4 + 1))
        assert second["history"]["loss"][:6] == first["history"]["loss"]

    def test_second_has_a_split_of_its_own(
        self,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        experiment = in_two_phases(experiment, "val", class_balancing=0.5)
        seen = [watch_splits(monkeypatch, name) for name in SPLIT_USERS]
        train_run(experiment, 0, data_folder, tmp_path / "x.pt")
        both = [load_split(data_folder, split).names for split in ("train", "val")]
        assert seen == [both, both]

    def test_a_split_that_is_not_there_is_told_before_the_first(
        self,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        steps = watch_steps(monkeypatch)
        with pytest.raises(DataError, match=r"no split 'trainval': run `dvc repro prepare@toy`"):
            train_run(in_two_phases(experiment, "trainval"), 0, data_folder, tmp_path / "x.pt")
        assert steps == []

    @pytest.mark.parametrize("stop_at", [0, 2])
    def test_interrupted_in_the_second(
        self,
        stop_at: int,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Check that it ends the same, and that the first phase does not run again."""
        experiment = in_two_phases(experiment)
        whole, cut = tmp_path / "whole" / "x.pt", tmp_path / "cut" / "x.pt"
        train_run(experiment, 0, data_folder, whole)
        step = Trainer.step

        def stopping(self: Trainer, images: Tensor, labels: Tensor) -> None:
            if self.training == experiment.phases[1].training and self.iteration == stop_at:
                raise Interrupted
            step(self, images, labels)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stopping)
            with pytest.raises(Interrupted):
                train_run(experiment, 0, data_folder, cut)
        steps = watch_steps(monkeypatch)
        train_run(experiment, 0, data_folder, cut)
        assert steps == [0, 1, 2, 3]
        assert cut.read_bytes() == whole.read_bytes()


class TestPretrained:
    def test_training_starts_from_a_file(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        weights = tmp_path / "resnet18.pth"
        model = torchvision.models.resnet18()
        torch.save(model.state_dict(), weights)
        settings = {"weights": str(weights), "base_lr": 1e-12}
        arguments = experiment.arguments | {"width": 1.0}
        experiment = changed(experiment, **settings).model_copy(update={"arguments": arguments})
        train_run(experiment, 0, data_folder, tmp_path / "x.pt")
        state = load(tmp_path / "x.pt")
        for name, value in model.named_parameters():
            if not name.startswith("fc."):
                torch.testing.assert_close(state["model"][f"backbone.{name}"], value, msg=name)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert state["provenance"]["weights_sha256"] == digest

    def test_weights_that_do_not_fit(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "x.pth")
        experiment = changed(experiment, weights=str(tmp_path / "x.pth"))
        with pytest.raises(TrainingError, match=r"training\.weights .*x\.pth of models\.plain: "):
            train_run(experiment, 0, data_folder, tmp_path / "x.pt")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "does not exist"),
            (b"", "cannot be read"),
            (b"no weights", "cannot be read"),
            ({"model": {"a": torch.zeros(1)}}, "contains no state dict"),
            ([1], "contains no state dict"),
        ],
    )
    def test_files_that_are_no_weights(
        self,
        content: Any,
        message: str,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "x.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        experiment = changed(experiment, weights=str(path))
        with pytest.raises(WeightsError, match=rf"x\.pth {message}"):
            train_run(experiment, 0, data_folder, tmp_path / "x.pt")


class TestFailure:
    def test_loss_not_finite_at_the_end(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(TrainingError, match=r"loss is (nan|inf) in iteration 2, .* 1e\+30"):
            train_run(changed(experiment, base_lr=1e30), 0, data_folder, tmp_path / "x.pt")
        assert names_in(tmp_path) == {"x.lock"}

    def test_loss_not_finite_on_the_way(self, experiment: Experiment) -> None:
        """Check that the training stops in the first such iteration, and names its rate."""
        settings = experiment.training.model_copy(update={"iterations": 100, "base_lr": 0.5})
        trainer = Trainer(PixelClassifier(2), settings, CPU)
        watched: list[int] = []

        def spoil(trainer: Trainer) -> None:
            watched.append(trainer.iteration)
            if trainer.iteration == 7:
                next(trainer.model.parameters()).data.fill_(math.nan)

        batches = (random_batch(2, 2) for _ in range(100))
        rate = 0.5 * (1 - 7 / 100) ** settings.poly_power
        with pytest.raises(TrainingError, match=rf"loss is nan in iteration 8, .* {rate:.3g}: "):
            trainer.run(batches, spoil)
        assert watched == list(range(1, 8))

    def test_last_good_snapshot_is_kept(
        self,
        experiment: Experiment,
        data_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(watch_module, "SNAPSHOT_SECONDS", -1)
        checkpoint = tmp_path / "x.pt"
        with pytest.raises(TrainingError):
            train_run(changed(experiment, base_lr=1e30), 0, data_folder, checkpoint)
        (snapshot,) = tmp_path.glob("*.snapshot")
        assert load(snapshot)["iteration"] == 1
        assert load(snapshot)["losses"].isfinite().all()

    def test_second_run_is_kept_off(
        self,
        experiment: Experiment,
        data_folder: Path,
        finished: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(snapshots_module, "PATIENCE_SECONDS", 0.1)
        checkpoint = tmp_path / "plain-0.pt"
        with Snapshots(checkpoint, {}).lock():
            with pytest.raises(LockError, match=r"plain-0\.pt is being trained"):
                train_run(experiment, 0, data_folder, checkpoint)
            assert names_in(tmp_path) == {"plain-0.lock"}
        train_run(experiment, 0, data_folder, checkpoint)
        assert checkpoint.read_bytes() == finished.read_bytes()

    def test_a_run_that_is_about_to_end_is_waited_for(self, tmp_path: Path) -> None:
        holder = Snapshots(tmp_path / "plain-0.pt", {}).lock()
        holder.__enter__()
        threading.Timer(0.5, lambda: holder.__exit__(None, None, None)).start()
        with Snapshots(tmp_path / "plain-0.pt", {}).lock():
            pass

    def test_models_do_not_keep_each_other_off(
        self, experiment: Experiment, data_folder: Path, tmp_path: Path
    ) -> None:
        with Snapshots(tmp_path / "plain-1.pt", {}).lock():
            train_run(experiment, 0, data_folder, tmp_path / "plain-0.pt")

    def test_data_not_prepared(self, experiment: Experiment, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="dvc repro prepare@nothing"):
            train_run(experiment, 0, tmp_path / "nothing", tmp_path / "x.pt")


@pytest.mark.parametrize("iterations", [1, 7, 100, 250])
def test_history(iterations: int, experiment: Experiment) -> None:
    """Check that at most a hundred means together cover every iteration once."""
    trainer = Trainer(PixelClassifier(2), experiment.training, CPU)
    losses = np.random.default_rng(0).random(iterations)
    trainer.losses = torch.from_numpy(losses)
    history = trainer.history()
    ends = [int(end) for end in history["iteration"]]
    assert len(ends) == len(history["loss"]) <= 100
    assert ends == sorted(set(ends)) and ends[-1] == iterations
    starts = [0, *ends[:-1]]
    means = [losses[start:end].mean() for start, end in zip(starts, ends, strict=True)]
    assert history["loss"] == pytest.approx(means, abs=1e-5)
    assert history["start_loss"] == pytest.approx(losses[:10].mean(), abs=1e-5)
