"""Every benchmark runs, at sizes that say nothing of speed, whichever packages there are."""

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

from benchmarks import comparison, confusion, data_path, network_steps, plain_crf
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.comparison import (
    OURS,
    Contender,
    MissingPeer,
    Rates,
    Settings,
    compare,
    measured_rates,
    peer,
    present,
    row_of,
)
from deeplab_bench.evaluation.measures import confusion as metrics
from studies import repro_overhead as repro
from studies.crf_workers import made_up

CPU = torch.device("cpu")
NARROW = {"backbone": "resnet18", "width": 0.25, "head_channels": 8}
PEERS = ("segmentation_models_pytorch", "torchmetrics", "torchmetrics.classification")


class OtherNetwork(nn.Module):
    """Gives its logits by name, as torchvision's do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, network_steps.CLASSES, kernel_size=3, padding=1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.convolution(images)}


@pytest.fixture
def tiny(tmp_path: Path) -> Settings:
    return Settings(CPU, crop=33, batch=2, seconds=0, folder=tmp_path)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small networks, few images and no peer that has to be installed."""
    monkeypatch.chdir(tmp_path)
    arguments = network_steps.ARGUMENTS | NARROW
    for module in (network_steps, data_path):
        monkeypatch.setattr(module, "ARGUMENTS", arguments)
        monkeypatch.setattr(network_steps, "torchvision_network", OtherNetwork)
    monkeypatch.setattr(data_path, "IMAGES", 3)
    monkeypatch.setattr(data_path, "SIDES", (30, 40))
    monkeypatch.setattr(data_path, "STEPS", 2)
    monkeypatch.setattr(comparison, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(torch, "compile", lambda module: module)
    monkeypatch.setattr(
        comparison, "measured_rates", lambda *_: Rates(defaultdict(lambda: 1e9), 1e9)
    )
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_makes_a_table(name: str, tiny: Settings) -> None:
    benchmark = BENCHMARKS[name](tiny)
    assert benchmark.name == name
    table = compare(benchmark, tiny)
    assert table.data["contender"].iloc[0] == OURS
    assert table.data["ratio"].iloc[0] == 1
    there = set(benchmark.contenders) - {"torchmetrics"}
    assert set(table.data["contender"]) == {n for n in there if not n.startswith("segmentation")}
    assert (table.data["p50_ms"] > 0).all()


def test_files_and_the_line_on_a_missing_peer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "miou", *["--crop", "9", "--batch", "2", "--seconds", "0"]]
    )
    main()
    folder = Path("results/benchmarks/cpu")
    assert pd.read_csv(folder / "miou.csv")["contender"].tolist() == [OURS]
    missing = "the rows of torchmetrics.classification are left out, "
    assert missing in (folder / "miou.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith(missing)


def test_a_peer_that_is_there_is_compared(monkeypatch: pytest.MonkeyPatch, tiny: Settings) -> None:
    """By a stand-in; the real ones are no dependency."""

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
    table = compare(confusion.miou(tiny), tiny)
    assert table.data["contender"].tolist() == [OURS, "torchmetrics"]
    assert "left out" not in table.caption.text
    monkeypatch.setattr(Metric, "error", 0.01)
    with pytest.raises(ValueError, match=r"mIoU is 0\.\d+ by ours and 0\.\d+ by torchmetrics"):
        present(confusion.miou(tiny))


def test_a_missing_peer_is_one_line() -> None:
    with pytest.raises(
        MissingPeer, match=r"^the rows of torchmetrics are .* `pip install -e '\.\[bench\]'`$"
    ):
        peer("torchmetrics")


def test_ratios_floors_and_spread() -> None:
    contender = Contender(lambda: None, flops=2_000_000_000, traffic_bytes=50_000_000)
    row = row_of(
        "other", contender, [2.0, 6.0, 4.0], [1.0, 2.0, 4.0], Rates({torch.float32: 4e9}, 1e8)
    )
    assert (row["p50_ms"], row["rounds"]) == (4000, 3)
    assert [row[key] for key in ("ratio_p25", "ratio", "ratio_p75")] == [1.5, 2, 2.5]
    assert (row["gflop"], row["arithmetic_ms"]) == (2, 500)
    assert (row["traffic_mb"], row["transfer_ms"]) == (50, 500)
    unknown = row_of("other", Contender(lambda: None), [1.0], [1.0], Rates({torch.float32: 1}, 1))
    assert math.isnan(unknown["arithmetic_ms"]) and math.isnan(unknown["transfer_ms"])


def test_rates_come_from_the_fastest_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([[0.5, 0.25], [0.1, 0.2]])

    def rounds(works: dict[str, Any], *_: Any, **__: Any) -> dict[str, list[float]]:
        return dict.fromkeys(works, next(seconds))

    monkeypatch.setattr(comparison, "in_rounds", rounds)
    rates = measured_rates(CPU, {torch.bfloat16})
    assert rates == Rates({torch.bfloat16: 2 * 1024**3 / 0.25}, 2 * 4 * 4 * 1024**2 / 0.1)


def test_flops_of_a_training_step_are_forward_and_backward(tiny: Settings) -> None:
    """Of one convolution on the images: once forward, once backward, as images have no gradient."""
    contender = network_steps.peer_training(OtherNetwork(), tiny, tuned=False)
    forward = 2 * tiny.batch * 33 * 33 * 21 * 3 * 9
    assert contender.flops == 2 * forward


def test_own_work_is_deterministic_and_others_is_not() -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())

    network_steps.deterministic(look, True)()
    network_steps.deterministic(look, False)()
    assert seen == [True, False]


def test_both_data_paths_make_the_same_kind_of_batch(tiny: Settings) -> None:
    source = data_path.generated(tiny.folder)
    training = network_steps.schedule(tiny)
    split = data_path.packed(source)
    assert len(split) == 3 and split.sizes[0] == (30, 40)
    loaders = (
        data_path.own_batches(split, training, workers=0),
        data_path.torchvision_batches(source, training),
    )
    for batches in loaders:
        draw = data_path.drawing(batches)
        for images, labels in (draw(), draw()):
            assert images.shape == (2, 3, 33, 33) and images.dtype == torch.float32
            assert labels.shape == (2, 33, 33) and labels.dtype == torch.int64
            assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
            assert -3 < images.min() < images.max() < 3


def test_both_crfs_give_the_same_labels() -> None:
    task = made_up(20, 30, 4)
    own, plain = plain_crf.own_labels(task), plain_crf.plain_labels(task)
    assert own.shape == (20, 30) and np.array_equal(own, plain)
    assert not np.array_equal(own, task.probabilities.argmax(axis=0))


def test_work_of_repro_is_what_the_stages_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = {"training_seconds": 10.0, "evaluation_seconds": 2.0, "environment": {}}
    crf = {"evaluation_seconds": 3.0, "search_seconds": 1.0, "workers": 2}
    monkeypatch.setattr(repro, "read", lambda path: crf if "crf" in path.parts else timing)
    run = type("Run", (), {"profiles": ["a"], "models": ["x", "y"], "seeds": [0, 1], "crf": ["y"]})
    assert repro.work_seconds(type("Params", (), {"run": run})()) == 4 * 12 + 2 * 4
