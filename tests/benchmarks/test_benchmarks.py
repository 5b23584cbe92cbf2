"""Tests of every benchmark at tiny sizes, without the libraries to compare with."""

import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks import comparison, confusion, crf, data_path, network_steps
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.comparison import (
    OURS,
    Implementation,
    MissingPeer,
    Rates,
    Workload,
    build_implementations,
    compare,
    import_peer,
    make_row,
    measure_rates,
)
from deeplab_bench.evaluation.measures import confusion as metrics
from studies.crf_workers import make_crf_task

CPU = torch.device("cpu")
NARROW = {"backbone": "resnet18", "width": 0.25, "head_channels": 8}
PEERS = ("segmentation_models_pytorch", "torchmetrics", "torchmetrics.classification")


class OtherNetwork(nn.Module):
    """A network that returns its logits in a dictionary, as torchvision's do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, network_steps.CLASSES, kernel_size=3, padding=1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.convolution(images)}


@pytest.fixture
def tiny(tmp_path: Path) -> Workload:
    return Workload(CPU, crop=33, batch=2, seconds=0, folder=tmp_path)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use small networks and few images, and hide the libraries to compare with."""
    monkeypatch.chdir(tmp_path)
    arguments = network_steps.ARGUMENTS | NARROW
    for module in (network_steps, data_path):
        monkeypatch.setattr(module, "ARGUMENTS", arguments)
        monkeypatch.setattr(network_steps, "build_torchvision_network", OtherNetwork)
    monkeypatch.setattr(data_path, "IMAGES", 3)
    monkeypatch.setattr(data_path, "SIDES", (30, 40))
    monkeypatch.setattr(data_path, "STEPS", 2)
    monkeypatch.setattr(comparison, "MIN_ROUNDS", 1)
    monkeypatch.setattr(torch, "compile", lambda module: module)
    monkeypatch.setattr(
        comparison, "measure_rates", lambda *_: Rates(defaultdict(lambda: 1e9), 1e9)
    )
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_makes_a_table(name: str, tiny: Workload) -> None:
    benchmark = BENCHMARKS[name](tiny)
    assert benchmark.name == name
    table = compare(benchmark, tiny)
    assert table.data["implementation"].iloc[0] == OURS
    assert table.data["ratio"].iloc[0] == 1
    there = set(benchmark.implementations) - {"torchmetrics"}
    assert set(table.data["implementation"]) == {
        n for n in there if not n.startswith("segmentation")
    }
    assert (table.data["p50_ms"] > 0).all()


def test_the_files_name_a_missing_peer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "miou", *["--crop", "9", "--batch", "2", "--seconds", "0"]]
    )
    main()
    folder = Path("results/benchmarks/cpu")
    assert pd.read_csv(folder / "miou.csv")["implementation"].tolist() == [OURS]
    missing = "The rows of torchmetrics.classification are left out, because "
    assert missing in (folder / "miou.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(missing)


def test_a_peer_that_is_there_is_compared(monkeypatch: pytest.MonkeyPatch, tiny: Workload) -> None:
    """Replace torchmetrics, which is not a dependency, by a class of the same interface."""

    class Metric:
        def __init__(self, num_classes: int, ignore_index: int) -> None:
            self.confusion: Any = 0

        def update(self, prediction: torch.Tensor, label: torch.Tensor) -> None:
            self.confusion += metrics.confusion_matrix(label.numpy(), prediction.numpy(), 21)

        def compute(self) -> float:
            return metrics.miou(self.confusion) + self.error

        error = 0.0

    classification = type(sys)("torchmetrics.classification")
    classification.MulticlassJaccardIndex = Metric  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchmetrics", type(sys)("torchmetrics"))
    monkeypatch.setitem(sys.modules, "torchmetrics.classification", classification)
    table = compare(confusion.build_miou_benchmark(tiny), tiny)
    assert table.data["implementation"].tolist() == [OURS, "torchmetrics"]
    assert "left out" not in table.caption.text
    monkeypatch.setattr(Metric, "error", 0.01)
    with pytest.raises(
        ValueError, match=r"mIoU is 0\.\d+ by deeplab-bench but 0\.\d+ by torchmetrics"
    ):
        build_implementations(confusion.build_miou_benchmark(tiny))


def test_the_message_on_a_missing_peer() -> None:
    with pytest.raises(
        MissingPeer, match=r"^The rows of torchmetrics are .* `pip install -e '\.\[bench\]'`$"
    ):
        import_peer("torchmetrics")


def test_a_row_has_ratios_and_times_of_arithmetic_and_transfer() -> None:
    implementation = Implementation(lambda: None, flops=2_000_000_000, traffic_bytes=50_000_000)
    row = make_row(
        "other", implementation, [2.0, 6.0, 4.0], [1.0, 2.0, 4.0], Rates({torch.float32: 4e9}, 1e8)
    )
    assert (row["p50_ms"], row["rounds"]) == (4000, 3)
    assert [row[key] for key in ("ratio_p25", "ratio", "ratio_p75")] == [1.5, 2, 2.5]
    assert (row["gflop"], row["arithmetic_ms"]) == (2, 500)
    assert (row["traffic_mb"], row["transfer_ms"]) == (50, 500)
    unknown = make_row(
        "other", Implementation(lambda: None), [1.0], [1.0], Rates({torch.float32: 1}, 1)
    )
    assert math.isnan(unknown["arithmetic_ms"]) and math.isnan(unknown["transfer_ms"])


def test_rates_come_from_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([[0.5, 0.25], [0.1, 0.2]])

    def rounds(works: dict[str, Any], *_: Any, **__: Any) -> dict[str, list[float]]:
        return dict.fromkeys(works, next(seconds))

    monkeypatch.setattr(comparison, "time_in_rounds", rounds)
    rates = measure_rates(CPU, {torch.bfloat16})
    assert rates == Rates({torch.bfloat16: 2 * 1024**3 / 0.25}, 2 * 4 * 4 * 1024**2 / 0.1)


def test_flops_of_a_training_step_are_forward_and_backward(tiny: Workload) -> None:
    """Check that a convolution on images counts twice, since images have no gradient."""
    step = network_steps.make_peer_training(OtherNetwork(), tiny, tuned=False)
    forward = 2 * tiny.batch * 33 * 33 * 21 * 3 * 9
    assert step.flops == 2 * forward


def test_only_our_work_is_deterministic() -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())

    network_steps.set_determinism(look, True)()
    network_steps.set_determinism(look, False)()
    assert seen == [True, False]


def test_both_data_paths_make_the_same_kind_of_batch(tiny: Workload) -> None:
    source = data_path.write_images(tiny.folder)
    training = network_steps.make_schedule(tiny)
    split = data_path.pack_images(source)
    assert len(split) == 3 and split.sizes[0] == (30, 40)
    loaders = (
        data_path.make_own_batches(split, training, workers=0),
        data_path.make_torchvision_batches(source, training),
    )
    for batches in loaders:
        draw = data_path.make_draw(batches)
        for images, labels in (draw(), draw()):
            assert images.shape == (2, 3, 33, 33) and images.dtype == torch.float32
            assert labels.shape == (2, 33, 33) and labels.dtype == torch.int64
            assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
            assert -3 < images.min() < images.max() < 3


def test_both_crfs_give_the_same_labels() -> None:
    task = make_crf_task(20, 30, 4)
    own, plain = crf.compute_own_labels(task), crf.compute_pydensecrf_labels(task)
    assert own.shape == (20, 30) and np.array_equal(own, plain)
    assert not np.array_equal(own, task.probabilities.argmax(axis=0))
