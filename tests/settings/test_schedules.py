"""docs/schedules.md shows what params.yaml resolves to under voc2012, for every model."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deeplab_bench.settings.experiment import Phase
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "schedules.md"


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def read_table(title: str) -> list[list[str]]:
    """Read the cells of the table below a title of the page, without its head."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def list_phases(params: Params) -> Iterator[tuple[str, Phase]]:
    """List every phase of every model under voc2012, with the page's name for it."""
    for model in params.models:
        for number, phase in enumerate(params.experiment("voc2012", model).phases, start=1):
            yield model if number == 1 else f"{model}, phase {number}", phase


def describe(phase: Phase) -> list[str]:
    """Write a schedule as the cells of the page."""
    t = phase.training
    policy = {
        "poly": f"poly {t.poly_power:g}",
        "step": f"step {t.step_factor:g} every {t.step_iterations}",
        "fixed": "fixed",
    }[t.lr_policy]
    decays = ["weights", *["biases"] * t.decay_bias, *["norm"] * t.decay_norm]
    batch_norm = "frozen" if t.batch_norm == "frozen" else f"trained, {t.batch_norm_momentum:g}"
    if phase.arguments["backbone"] == "vgg16" and not phase.arguments["batch_norm"]:
        batch_norm = "none"
    low, high = t.random_scale
    return [
        f"{t.base_lr:g}",
        policy,
        f"{t.iterations:,}",
        f"{t.batch_size}",
        "x".join(map(str, t.crop_size)),
        f"{t.head_lr_multiplier:g}",
        f"{t.bias_lr_multiplier:g}",
        f"{t.weight_decay:g}",
        ", ".join(decays),
        batch_norm,
        "1" if low == high == 1 else f"{low:g} to {high:g}",
        "yes" if t.horizontal_flip else "no",
        t.loss_resolution,
        {"imagenet": "ImageNet", "none": "phase 1"}[t.weights],
    ]


def describe_citations(params: Params, model: str) -> str:
    """Write the tables that a model cites, each once."""
    return ", ".join(dict.fromkeys(citation.table for citation in params.citations(model)))


def test_every_model_has_the_schedule_that_the_page_states(params: Params) -> None:
    schedules = {name: cells for name, where, *cells in read_table("Schedules") if where == "here"}
    models = {model: schedule for model, schedule, _ in read_table("Models")}
    phases = dict(list_phases(params))
    assert models.keys() == phases.keys()
    assert set(models.values()) == schedules.keys()
    for model, phase in phases.items():
        assert describe(phase) == schedules[models[model]], model
        assert phase.training.momentum == 0.9
        # The authors' code has neither.
        assert not phase.training.warmup_iterations and not phase.training.zero_init_residual


def test_the_page_names_the_tables_that_models_cite(params: Params) -> None:
    for model, _, cited in read_table("Models"):
        assert cited == describe_citations(params, model.partition(",")[0]), model


def test_every_schedule_has_a_source_and_every_difference_a_reason() -> None:
    rows: dict[str, dict[str, list[str]]] = {}
    for name, where, *cells in read_table("Schedules"):
        rows.setdefault(name, {})[where] = cells
    page = PAGE.read_text(encoding="utf-8")
    explained = re.findall(r"^- `(\w+)`", page.partition("## Differences")[2], flags=re.M)
    for name, pair in rows.items():
        assert pair.keys() == {"here", "source"}, name
        assert (pair["here"] == pair["source"]) or name in explained, name
    assert set(explained) <= rows.keys()


@pytest.mark.parametrize("model", ["deeplabv1", "deeplabv2", "fcn32s", "fcn16s", "fcn8s"])
def test_no_bare_head_and_no_vgg_has_the_rate_of_batch_normalisation(
    model: str, params: Params
) -> None:
    """0.007 is DeepLabv3's. Without normalisation DeepLabv2 and FCN use at most 0.001."""
    assert params.experiment("voc2012", model).training.base_lr <= 0.001


def test_rows_of_the_caffe_models_have_their_multipliers(params: Params) -> None:
    """lr_mult 1, 2, 10, 20 and decay_mult 1, 0 of the released train_train.prototxt."""
    expected: dict[str, Any] = {
        "head_lr_multiplier": 10,
        "bias_lr_multiplier": 2,
        "weight_decay": 0.0005,
        "decay_bias": False,
    }
    for model, phase in list_phases(params):
        if "deeplabv2." in describe_citations(params, model.partition(",")[0]):
            assert phase.training.model_dump().items() >= expected.items(), model
