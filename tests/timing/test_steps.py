"""Tests of times of training steps: the median, the timed batch, and the stored files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from deeplab_bench.results.files import get_steps_file
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.timing import rounds, steps
from deeplab_bench.timing.steps import Case, Step
from deeplab_bench.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def changed(experiment: Experiment, **training: Any) -> Experiment:
    settings = experiment.training.model_copy(update=training)
    return experiment.model_copy(update={"training": settings})


def widened(experiment: Experiment) -> Experiment:
    return experiment.model_copy(update={"arguments": experiment.arguments | {"width": 0.5}})


def case(experiment: Experiment) -> Case:
    """Make the case of the only phase."""
    (phase,) = experiment.phases
    return Case(experiment.architecture, phase, 5)


class Clock:
    """A clock that only training steps move, by ``durations`` in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> None:
        self.now, self.batches = 0.0, list[tuple[Tensor, Tensor]]()
        durations_left = iter(durations)

        def step(trainer: Trainer, images: Tensor, labels: Tensor) -> None:
            self.batches.append((images, labels))
            self.now += next(durations_left)

        clock = SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
        for module in (steps, rounds):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(Trainer, "step", step)


def test_the_median_leaves_out_the_warm_up(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, [9.0, 8.0, 0.3, 0.1, 0.2, 0.5, 0.2])
    assert steps.measure_step(case(experiment), CPU) == Step(
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
    assert steps.measure_step(case(experiment), CPU).seconds == expected


@pytest.mark.parametrize(
    ("crop", "batch", "measured"),
    [((513, 513), 16, 3), ((80, 80), 16, 16), ((1024, 1024), 16, 2), ((240, 320), 16, 13)],
)
def test_a_cpu_times_a_part_of_a_large_batch(
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    crop: tuple[int, int],
    batch: int,
    measured: int,
) -> None:
    experiment = changed(experiment, crop_size=crop, batch_size=batch)
    Clock(monkeypatch, [3.0] * 7)
    step = steps.measure_step(case(experiment), CPU)
    assert step.batch_size == measured
    assert step.seconds == pytest.approx(3.0 * batch / measured, abs=1e-4)
    assert steps.choose_batch_size(experiment.training, torch.device("cuda")) == batch


def test_a_batch_beyond_the_memory_has_no_time(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Trainer, "step", out_of_memory)
    assert steps.measure_step(case(experiment), CPU).seconds is None


def test_real_steps_take_time(experiment: Experiment) -> None:
    """Time more steps than the settings have iterations."""
    step = steps.measure_step(case(changed(experiment, iterations=1)), CPU)
    assert step.seconds is not None and step.seconds > 0


def test_equal_settings_are_measured_once(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Case] = []

    def measure_step(case: Case, device: torch.device) -> Step:
        measured.append(case)
        return Step(seconds=1.0, batch_size=2, peak_memory_mib=None)

    monkeypatch.setattr(steps, "measure_step", measure_step)
    twin = changed(experiment, base_lr=0.1, iterations=36)
    cases = [case(each) for each in (experiment, twin, widened(experiment))]
    found = steps.measure_steps(cases, CPU, 60.0)
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
def test_the_key_depends_on_settings_that_change_the_time(
    experiment: Experiment, settings: dict[str, Any], same: bool
) -> None:
    other = changed(experiment, **settings)
    assert (case(other).key == case(experiment).key) is same


def test_no_case_begins_after_the_limit(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, [1.0] * 14)
    cases = [case(experiment), case(widened(experiment))]
    assert len(steps.measure_steps(cases, CPU, 7.0)) == 1
    Clock(monkeypatch, [1.0] * 14)
    assert len(steps.measure_steps(cases, CPU, 7.5)) == 2


def test_stored_steps_add_up() -> None:
    path = get_steps_file("gpu")
    one = {"a": Step(seconds=0.5, batch_size=2, peak_memory_mib=12.5)}
    other = {"b": Step(seconds=None, batch_size=2, peak_memory_mib=None)}
    steps.save(path, one, CPU)
    steps.save(path, other, CPU)
    assert steps.load(path).steps == one | other
    assert "device" in steps.load(path).environment


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            "gqu.json is missing (stored devices: gpu): run `deeplab-bench plan --save ",
        ),
        ("{", "gqu.json: its content: Invalid JSON"),
        ('{"environment": {}, "steps": {"a": {}}}', "gqu.json: steps.a.seconds: Field required"),
    ],
)
def test_stored_steps_that_cannot_be_read(content: str | None, message: str) -> None:
    steps.save(get_steps_file("gpu"), {}, CPU)
    if content is not None:
        get_steps_file("gqu").write_text(content, encoding="utf-8")
    with pytest.raises(steps.StepsError, match=r"--save gqu` on that device$") as raised:
        steps.load(get_steps_file("gqu"))
    assert message in str(raised.value)
