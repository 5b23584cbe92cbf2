"""Tests that a mistake in params.yaml is one line that says where; and that settings fit."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from torch import nn

from deeplab_bench.data.voc2012 import VocData
from deeplab_bench.models import build_model
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.timing import costs

COMMITTED = Path(__file__).parents[2] / "params.yaml"

CRF = {
    "w1": 4,
    "sigma_alpha": 49,
    "sigma_beta": 5,
    "w2": 3,
    "sigma_gamma": 3,
    "iterations": [0, 1, 10],
    "search": {"images": 2, "w1": [3, 6], "sigma_alpha": [30, 60], "sigma_beta": [3]},
}

# No run uses the profile and the model called spare.
VALID = """
run:
  profiles: [small]
  models: [fcn, scales, aspp, psp]
  seeds: [0, 1]
  hardware: [cpu]
  inference: [plain]
  crf: []
  audit: []
  label_files: []
profile:
  small:
    data: {dataset: shapes, seed: 0, image_size: 64, train_images: 8, val_images: 4}
    model:
      backbone: resnet18
      width: 0.25
      output_stride: 16
      head_channels: 8
      atrous_rates: [2, 4, 6]
    training: &schedule
      iterations: 4
      batch_size: 2
      crop_size: [48, 64]
      base_lr: 0.05
      poly_power: 0.9
      momentum: 0.9
      weight_decay: 0.0001
      random_scale: [0.5, 2.0]
      horizontal_flip: true
      precision: float32
  spare:
    data: {dataset: folder, root: somewhere}
    model:
      backbone: resnet50
      width: 1
      output_stride: 8
      head_channels: 256
      atrous_rates: [12, 24, 36]
    training: *schedule
inference: {plain: {}}
models:
  fcn: {architecture: fcn, output_stride: 32}
  scales: {architecture: image_pyramid}
  aspp: {architecture: aspp, training: {base_lr: 0.1}}
  psp: {architecture: psp}
  spare: {architecture: cascade}
"""
REMOVED = object()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def edited(changes: dict[str, Any]) -> str:
    """Return ``VALID`` with values changed, added or ``REMOVED``, by keys joined with dots."""
    content = json.loads(
        json.dumps(YAML(typ="safe").load(VALID))
    )  # nothing shared between profiles
    for key, value in changes.items():
        *path, last = key.split(".")
        section = content
        for name in path:
            section = section[name]
        if value is REMOVED:
            del section[last]
        else:
            section[last] = value
    return json.dumps(content, indent=1)


def load(content: str) -> Params:
    Path("params.yaml").write_text(content, encoding="utf-8")
    return load_params()


def refusal(content: str) -> str:
    """Return the message of the error for params.yaml with this content."""
    Path("params.yaml").write_text(content, encoding="utf-8")
    return refusal_of(Path("params.yaml"))


def refusal_of(path: Path) -> str:
    with pytest.raises(ParamsError) as raised:
        load_params(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    return message


# The file itself


def test_missing_file_says_where_to_run() -> None:
    message = refusal_of(Path("params.yaml"))
    assert message == "params.yaml is missing: run from the repository's root"
    assert refusal_of(Path("other/x.yaml")).startswith("other/x.yaml is missing")


@pytest.mark.parametrize(
    "content", ["a: [", "a: b: c", "\t", "a: *b", "--- 1\n--- 2", "a: !!python/name:os.system x"]
)
def test_invalid_yaml_says_where(content: str) -> None:
    assert re.match(r"params.yaml is not valid YAML: .* line \d+, column \d+", refusal(content))


@pytest.mark.parametrize("content", ["", "# nothing\n", "[]", "models", "3"])
def test_a_file_without_settings_is_refused(content: str) -> None:
    message = refusal(content)
    assert re.search("object|mapping", message) and "  " not in message


@pytest.mark.parametrize("content", [b"run: caf\xe9\n", b"\xff\xfer\x00u\x00n\x00"])
def test_a_file_in_another_encoding_is_refused(content: bytes) -> None:
    Path("params.yaml").write_bytes(content)
    assert "utf-8" in refusal_of(Path("params.yaml")).lower()


def test_a_folder_is_refused() -> None:
    Path("params.yaml").mkdir()
    refusal_of(Path("params.yaml"))


def test_a_date_is_not_a_key() -> None:
    assert "a key that is not text" in refusal(VALID + "\n2020-01-01: 3\n")


# Keys


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("profil", "profile"),
        ("model", "models"),
        ("run.sedes", "seeds"),
        ("run.seed", "seeds"),
        ("run.model", "models"),
        ("run.profile", "profiles"),
        ("profile.small.modle", "model"),
        ("profile.small.models", "model"),
        ("profile.spare.traning", "training"),
        ("profile.small.training.momentun", "momentum"),
        ("profile.small.training.lr", "base_lr"),
        ("profile.small.data.images_size", "image_size"),
        ("profile.spare.data.roots", "root"),
        ("profile.small.model.atrous_ratess", "atrous_rates"),
        ("profile.spare.model.output_strid", "output_stride"),
        ("models.aspp.atrous_rate", "atrous_rates"),
        ("models.aspp.training.iteration", "iterations"),
        ("models.psp.bin", "bins"),
        ("models.scales.scale", "scales"),
        ("models.fcn.trainin", "training"),
    ],
)
def test_unknown_key_is_named_with_the_nearest_valid_one(key: str, nearest: str) -> None:
    message = refusal(edited({key: 1}))
    section, _, name = key.rpartition(".")
    assert section in message and name in message
    assert message.endswith(f"; the nearest valid one is '{nearest}'")


@pytest.mark.parametrize("profile", ["camvid", "run", "training"])
def test_a_profile_may_be_called_like_a_section(profile: str) -> None:
    spare = json.loads(edited({}))["profile"]["spare"]
    message = refusal(edited({f"profile.{profile}": spare | {"modle": 1}}))
    assert message == (
        f"params.yaml: profile.{profile}.modle is not a known key; the nearest valid one is 'model'"
    )


def test_keys_of_voc2012() -> None:
    data = {"dataset": "voc2012", "train_split": "trainaug"}
    for key, value, told in (
        ("sdb_root", "x", "sdb_root is not a known key; the nearest valid one is 'sbd_root'"),
        ("train_split", "val", 'train_split is "val": Input should be'),
        ("further_splits", ["train"], 'further_splits.0 is "train": Input should be'),
        ("mirrors", ["ftp://x"], 'mirrors.0 is "ftp://x": String should match pattern'),
        ("classes", ["cat"], 'classes is ["cat"]: name background first'),
    ):
        message = refusal(edited({"profile.spare.data": data | {key: value}}))
        assert message.startswith(f"params.yaml: profile.spare.data.{told}")
    assert load(edited({"profile.spare.data": data})).profile["spare"].data == VocData(
        dataset="voc2012", train_split="trainaug"
    )


def test_a_key_of_another_architecture_is_unknown() -> None:
    message = refusal(edited({"models.fcn.multi_grid": [1, 2]}))
    assert message.startswith("params.yaml: models.fcn.multi_grid is not a known key")


@pytest.mark.parametrize("ceiling", [0, -1, 100.5, "high", True])
def test_a_ceiling_is_a_percentage(ceiling: Any) -> None:
    key = "profile.spare.miou_ceiling"
    assert refusal(edited({key: ceiling})).startswith(
        f"params.yaml: {key} is {json.dumps(ceiling)}"
    )
    assert load(edited({key: 90})).profile["spare"].miou_ceiling == 90
    assert load(VALID).profile["spare"].miou_ceiling is None


@pytest.mark.parametrize("section", ["models.fcn", "profile.small.model"])
def test_the_number_of_classes_is_not_a_setting(section: str) -> None:
    message = refusal(edited({f"{section}.num_classes": 2}))
    assert section in message and "num_classes" in message


@pytest.mark.parametrize(
    "key",
    [
        "run",
        "models",
        "profile",
        "run.seeds",
        "run.hardware",
        "profile.small.data",
        "profile.spare.model",
        "profile.small.data.seed",
        "profile.spare.data.root",
        "profile.small.training.iterations",
        "profile.spare.training.batch_size",
    ],
)
def test_missing_key_is_named(key: str) -> None:
    assert refusal(edited({key: REMOVED})) == f"params.yaml: {key} is missing"


def test_missing_architecture_is_named() -> None:
    message = refusal(edited({"models.aspp.architecture": REMOVED}))
    assert "models.aspp" in message and "architecture" in message


@pytest.mark.parametrize("argument", ["backbone", "width", "head_channels", "atrous_rates"])
def test_missing_argument_is_named(argument: str) -> None:
    message = refusal(edited({f"profile.small.model.{argument}": REMOVED}))
    assert f"{argument} is missing" in message


def every_model_at_output_stride_8() -> dict[str, Any]:
    return {f"models.{name}.output_stride": 8 for name in ("fcn", "scales", "aspp", "psp", "spare")}


@pytest.mark.parametrize("overrides", [{}, every_model_at_output_stride_8()])
def test_missing_output_stride_is_named(overrides: dict[str, Any]) -> None:
    """Check that a profile needs it even if no model does: its atrous rates refer to it."""
    assert "output_stride" in refusal(
        edited({"profile.small.model.output_stride": REMOVED, **overrides})
    )


# Values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", None),
        ("run", []),
        ("run.seeds", 0),
        ("run.seeds", [-1]),
        ("run.seeds", ["0"]),
        ("run.models", "fcn"),
        ("run.profiles", [["small"]]),
        ("run.hardware", [True]),
        ("profile", None),
        ("profile.small", None),
        ("profile.spare.model", None),
        ("profile.small.data", {}),
        ("profile.small.data", {"dataset": "voc"}),
        ("profile.spare.data.root", 3),
        ("profile.small.data.image_size", 16),
        ("profile.small.data.val_images", 0),
        ("profile.small.training.iterations", 0),
        ("profile.small.training.iterations", 10.0),
        ("profile.small.training.iterations", True),
        ("profile.small.training.batch_size", "8"),
        ("profile.small.training.base_lr", "fast"),
        ("profile.small.training.base_lr", 0),
        ("profile.small.training.base_lr", float("nan")),
        ("profile.small.training.base_lr", float("inf")),
        ("profile.small.training.weight_decay", -0.1),
        ("profile.small.training.momentum", 1),
        ("profile.small.training.precision", "float16"),
        ("profile.small.training.crop_size", 64),
        ("profile.small.training.crop_size", [64]),
        ("profile.small.training.random_scale", [0, 1]),
        ("models", None),
        ("models", ["fcn"]),
        ("models.fcn", None),
        ("models.fcn", "fcn"),
        ("models.fcn.training", None),
        ("models.fcn.training", [1]),
        ("models.aspp.training.batch_size", 1),
        ("models.aspp.training.horizontal_flip", "no"),
        ("models.fcn.architecture", None),
        ("models.fcn.architecture", []),
        ("models.fcn.architecture", {}),
        ("models.aspp.backbone", "resnet152"),
        ("models.aspp.width", "wide"),
        ("models.aspp.width", 0),
        ("models.aspp.width", float("inf")),
        ("models.aspp.output_stride", 4),
        ("models.aspp.output_stride", 64),
        ("models.aspp.output_stride", 0),
        ("models.aspp.output_stride", "16"),
        ("models.aspp.output_stride", None),
        ("models.fcn.output_stride", True),
        ("models.aspp.head_channels", 0),
        ("models.aspp.image_pooling", 0),
        ("models.aspp.atrous_rates", "x"),
        ("models.aspp.atrous_rates", [1.5]),
        ("models.aspp.atrous_rates", [0]),
        ("models.aspp.multi_grid", "124"),
        ("models.psp.bins", [0]),
        ("models.scales.fusion", "sum"),
    ],
)
def test_wrong_value_is_named(key: str, value: Any) -> None:
    assert refusal(edited({key: value})).startswith(f"params.yaml: {key}")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("backbone", "vgg16"),
        ("width", -1),
        ("output_stride", 4),
        ("output_stride", "16"),
        ("head_channels", None),
        ("atrous_rates", "x"),
        ("atrous_rates", {"a": 1}),
        ("fusion", "sum"),
    ],
)
def test_wrong_value_of_a_profile_is_named_where_it_stands(argument: str, value: Any) -> None:
    message = refusal(edited({f"profile.small.model.{argument}": value}))
    assert argument in message and "profile.small" in message


@pytest.mark.parametrize("value", [0, -16, 512, "16", None])
def test_output_stride_of_a_profile_is_checked_though_no_model_takes_it(value: Any) -> None:
    changes = {"profile.small.model.output_stride": value, **every_model_at_output_stride_8()}
    assert "output_stride" in refusal(edited(changes))


@pytest.mark.parametrize("text", ['"false"', "'true'", '"yes"', "'no'", "1", "falsch"])
def test_text_is_not_a_boolean(text: str) -> None:
    message = refusal(VALID.replace("horizontal_flip: true", f"horizontal_flip: {text}"))
    assert message.startswith("params.yaml: profile.small.training.horizontal_flip is ")
    assert "boolean" in message


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", '"false"', "0"])
def test_booleans_are_true_and_false_alone(text: str) -> None:
    """Check booleans as in YAML 1.2, which DVC reads, too."""
    message = refusal(VALID.replace("horizontal_flip: true", f"horizontal_flip: {text}"))
    assert message.startswith("params.yaml: profile.small.training.horizontal_flip is ")


def test_a_number_may_have_an_exponent() -> None:
    params = load(VALID.replace("weight_decay: 0.0001", "weight_decay: 1e-4"))
    assert params.profile["small"].training.weight_decay == 0.0001


def test_a_repeated_key_is_refused() -> None:
    assert "duplicate key" in refusal(VALID + "\nmodels: {}\n")


@pytest.mark.parametrize(
    "section", ["profile.small.training", "profile.spare.training", "models.aspp.training"]
)
def test_a_batch_of_one_is_refused(section: str) -> None:
    """Check the least batch: after image pooling, batch normalisation needs several values."""
    message = refusal(edited({f"{section}.batch_size": 1}))
    assert message.startswith(f"params.yaml: {section}.batch_size is 1: ")
    assert message.endswith("greater than or equal to 2")


def test_frozen_statistics_of_nothing_are_refused() -> None:
    """Check models that run only; in a second phase the statistics are those of the first."""
    message = refusal(edited({"models.aspp.training": {"batch_norm": "frozen"}}))
    assert message == (
        "params.yaml: models.aspp under profile.small: training.batch_norm 'frozen' keeps the "
        "statistics of pretrained weights: give training.weights, now 'none'"
    )
    frozen = {"batch_norm": "frozen"}
    load(edited({"models.aspp.training": frozen | {"weights": "imagenet"}}))
    load(edited({"models.aspp.second_phase": {"training": frozen}}))
    load(edited({"models.spare.training": frozen}))


@pytest.mark.parametrize("section", ["profile.small.training", "models.aspp.training"])
def test_a_reversed_scale_is_refused(section: str) -> None:
    message = refusal(edited({f"{section}.random_scale": [2.0, 0.5]}))
    assert message.startswith((f"params.yaml: {section} is ", f"params.yaml: {section}.random_"))
    assert message.endswith("random_scale [2.0, 0.5] is not [smallest, largest]")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models.aspp.multi_grid", [2]),  # of two units
        ("models.scales.scales", [0.5]),
        ("models.scales.scales", []),
        ("models.psp.bins", []),
        ("models.psp.bins", [1] * 129),  # 128 channels
        ("models.fcn.width", 0.005),  # 0.3 channels
    ],
)
def test_a_model_that_cannot_be_built_is_refused(key: str, value: Any) -> None:
    section, _, argument = key.rpartition(".")
    assert re.match(rf"params.yaml: {section}\b.*{argument}", refusal(edited({key: value})))


# Names


def test_undefined_model_is_named() -> None:
    assert refusal(edited({"run.models": ["fcn", "asp"]})) == (
        "params.yaml: run.models: 'asp' is not defined; the nearest valid one is 'aspp'"
    )


def test_undefined_profile_is_named() -> None:
    assert refusal(edited({"run.profiles": ["smal"]})) == (
        "params.yaml: run.profiles: 'smal' is not defined; the nearest valid one is 'small'"
    )


def test_undefined_architecture_is_named() -> None:
    assert refusal(edited({"models.aspp.architecture": "fnc"})) == (
        "params.yaml: models.aspp.architecture: 'fnc' is not defined; "
        "the nearest valid one is 'fcn'"
    )


def test_names_are_checked_on_request_too() -> None:
    params = load(VALID)
    with pytest.raises(ParamsError, match="'fnc' is not defined; the nearest valid one is 'fcn'"):
        params.experiment("small", "fnc")
    with pytest.raises(ParamsError, match="'smal' is not defined; the nearest valid one is"):
        params.experiment("smal", "fcn")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.seeds", [0, 1, 0]),
        ("run.models", ["fcn", "fcn"]),
        ("run.profiles", ["small", "small"]),
        ("run.hardware", ["cpu", "cpu"]),
    ],
)
def test_a_repetition_is_refused(key: str, value: list[Any]) -> None:
    assert f"{key} {value} names one of them twice" in refusal(edited({key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models.spare.multi_gird", [1, 2, 1]),
        ("models.spare.cascaded_blocks", -1),
        ("profile.spare.model.head_chanels", 8),
        ("profile.spare.training.batch_size", 1),
    ],
)
def test_what_no_run_uses_is_checked_too(key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    message = refusal(edited({key: value}))
    assert section in message and name in message


# The CRF


def with_crf(changes: dict[str, Any]) -> dict[str, Any]:
    return {"profile.small.crf": json.loads(json.dumps(CRF)), "run.crf": ["aspp"], **changes}


def test_the_crf_of_a_profile() -> None:
    crf = load(edited(with_crf({}))).crf("small")
    assert crf.model_dump(mode="json") == CRF
    assert load(edited(with_crf({"profile.small.crf.search": REMOVED}))).crf("small").search is None


def test_the_crf_needs_its_section() -> None:
    assert load(VALID).run.crf == ()
    message = refusal(edited({"run.crf": ["aspp"]}))
    assert message == "params.yaml: profile.small.crf is missing: run.crf needs it"


PRETRAINING = {
    "images": 100,
    "held_out_images": 10,
    "image_size": 33,
    "training": {"iterations": 9, "warmup_iterations": 3, "base_lr": 0.4},
}


def test_pretraining_is_of_the_profile_s_backbone_on_whole_images() -> None:
    changes = {"profile.small.pretraining": PRETRAINING}
    task = (
        load(edited(changes | {"models.fcn.training": {"weights": "pretrained"}}))
        .pretraining("small")
        .task
    )
    assert task is not None
    assert task.experiment.arguments == {"backbone": "resnet18", "width": 0.25}
    training = task.experiment.training
    assert (training.iterations, training.warmup_iterations, training.base_lr) == (9, 3, 0.4)
    assert (training.batch_size, training.momentum) == (2, 0.9)  # of the profile
    assert (training.crop_size, training.random_scale) == ((33, 33), (1.0, 1.0))
    assert (training.weights, training.loss_resolution) == ("none", "logits")
    assert load(VALID).pretraining("small").task is None


def test_a_model_starts_from_the_file_of_its_profile() -> None:
    changes = {"profile.small.pretraining": PRETRAINING}
    params = load(edited(changes | {"models.fcn.training": {"weights": "pretrained"}}))
    assert params.experiment("small", "fcn").weights == "checkpoints/small/pretrained.pt"
    assert params.experiment("small", "aspp").weights == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"profile.small.pretraining": None},
            "training.weights 'pretrained' needs profile.small.pretraining, which is missing",
        ),
        ({"models.fcn.width": 0.5}, "width is 0.5, but the pretrained weights are of width 0.25"),
        (
            {"models.fcn.backbone": "resnet34"},
            "backbone is resnet34, but the pretrained weights are of backbone resnet18",
        ),
        (
            {"profile.small.pretraining": PRETRAINING | {"training": {"crop_size": [9, 9]}}},
            "profile.small.pretraining.training.crop_size cannot be set: images are seen whole",
        ),
        (
            {"profile.small.pretraining": PRETRAINING | {"training": {"iterations": 3, "lr": 1}}},
            "profile.small.pretraining.training.lr is not a known key",
        ),
        ({"profile.small.pretraining": PRETRAINING | {"images": 0}}, "pretraining.images is 0"),
        ({"profile.small.pretraining": PRETRAINING | {"image": 1}}, "pretraining.image is not a"),
        (
            {"profile.spare.pretraining": PRETRAINING},
            "profile.spare.pretraining: 'folder' generates no images of single objects: pretrain "
            "elsewhere, and give the file as training.weights",
        ),
        (
            {"profile.small.model": {"backbone": "vgg16", "width": 0.25, "output_stride": 16}},
            "profile.small.pretraining: backbone 'vgg16' is not one of resnet18",
        ),
        (
            {"profile.small.training.warmup_iterations": 4},
            "warmup_iterations 4 is not below iterations 4",
        ),
    ],
)
def test_mistakes_in_pretraining_are_one_line(changes: dict[str, Any], message: str) -> None:
    valid = {
        "profile.small.pretraining": PRETRAINING,
        "models.fcn.training": {"weights": "pretrained"},
    }
    assert message in refusal(edited(valid | changes))


def test_the_audit_is_of_models_that_run() -> None:
    assert load(edited({"run.audit": ["aspp"]})).run.audit == ("aspp",)
    assert refusal(edited({"run.audit": ["spare"]})).startswith(
        "params.yaml: run.audit: 'spare' is not in run.models"
    )


def test_the_crf_is_of_models_that_run() -> None:
    assert refusal(edited(with_crf({"run.crf": ["spare"]}))).startswith(
        "params.yaml: run.crf: 'spare' is not in run.models; the nearest valid one is "
    )
    message = refusal(edited(with_crf({"run.crf": ["psp", "psp"]})))
    assert "run.crf ['psp', 'psp'] names one of them twice" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("w1", 0),
        ("sigma_beta", -1),
        ("sigma_gamma", "3"),
        ("iterations", [0]),
        ("iterations", [1, 2]),
        ("iterations", [0, 2, 2]),
        ("iterations", [0, 1.5]),
        ("search.images", 0),
        ("search.w1", []),
        ("search.w1", [6, 3]),
        ("search.sigma_alpha", [0, 1]),
    ],
)
def test_wrong_value_of_the_crf_is_named(key: str, value: Any) -> None:
    message = refusal(edited(with_crf({f"profile.small.crf.{key}": value})))
    assert message.startswith(f"params.yaml: profile.small.crf.{key}")


@pytest.mark.parametrize(
    ("key", "nearest"), [("sigma_alfa", "sigma_alpha"), ("search.sigma_bet", "sigma_beta")]
)
def test_unknown_key_of_the_crf_is_named(key: str, nearest: str) -> None:
    message = refusal(edited(with_crf({f"profile.small.crf.{key}": 1})))
    assert f"crf.{key}" in message
    assert message.endswith(f"; the nearest valid one is '{nearest}'")


# Settings that belong together


@pytest.mark.parametrize(
    ("profile", "output_stride", "rates"),
    [
        ("small", 8, [4, 8, 12]),
        ("small", 16, [2, 4, 6]),
        ("small", 32, [1, 2, 3]),
        ("spare", 8, [12, 24, 36]),
        ("spare", 16, [6, 12, 18]),
        ("spare", 32, [3, 6, 9]),
    ],
)
def test_atrous_rates_double_as_the_stride_halves(
    profile: str, output_stride: int, rates: list[int]
) -> None:
    params = load(edited({"models.aspp.output_stride": output_stride}))
    arguments = params.experiment(profile, "aspp").arguments
    assert arguments["output_stride"] == output_stride
    assert arguments["atrous_rates"] == rates


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_explicit_atrous_rates_win(output_stride: int) -> None:
    params = load(
        edited({"models.aspp.output_stride": output_stride, "models.aspp.atrous_rates": [5, 12]})
    )
    for profile in ("small", "spare"):
        arguments = params.experiment(profile, "aspp").arguments
        assert arguments["atrous_rates"] == [5, 12]
        assert arguments["output_stride"] == output_stride


def test_fractional_rates_are_refused_with_what_to_do() -> None:
    changes = {"models.aspp.output_stride": 32, "profile.small.model.atrous_rates": [1, 2, 3]}
    message = refusal(edited(changes))
    assert message.startswith("params.yaml: models.aspp.output_stride 32 turns")
    assert "[0.5, 1.0, 1.5]" in message
    assert message.endswith("give models.aspp.atrous_rates as whole numbers")


@pytest.mark.parametrize(("output_stride", "rate"), [(8, 6), (16, 3)])
def test_the_rate_of_largefov_follows_the_output_stride(output_stride: int, rate: int) -> None:
    block = {"architecture": "largefov", "output_stride": output_stride}
    params = load(edited({"models.fov": block, "profile.small.model.atrous_rate": 3}))
    assert params.experiment("small", "fov").arguments["atrous_rate"] == rate
    params = load(edited({"models.fov": block | {"atrous_rate": 5}}))
    assert params.experiment("small", "fov").arguments["atrous_rate"] == 5


def test_the_rate_of_a_kernel_of_one_pixel_stays() -> None:
    block = {"architecture": "aspp_sum", "kernel_size": 1, "atrous_rates": [1], "output_stride": 8}
    plain = load(edited({"models.spare": block})).experiment("small", "spare")
    assert plain.arguments_at(16)["atrous_rates"] == [1]


def test_the_rate_of_largefov_follows_the_output_stride_of_inference() -> None:
    """Check that DeepLabv1's 12 at output stride 8 is 6 at 16."""
    block = {"architecture": "largefov", "backbone": "vgg16", "output_stride": 8}
    fov = load(edited({"models.fov": block})).experiment("spare", "fov")
    assert fov.arguments["atrous_rate"] == 12
    changed = {"output_stride": 16, "atrous_rate": 6}
    assert fov.arguments_at(16) == fov.arguments | changed


@pytest.mark.parametrize("profile", ["quick", "camvid", "voc_animals", "voc2012"])
def test_the_rate_of_largefov_is_the_second_of_aspp(profile: str) -> None:
    """Check it for each profile: in DeepLabv2 LargeFOV has 12, ASPP-L 6, 12, 18 and 24."""
    params = load_params(COMMITTED)
    fov, aspp = (params.experiment(profile, name).arguments for name in ("deeplabv1", "deeplabv2"))
    assert fov["atrous_rate"] == aspp["atrous_rates"][1]


def test_a_model_overrides_its_profile() -> None:
    changes = {"models.aspp.width": 0.5, "models.aspp.training": {"iterations": 7, "base_lr": 1}}
    params = load(edited(changes))
    aspp, other = params.experiment("small", "aspp"), params.experiment("small", "psp")
    assert (aspp.arguments["width"], other.arguments["width"]) == (0.5, 0.25)
    assert other.training == params.profile["small"].training
    assert aspp.training == other.training.model_copy(update={"iterations": 7, "base_lr": 1.0})


def test_an_experiment_has_every_setting() -> None:
    experiment = load(VALID).experiment("small", "aspp")
    assert (experiment.profile, experiment.model) == ("small", "aspp")
    assert experiment.architecture == "aspp"
    assert experiment.arguments == {
        "backbone": "resnet18",
        "width": 0.25,
        "output_stride": 16,
        "atrous_rates": [2, 4, 6],
        "head_channels": 8,
        "image_pooling": True,
        "multi_grid": [1, 2, 4],
        "dropout": 0.0,
        "stride_in": "first",
    }
    assert experiment.training.base_lr == 0.1
    assert experiment.training.crop_size == (48, 64)
    assert experiment.training.random_scale == (0.5, 2.0)


def test_a_model_takes_only_what_it_knows() -> None:
    arguments = load(VALID).experiment("small", "fcn").arguments
    assert arguments == {
        "backbone": "resnet18",
        "width": 0.25,
        "output_stride": 32,
        "skips": 0,
        "batch_norm": False,
    }


def test_settings_are_frozen() -> None:
    params = load(VALID)
    experiment = params.experiment("small", "fcn")
    small = params.profile["small"]
    for settings in (params, params.run, small, small.data, small.training, experiment):
        for name, value in settings:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(settings, name, value)


def test_an_experiment_leaves_the_settings_alone() -> None:
    params = load(VALID)
    before = params.model_dump_json()
    arguments = params.experiment("small", "aspp").arguments
    arguments["atrous_rates"].append(9)
    assert params.model_dump_json() == before
    assert params.experiment("small", "aspp").arguments["atrous_rates"] == [2, 4, 6]


# Blocks that extend others


def complete(blocks: dict[str, Any]) -> dict[str, Any]:
    """Return the blocks of these models as they are loaded beside those of ``VALID``."""
    models = load(edited({f"models.{name}": block for name, block in blocks.items()})).models
    return {name: models[name] for name in blocks}


BASE = {
    "architecture": "aspp",
    "atrous_rates": [2, 4],
    "training": {"base_lr": 1, "batch_size": 4},
    "per_profile": {"small": {"training": {"iterations": 7, "weights": "imagenet"}}},
}


def test_a_block_inherits_what_it_does_not_give() -> None:
    found = complete({"base": BASE, "same": {"extends": "base"}})
    assert found == {"base": BASE, "same": BASE}


def test_mappings_are_merged_at_any_depth_and_lists_replaced() -> None:
    own = {
        "extends": "base",
        "atrous_rates": [5],
        "width": 0.5,
        "training": {"batch_size": 8},
        "per_profile": {
            "small": {"training": {"iterations": 9}},
            "spare": {"training": {"momentum": 0.5}},
        },
    }
    assert complete({"base": BASE, "own": own})["own"] == {
        "architecture": "aspp",
        "atrous_rates": [5],
        "width": 0.5,
        "training": {"base_lr": 1, "batch_size": 8},
        "per_profile": {
            "small": {"training": {"iterations": 9, "weights": "imagenet"}},
            "spare": {"training": {"momentum": 0.5}},
        },
    }


def test_a_second_phase_is_inherited_deeply() -> None:
    base = {"architecture": "aspp", "second_phase": {"output_stride": 8, "training": {}}}
    own = {"extends": "base", "second_phase": {"training": {"iterations": 3}}}
    found = complete({"base": base, "own": own})["own"]["second_phase"]
    assert found == {"output_stride": 8, "training": {"iterations": 3}}


def test_chains_in_any_order_of_the_file() -> None:
    blocks = {
        "last": {"extends": "middle", "width": 0.5},
        "middle": {"extends": "base", "atrous_rates": [3], "training": {"batch_size": 8}},
        "base": BASE,
    }
    found = complete(blocks)
    assert found["last"] == found["middle"] | {"width": 0.5}
    assert found["middle"] == BASE | {
        "atrous_rates": [3],
        "training": {"base_lr": 1, "batch_size": 8},
    }


def test_a_citation_is_not_inherited() -> None:
    cited = {"table": "deeplabv3.table5", "row": {"image_pooling": True}}
    other = {"table": "deeplabv3.table9", "row": {"batch_size": 4}}
    blocks = {
        "base": BASE | {"published": cited},
        "plain": {"extends": "base"},
        "other": {"extends": "base", "published": other},
    }
    params = load(edited({f"models.{name}": block for name, block in blocks.items()}))
    tables = {name: [c.table for c in params.citations(name)] for name in blocks}
    assert tables == {"base": ["deeplabv3.table5"], "plain": [], "other": ["deeplabv3.table9"]}


def test_settings_of_one_profile_win_over_those_of_an_heir() -> None:
    own = {"extends": "base", "training": {"iterations": 5}}
    params = load(edited({"models.base": BASE, "models.own": own}))
    found = {name: params.experiment(name, "own").training.iterations for name in params.profile}
    assert found == {"small": 7, "spare": 5}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (
            {"a": {"extends": "asp"}},
            "models.a.extends: 'asp' is not defined; the nearest valid one is 'aspp'",
        ),
        ({"a": {"extends": 3}}, "models.a.extends: 3 is not defined; the nearest valid one is "),
        ({"a": {"extends": None}}, "models.a.extends: None is not defined; the nearest "),
        ({"a": {"extends": ["aspp"]}}, "models.a.extends: ['aspp'] is not defined; the nearest "),
        (
            {"fcn2": {"extends": "fcn2"}},
            "models.fcn2.extends: 'fcn2' is this block; the nearest valid one is 'fcn'",
        ),
        (
            {"fcn2": {"extends": "fcn3"}, "fcn3": {"extends": "fcn2"}},
            "models.fcn2.extends: 'fcn3' inherits from this block; the nearest valid one is 'fcn'",
        ),
        (
            {"a": {"extends": "b"}, "b": {"extends": "c"}, "c": {"extends": "b"}},
            "models.b.extends: 'c' inherits from this block; the nearest valid one is ",
        ),
        (
            {"a": {"extends": "aspp", "image_poling": False}},
            "models.a.image_poling is not a known key; the nearest valid one is 'image_pooling'",
        ),
        (
            {"a": {"extend": "aspp", "architecture": "aspp"}},
            "models.a.extend is not a known key; the nearest valid one is 'extends'",
        ),
    ],
)
def test_a_block_that_cannot_be_completed(blocks: dict[str, Any], message: str) -> None:
    text = edited({f"models.{name}": block for name, block in blocks.items()})
    assert refusal(text).startswith(f"params.yaml: {message}")


# Studies


def with_study(**changes: Any) -> str:
    study = {"paper": "Net, Table 1", "question": "Which?", "hours": 1, "models": ["fcn", "aspp"]}
    return edited({"studies": {"both": study | changes}, "inference": {"plain": {}, "os8": {}}})


def test_a_study_says_what_it_takes_and_what_to_expect() -> None:
    text = with_study(expect=[60, 70.5], inference=["os8"], crf=["aspp"])
    study = load(text).studies["both"]
    assert (study.models, study.inference, study.crf) == (("fcn", "aspp"), ("os8",), ("aspp",))
    assert (study.hours, study.expect) == (1, (60.0, 70.5))
    assert load(with_study()).studies["both"].expect is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["fcn", "asp"]}, "studies.both.models: 'asp' is not defined; .* 'aspp'"),
        ({"models": []}, r"studies.both.models is \[\]"),
        ({"crf": ["psp"]}, "studies.both.crf: 'psp' is not defined; the nearest valid one is"),
        ({"inference": ["os9"]}, "studies.both.inference: 'os9' is not defined; .* 'os8'"),
        ({"hours": 0}, "studies.both.hours is 0"),
        ({"expect": [70, 60]}, r"studies.both .* expect \[70.0, 60.0\] is not \[lowest, high"),
        ({"expect": [70]}, "studies.both.expect"),
        ({"expect": [0.6, 107]}, "studies.both.expect.1 is 107"),
        ({"model": ["fcn"]}, "studies.both.model is not a known key; .* 'models'"),
    ],
)
def test_mistakes_in_a_study_are_one_line(changes: dict[str, Any], message: str) -> None:
    assert re.match(f"params.yaml: {message}", refusal(with_study(**changes)))


# Settings for one profile, a second phase, inference


def test_a_model_may_differ_under_one_profile() -> None:
    spare_alone = {"spare": {"width": 0.5, "training": {"iterations": 7}}}
    changes = {"models.aspp.per_profile": spare_alone, "models.aspp.training": {"base_lr": 1}}
    params = load(edited(changes))
    small, spare = (params.experiment(profile, "aspp") for profile in ("small", "spare"))
    assert (small.arguments["width"], spare.arguments["width"]) == (0.25, 0.5)
    assert (small.training.iterations, spare.training.iterations) == (4, 7)
    assert small.training.base_lr == spare.training.base_lr == 1.0


def test_a_second_phase_changes_what_it_says() -> None:
    changes = {"output_stride": 8, "training": {"iterations": 2, "batch_norm": "frozen"}}
    params = load(edited({"models.aspp.second_phase": changes}))
    first, second = params.experiment("small", "aspp").phases
    assert first.arguments["output_stride"] == 16
    assert second.arguments == first.arguments | {"output_stride": 8, "atrous_rates": [4, 8, 12]}
    changed = {"iterations": 2, "batch_norm": "frozen"}
    assert second.training == first.training.model_copy(update=changed)


def test_a_second_phase_does_not_load_weights_again() -> None:
    changes = {
        "models.aspp.training": {"weights": "imagenet"},
        "models.aspp.second_phase": {"training": {}},
    }
    first, second = load(edited(changes)).experiment("small", "aspp").phases
    assert (first.training.weights, second.training.weights) == ("imagenet", "none")


def test_a_second_phase_has_a_split_of_its_own() -> None:
    data = {"dataset": "voc2012", "train_split": "trainaug", "further_splits": ["trainval"]}
    second = {"train_split": "trainval", "training": {}}
    changes = {
        "profile.small.data": data,
        "models.aspp.per_profile": {"small": {"second_phase": second}},
    }
    first, second_phase = load(edited(changes)).experiment("small", "aspp").phases
    assert (first.train_split, second_phase.train_split) == ("train", "trainval")


def test_one_phase_is_the_rule() -> None:
    (phase,) = load(VALID).experiment("small", "aspp").phases
    assert phase.arguments["output_stride"] == 16


def test_rates_follow_the_output_stride_of_inference() -> None:
    inference = {"plain": {}, "os8": {"output_stride": 8}, "flip": {"flip": True}}
    params = load(edited({"inference": inference, "run.inference": ["plain", "os8", "flip"]}))
    aspp = params.experiment("small", "aspp")
    assert aspp.arguments_at(None) == aspp.arguments
    changed = {"output_stride": 8, "atrous_rates": [4, 8, 12]}
    assert aspp.arguments_at(8) == aspp.arguments | changed


def test_inference_follows_the_second_phase() -> None:
    changes = {
        "models.aspp.second_phase": {"output_stride": 8, "training": {}},
        "inference": {"plain": {}},
    }
    params = load(edited(changes))
    arguments = params.experiment("small", "aspp").arguments_at(None)
    assert arguments["output_stride"] == 8


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"models.aspp.per_profile": {"smal": {}}},
            ("per_profile", "'smal'", "'small'"),
        ),
        ({"models.aspp.per_profile": 3}, ("models.aspp.per_profile is 3", "mapping")),
        (
            {"models.aspp.per_profile": {"small": 3}},
            ("per_profile.small is 3", "mapping"),
        ),
        (
            {"models.aspp.per_profile": {"small": {"widht": 1}}},
            ("models.aspp.widht is not a known key", "'width'"),
        ),
        (
            {"models.aspp.second_phase": {"training": {"base": 1}}},
            ("second_phase.training.base",),
        ),
        (
            {"models.aspp.second_phase": {"widht": 1, "training": {}}},
            ("second_phase.widht",),
        ),
        (
            {"models.aspp.second_phase": {"output_stride": 5, "training": {}}},
            ("output_stride is 5",),
        ),
        (
            {"models.aspp.second_phase": {"train_split": "trainval", "training": {}}},
            (
                "models.aspp.second_phase.train_split 'trainval' is not in "
                "profile.small.data.further_splits",
            ),
        ),
        ({"run.inference": ["os8"]}, ("run.inference: 'os8' is not defined",)),
        ({"inference": {"os8": {"scales": []}}}, ("inference.os8.scales is []",)),
        (
            {"models.aspp.per_profile": {"small": {"extends": "psp"}}},
            ("models.aspp.per_profile.small.extends: only a model's whole block can extend one",),
        ),
        ({"inference": {"os8": {"scale": [1]}}}, ("inference.os8.scale", "'scales'")),
        ({"models.fcn.training": {"lr_policy": "cosine"}}, ("lr_policy", "cosine", "poly")),
        ({"models.fcn.training": {"batch_norm": False}}, ("batch_norm", "false", "frozen")),
    ],
)
def test_mistakes_in_them_are_one_line(changes: dict[str, Any], named: tuple[str, ...]) -> None:
    message = refusal(edited(changes))
    for part in named:
        assert part in message


# The committed file


@pytest.fixture
def _norms_keep_their_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batch normalisation check the channels alone: without data it takes most of the time."""

    def keep(images: torch.Tensor, mean: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        assert images.shape[1:2] == mean.shape
        return images

    monkeypatch.setattr(nn.functional, "batch_norm", keep)


@pytest.mark.usefixtures("_norms_keep_their_input", "_undrawn_weights")
@pytest.mark.parametrize("profile", ["quick", "camvid", "voc_animals", "voc2012"])
def test_every_committed_model_builds(profile: str) -> None:
    """Check the size of the logits, each network once."""
    params, built = load_params(COMMITTED), set()
    assert profile in params.profile and len(params.profile) == 4
    for model in params.models:
        experiment = params.experiment(profile, model)
        size = experiment.training.crop_size
        network = (experiment.architecture, repr(experiment.arguments), size)
        if network in built:
            continue
        built.add(network)
        with torch.device("meta"):
            made = build_model(experiment.architecture, experiment.arguments, num_classes=3)
        assert made(torch.empty(2, 3, *size, device="meta")).shape == (2, 3, *size)


def test_no_block_of_the_committed_file_is_merged_by_yaml() -> None:
    """Check that aliases are only lists of studies, for `models` of a `run`."""
    text = COMMITTED.read_text(encoding="utf-8")
    assert "<<" not in text
    anchors = re.findall(r"&(\w+)", text)
    assert anchors == list(load_params(COMMITTED).studies)
    assert len(anchors) == text.count("models: &")
    assert set(re.findall(r"\w+: \*\w+", text)) == {"models: *figure2"}


@pytest.mark.parametrize("profile", ["quick", "camvid", "voc_animals", "voc2012"])
def test_one_study_holds_the_output_stride_equal(profile: str) -> None:
    """Check that its models are those of Figure 2 at output stride 16, with rates to match."""
    params = load_params(COMMITTED)
    figure2 = [model for model in params.studies["figure2"].models if model != "fcn_os16"]
    pairs = zip(figure2, params.studies["same_stride"].models, strict=True)
    strides = set()
    for own, same in pairs:
        before, after = params.experiment(profile, own), params.experiment(profile, same)
        strides.add(before.arguments["output_stride"])
        assert after.arguments == before.arguments_at(16)
        assert (after.architecture, after.training) == (before.architecture, before.training)
    assert strides == ({16, 32} if profile == "voc_animals" else {8, 16, 32})


@pytest.mark.usefixtures("_norms_keep_their_input", "_undrawn_weights")
@pytest.mark.parametrize(
    "name",
    [
        "same_stride",
        "figure2",
        "context_parts",
        "pyramid_pooling",
        "large_fov",
        "lr_policy",
        "fcn_skips",
        "decoder",
    ],
)
def test_hours_of_a_study_follow_from_its_operations(name: str) -> None:
    study = load_params(COMMITTED).studies[name]
    params = load_params(COMMITTED)
    flops = sum(
        costs.count_training_flops(case)
        for model in study.models
        for case in costs.list_cases(params, "voc2012", model)
    )
    assert study.hours == round(3 * flops / 100e12 / 3600)


def test_every_architecture_is_in_the_committed_file() -> None:
    params = load_params(COMMITTED)
    used = {params.experiment(p, m).architecture for p in params.profile for m in params.networks}
    assert used == set(ARCHITECTURES)


@pytest.mark.parametrize("key", ["models", "crf", "audit", "inference", "label_files"])
def test_lists_of_a_profile_name_what_is_there(key: str) -> None:
    message = refusal(edited({"profile.small.run": {key: ["nothing"]}}))
    assert message.startswith(f"params.yaml: profile.small.run.{key}: 'nothing' is not defined")


def test_models_of_others_have_a_list_of_their_own() -> None:
    theirs = {"models.theirs": {"predictions": "a/folder"}}
    params = load(edited({**theirs, "run.label_files": ["theirs"]}))
    assert "theirs" not in params.networks
    assert params.label_files("small", "theirs").predictions == "a/folder"
    message = refusal(edited({**theirs, "run.models": ["aspp", "theirs"]}))
    assert message == (
        "params.yaml: run.models: 'theirs' is of label files: move it to run.label_files"
    )
    message = refusal(edited({"run.label_files": ["aspp"]}))
    assert message.startswith("params.yaml: run.label_files: models.aspp lacks the key 'predict")
    own = {"models.theirs": {"predictions": "a", "training": {}}, "run.label_files": ["theirs"]}
    assert "models.theirs.training is not a known key" in refusal(edited(own))


def test_predictions_for_each_profile() -> None:
    block = {"predictions": "a", "per_profile": {"small": {"predictions": "b"}}}
    params = load(edited({"models.theirs": block}))
    assert params.label_files("small", "theirs").predictions == "b"
    assert params.label_files("spare", "theirs").predictions == "a"


def test_another_profile_has_no_predictions_of_this_one() -> None:
    theirs = {"models.theirs": {"predictions": "a"}, "run.label_files": ["theirs"]}
    params = load(edited(theirs))
    assert params.for_profile("spare").run.label_files == ()


def test_own_lists_of_a_profile_fit_each_other() -> None:
    own = {"models": ["spare"], "crf": ["aspp"]}
    message = refusal(edited({"profile.small.run": own}))
    assert message.startswith("params.yaml: profile.small.run.crf: 'aspp' is not in profile.small")
    message = refusal(edited({"profile.small.run": {"seeds": [0, 0]}}))
    assert message == "params.yaml: profile.small.run.seeds [0, 0] names one of them twice"
    message = refusal(edited({"profile.small.run": {"seed": [0]}}))
    assert message.endswith("run.seed is not a known key; the nearest valid one is 'seeds'")


def test_another_profile_brings_its_own_run() -> None:
    """Check that models which are no longer there leave the other lists."""
    own = {"models": ["spare"], "seeds": [7]}
    params = load(edited({"profile.small.run": own, "run.profiles": ["small"]}))
    assert params.for_profile("small") == params
    changed = params.model_copy(update={"run": params.run.model_copy(update={"profiles": ("x",)})})
    run = changed.for_profile("small").run
    assert (run.profiles, run.models, run.seeds) == (("small",), ("spare",), (7,))
    assert not {*run.audit, *run.crf} - {"spare"}
    assert run.hardware == params.run.hardware
