"""Tests of the report on made-up results, whose statistics are known by hand."""

import json
import re
import shutil
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, ClassVar

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import SCHEDULE
from PIL import Image
from test_readme import is_readme_current

from deeplab_bench.data.packed import MANIFEST
from deeplab_bench.data.pixels import VOID, write_label
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.measures.variants import VARIANTS
from deeplab_bench.models import get_module_name
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.report import (
    captions,
    page,
    plots,
    receptive_field,
    samples,
    speed_tables,
    tables,
    tradeoff,
    write_report,
)
from deeplab_bench.report.findings import list_findings
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.tables import AS_IN
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles, RunFiles, get_notes_file
from deeplab_bench.results.provenance import compute_settings_sha256
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.pretraining import Pretraining
from deeplab_bench.writing import write_bytes, write_json

CLASSES = ("background", "disc_shape", "ring")
MIOU = {"aspp": (0.70, 0.72, 0.74), "image_pyramid": (0.6, 0.6, 0.6)}
ENVIRONMENT = {"device": "A & B CPU", "threads": 2, "python": "3.11.9", "torch": "2.6.0"}
WIDTHS = (1, 2, 5, 10, 20, 40)
CRF = {
    "w1": 4.0,
    "sigma_alpha": 49.0,
    "sigma_beta": 5.0,
    "w2": 3.0,
    "sigma_gamma": 3.0,
    "iterations": [0, 1, 2, 5, 10],
    "search": None,
}
ONE_PASS = {"output_stride": None, "scales": [1.0], "flip": False}
OTHER_SETTINGS: dict[str, Any] = {
    "settings_sha256": "of another day",
    "data_sha256": "data",
    "weights_sha256": None,
    "code_sha256": {},
}
FIGURES = {
    "miou",
    "comparisons",
    "per_class",
    "training_curves",
    "object_size",
    "boundaries",
    "latency",
    "flops",
    "receptive_field",
    "atrous",
}


def declare(
    models: Sequence[str] = ("aspp", "image_pyramid"),
    seeds: Sequence[int] = (0, 1, 2),
    hardware: Sequence[str] = ("cpu",),
    data: dict[str, Any] | None = None,
    crf: Sequence[str] = (),
    audit: Sequence[str] = (),
    label_files: Sequence[str] = (),
) -> Params:
    shapes = {"dataset": "shapes", "seed": 0, "image_size": 32}
    profile = {
        "data": data or shapes | {"train_images": 8, "val_images": 4},
        "model": {
            "backbone": "resnet18",
            "width": 0.25,
            "output_stride": 16,
            "head_channels": 8,
            "atrous_rates": [1, 2],
        },
        "training": SCHEDULE,
        "crf": CRF,
    }
    known = {name: {"architecture": name} for name in ARCHITECTURES}
    run = {"profiles": ["quick"], "models": models, "seeds": list(seeds), "hardware": hardware}
    run |= {"inference": ["plain"], "crf": crf, "audit": audit, "label_files": label_files}
    blocks = {name: known.get(name, known["aspp"]) for name in dict.fromkeys([*known, *models])}
    blocks |= {name: {"predictions": "anywhere"} for name in label_files}
    content = {
        "run": run,
        "profile": {"quick": profile},
        "models": blocks,
        "inference": {"plain": {}},
    }
    return Params.model_validate_json(json.dumps(content))


def made_from(params: Params, model: str, seed: int, stage: str) -> dict[str, Any]:
    module = get_module_name(params.models[model]["architecture"])
    return {
        "settings_sha256": compute_settings_sha256(params.experiment("quick", model), seed),
        "data_sha256": "data",
        "weights_sha256": None,
        "code_sha256": {each: compute_code_sha256(each, module) for each in ("train", stage)},
    }


def run_record(params: Params, model: str, seed: int, miou: float) -> dict[str, Any]:
    return {
        "profile": "quick",
        "model": model,
        "seed": seed,
        "architecture": params.models[model]["architecture"],
        "settings": {"arguments": {}, "training": {}, "inference": ONE_PASS},
        "inference": "plain",
        "provenance": made_from(params, model, seed, "evaluate"),
        "parameters": 1_234_567,
        "classes": CLASSES,
        "metrics": {
            "miou": miou,
            "pixel_accuracy": miou + 0.1,
            "mean_accuracy": miou,
            "frequency_weighted_iou": miou,
        },
        "iou": dict.fromkeys(CLASSES, miou),
        "absent_classes": [],
        "object_size": {"edges_px": [8.2, 15.7], "miou": [miou - 0.2, miou, miou + 0.05]},
        "boundaries": {
            "trimap_widths_px": WIDTHS,
            "trimap_miou": [miou - 1 / (4 + width) for width in WIDTHS],
            "distance_share": 0.02,
            "boundary_iou": dict.fromkeys(CLASSES, miou / 2),
            "boundary_miou": miou / 2,
        },
        "context_radius": None,
        "images": {f"val_{index}": [[0, 3, 4]] for index in range(4)},
        "training": {"iteration": [10, 20], "loss": [2.0, 1.0 + seed / 10]},
    }


def curve_record(params: Params, model: str, seed: int, miou: float) -> dict[str, Any]:
    """Make a curve on 2 of the 4 images."""
    run = run_record(params, model, seed, miou)
    provenance = run["provenance"]
    return {
        **{key: run[key] for key in ("profile", "model", "seed")},
        "provenance": provenance | {"code_sha256": {"train": provenance["code_sha256"]["train"]}},
        "images": 2,
        "iteration": [12, 20],
        "loss": [1.5, 1.25 + seed / 10],
        "miou": [miou / 2, miou],
    }


def crf_record(params: Params, model: str, seed: int, miou: float) -> dict[str, Any]:
    """Make scores that rise by a point after each iteration, for seed 1 by half a point more."""

    def after(iteration: int) -> dict[str, Any]:
        better = miou + iteration / 100 * (1.5 if seed == 1 else 1)
        bands = [better - 1 / (4 + width) for width in WIDTHS]
        return {
            "miou": better,
            "pixel_accuracy": better,
            "trimap_miou": bands,
            "iou": {},
            "boundary_iou": dict.fromkeys(CLASSES, better / 2),
            "boundary_miou": better / 2,
        }

    run = run_record(params, model, seed, miou)
    return {
        **{key: run[key] for key in ("profile", "model", "seed")},
        "settings": CRF,
        "provenance": made_from(params, model, seed, "crf"),
        "parameters": {key: CRF[key] for key in list(CRF)[:5]},
        "search": None,
        "classes": CLASSES,
        "trimap_widths_px": WIDTHS,
        "distance_share": 0.02,
        "pictured": [0, 1, 2, 10],
        "iterations": {str(iteration): after(iteration) for iteration in (0, 1, 2, 5, 10)},
    }


def audit_record(params: Params, model: str, seed: int, miou: float) -> dict[str, Any]:
    """Make an audit where a crop costs 2 points, 1 for seed 1; void cannot be background."""
    run = run_record(params, model, seed, miou)
    cropped = miou - (0.01 if seed == 1 else 0.02)
    return {
        **{key: run[key] for key in ("profile", "model", "seed")},
        "provenance": made_from(params, model, seed, "audit"),
        "crop_size": [32, 32],
        "protocol": miou,
        "variants": {"centre_crop": cropped, "void_as_background": None},
    }


def speed_record(model: str, hardware: str, p50: float) -> dict[str, Any]:
    return {
        "profile": "quick",
        "model": model,
        "hardware": hardware,
        "input_size": [32, 32],
        "output_strides": [cost_record(16, p50), cost_record(8, 2 * p50)],
        "images_per_second": {"1": 1000 / p50, "2": 1500 / p50, "4": 1400 / p50},
        "training": {
            "crop_size": [32, 32],
            "batch_size": 4,
            "precision": "float32",
            "step_ms": {"p25": 9 * p50, "p50": 10 * p50, "p75": 12 * p50, "samples": 5},
            "relative_step": {"p25": 2.5, "p50": p50, "p75": 7.25},
            "images_per_second": 400 / p50,
            "peak_memory_mib": 100 * p50,
        },
        "code_sha256": {},
        "environment": ENVIRONMENT,
    }


def field_record(params: Params, model: str, size: int | None) -> dict[str, Any]:
    """Make the field of the first seed on images of 32x32 px; training halves it."""
    run = run_record(params, model, params.run.seeds[0], 0.5)
    return {
        **{key: run[key] for key in ("profile", "model", "seed", "architecture")},
        "provenance": made_from(params, model, params.run.seeds[0], "receptive_field"),
        "image_size": [32, 32],
        "images": 4,
        "theoretical": {
            "size_px": size,
            "stride_px": 16,
            "first_pixel": [0, 0],
            "last_pixel": [31, 31],
            "share": 1.0,
        },
        "effective": {
            "threshold": 0.0455,
            "before": {"size_px": 30.0, "half_px": 21, "share": 0.878906},
            "after": {"size_px": 22.63, "half_px": 11, "share": 0.5},
        },
    }


def cost_record(output_stride: int, p50: float) -> dict[str, Any]:
    factors = {"p25": 0.9, "p50": 1, "p75": 1.1, "p90": 1.2, "p99": 1.5}
    return {
        "output_stride": output_stride,
        "parameters": 1_234_567,
        "flops": int(5e8 * p50),
        "peak_memory_mib": 10 * p50,
        "latency_ms": {name: factor * p50 for name, factor in factors.items()} | {"samples": 30},
        "relative_latency": {"p25": 0.25, "p50": p50 / 8, "p75": 2.5},
    }


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit(path: Path, **changes: Any) -> None:
    dump(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def write_results(params: Params) -> None:
    timing = {"training_seconds": 61.3, "evaluation_seconds": 4.0, "environment": ENVIRONMENT}
    for index, model in enumerate(params.run.models):
        mious = MIOU.get(model, [0.3 + index / 100 + seed / 200 for seed in range(3)])
        for seed, miou in zip(params.run.seeds, mious, strict=False):
            dump(
                RunFiles("quick", model, seed).evaluation(PLAIN),
                run_record(params, model, seed, miou),
            )
            dump(RunFiles("quick", model, seed).evaluation_timing(PLAIN), timing)
            dump(RunFiles("quick", model, seed).curve, curve_record(params, model, seed, miou))
            if model in params.run.crf:
                dump(RunFiles("quick", model, seed).crf, crf_record(params, model, seed, miou))
                crf_timing = {"seconds_per_image": 0.25, "environment": ENVIRONMENT}
                dump(RunFiles("quick", model, seed).crf_timing, crf_timing)
            if model in params.run.audit:
                dump(RunFiles("quick", model, seed).audit, audit_record(params, model, seed, miou))
        size = None if model == "aspp" else 499
        dump(ProfileFiles("quick").receptive_field(model), field_record(params, model, size))
        for hardware in params.run.hardware:
            dump(
                ProfileFiles("quick").speed(hardware, model),
                speed_record(model, hardware, 5.0 + index),
            )
    write_strips(params)


def write_strips(params: Params) -> None:
    label = np.arange(32 * 64, dtype=np.uint8).reshape(32, 64) % len(CLASSES)
    label[:4] = VOID
    folder = ProfileFiles("quick").sample_images.parent
    RunFiles("quick", "", 0).samples(PLAIN).parent.mkdir(parents=True)
    Image.fromarray(np.stack([label * 50] * 3, axis=-1)).save(folder / "images.png")
    write_label(folder / "labels.png", label)
    for model in params.run.models:
        write_label(RunFiles("quick", model, params.run.seeds[0]).samples(PLAIN), label)
        maps = ProfileFiles("quick").receptive_field_maps(model)
        maps.parent.mkdir(exist_ok=True)
        Image.fromarray(label * 80).save(maps)
    for model in params.run.crf:
        files = RunFiles("quick", model, params.run.seeds[0]).crf_samples
        files["labels"].parent.mkdir(exist_ok=True)
        write_label(files["labels"], np.concatenate([label] * 4))
        for what, shade in (("scores", 80), ("beliefs", 160)):
            pixels = np.full((4 * 32, 64), shade, dtype=np.uint8)
            Image.fromarray(pixels).save(files[what])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "quick"


def report(params: Params) -> None:
    write_results(params)
    write_report(params, "quick")


def texts(params: Params) -> dict[str, str]:
    """Render the tables of the results on disk, by file name."""
    results = load_results(params, "quick")
    return tables.render(results) | speed_tables.render(results)


def made(params: Params) -> dict[str, str]:
    write_results(params)
    return texts(params)


def frame(files: dict[str, str], name: str) -> pd.DataFrame:
    return pd.read_csv(StringIO(files[f"tables/{name}.csv"]), index_col="model")


def test_mean_spread_and_interval() -> None:
    aspp = frame(made(declare()), "accuracy").loc["aspp"]
    # 70, 72, 74: deviation 2, standard error 2 / sqrt 3, t of 2 degrees of freedom 4.30265
    assert aspp["miou_mean"] == 72.0
    assert aspp["miou_std"] == 2.0
    assert (aspp["ci95_low"], aspp["ci95_high"]) == (67.03, 76.97)
    assert (aspp["seeds"], aspp["params_m"], aspp["architecture"]) == (3, 1.235, "aspp")
    assert aspp["pixel_accuracy_mean"] == 82.0
    assert (aspp["miou_small"], aspp["miou_medium"], aspp["miou_large"]) == (52.0, 72.0, 77.0)


def test_accuracy_stands_beside_what_it_costs() -> None:
    """Read output strides from the settings, and GFLOPs from the records of speed."""
    params = declare()
    blocks = dict(params.models)
    blocks["aspp"] = blocks["aspp"] | {"second_phase": {"output_stride": 8, "training": {}}}
    blocks["image_pyramid"] = blocks["image_pyramid"] | {"output_stride": 32}
    files = made(params.model_copy(update={"models": blocks}))
    data = frame(files, "accuracy").astype({"output_stride": str, "eval_output_stride": str})
    strides = data[["output_stride", "eval_output_stride"]]
    assert list(strides.loc["aspp"]) == ["16, 8", "8"]
    assert list(strides.loc["image_pyramid"]) == ["32", "32"]
    costs = frame(files, "speed").groupby("model")["gflops"].first()
    assert dict(data["gflops"]) == dict(costs)
    header, _, *rows = files["tables/accuracy.md"].splitlines()
    assert "| Output stride, training/evaluation | GFLOPs |" in re.sub(" +", " ", header)
    assert [row.split("|")[5].strip() for row in rows[:2]] == ["16, 8/8", "32/32"]
    assert "GFLOPs are of one image of 32x32 px" in files["tables/accuracy.md"]


def test_accuracy_of_models_that_were_not_timed_has_no_gflops() -> None:
    files = made(declare(hardware=[]))
    assert "gflops" not in frame(files, "accuracy")
    assert "GFLOPs" not in files["tables/accuracy.md"]


def test_tables_name_the_commits_and_csv_files_do_not() -> None:
    params = declare(audit=["aspp"])
    old = made(params)
    for seed in params.run.seeds:
        commit = {"commit": "0123456789abcdef", "date": "2017-06-17"}
        source = commit | {"dirty": seed == 2, "lock_sha256": None}
        timing = RunFiles("quick", "aspp", seed).evaluation_timing(PLAIN)
        edit(
            timing,
            sources={"train": source | {"commit": "c" * 40, "date": None}, "evaluate": source},
        )
    new = texts(params)
    assert {name for name in old if old[name] != new[name]} == {
        f"tables/{name}.{form}"
        for name in ("accuracy", "per_class", "object_size", "boundaries", "protocol_audit")
        for form in ("md", "tex")
    }
    unknown = ", and an unknown commit."
    assert f"Trained at commit cccccccccccc (edited){unknown}" in new["tables/protocol_audit.md"]
    both = f"commits cccccccccccc (edited) and 0123456789ab of 2017-06-17 (edited){unknown}"
    assert f"Made at {both}" in new["tables/per_class.md"]
    assert "Made at an unknown commit." in new["tables/speed.md"]
    (caption,) = re.findall(r"\\caption\[.*?\]\{(.*)\}\\label", new["tables/per_class.tex"])
    assert caption == (
        "IoU of each class in percent on 4 validation images, n = 3 seeds, mean over seeds; "
        f"profile quick. Made at {both}"
    )


def test_seeds_that_agree_have_an_interval_of_no_width() -> None:
    pyramid = frame(made(declare()), "accuracy").loc["image_pyramid"]
    assert (pyramid["miou_std"], pyramid["ci95_low"], pyramid["ci95_high"]) == (0.0, 60.0, 60.0)


def test_metrics_for_dvc_are_numbers_by_name() -> None:
    metrics = json.loads(made(declare())["metrics.json"])
    assert metrics["aspp"] == {"miou": 0.72, "ci95_low": 0.670317, "ci95_high": 0.769683}


def test_rows_are_the_declared_models_in_their_order() -> None:
    write_results(declare(models=["psp", "fcn", "aspp"]))
    files = texts(declare(models=["fcn", "aspp"]))
    assert list(frame(files, "accuracy").index) == ["fcn", "aspp"]
    assert not any("psp" in text for text in files.values())


def test_speed_is_of_every_model_on_every_hardware() -> None:
    table = frame(made(declare(hardware=["gpu", "cpu"])), "speed")
    trained = table[table["output_stride"] == 16]
    assert len(table) == 2 * len(trained)
    assert list(zip(trained.index, trained["hardware"], strict=True)) == [
        ("aspp", "gpu"),
        ("image_pyramid", "gpu"),
        ("aspp", "cpu"),
        ("image_pyramid", "cpu"),
    ]
    assert trained["gflops"].tolist() == [2.5, 3.0, 2.5, 3.0]
    assert trained["latency_p90_ms"].tolist() == [6.0, 7.2, 6.0, 7.2]
    assert "latency_p99_ms" not in table  # of few passes it is about the longest


def test_throughput_is_the_best_and_of_the_trained_output_stride() -> None:
    table = frame(made(declare()), "speed").loc["aspp"]
    assert table["images_per_second"].tolist() == pytest.approx([300, np.nan], nan_ok=True)
    assert table["batch_size"].tolist() == pytest.approx([2, np.nan], nan_ok=True)


def test_relative_times_show_their_quartiles() -> None:
    files = made(declare())
    row = frame(files, "speed").loc["aspp"].iloc[0]
    relative = [row[f"latency_relative{end}"] for end in ("_p25", "", "_p75")]
    assert relative == [0.25, 0.62, 2.5]
    assert "| **0.62 [0.25, 2.50]** |" in files["tables/speed.md"]
    assert "| **50.00 [45.00, 60.00]** |" in files["tables/training_speed.md"]


def test_readers_see_fewer_digits_than_programs() -> None:
    files = made(declare())
    header, first = files["tables/speed.csv"].splitlines()[:2]
    values = dict(zip(header.split(","), first.split(","), strict=True))
    assert (values["peak_memory_mib"], values["images_per_second"]) == ("50.00", "300.00")
    shown = [cell.strip(" *") for cell in files["tables/speed.md"].splitlines()[2].split("|")]
    assert "50" in shown and "300.0" in shown
    assert "n ≥ 30 timed forward passes of each of 2 models" in files["tables/speed.md"]


def test_seconds_of_the_crf_stand_beside_the_trained_network() -> None:
    params = declare(crf=["aspp"])
    write_results(params)
    dump(
        RunFiles("quick", "aspp", 2).crf_timing,
        {"seconds_per_image": 0.4, "environment": ENVIRONMENT},
    )
    files = texts(params)
    seconds = frame(files, "speed")["crf_seconds"].tolist()
    assert seconds == pytest.approx([0.3, *[np.nan] * 3], nan_ok=True)
    assert "crf_seconds" not in frame(texts(declare()), "speed")


@pytest.mark.usefixtures("_without_figures")
def test_a_model_too_large_to_train_is_not_in_the_table_of_training() -> None:
    write_results(declare())
    edit(ProfileFiles("quick").speed("cpu", "aspp"), training=None)
    assert list(frame(texts(declare()), "training_speed").index) == ["image_pyramid"]
    edit(ProfileFiles("quick").speed("cpu", "image_pyramid"), training=None)
    assert not any("training_speed" in name for name in texts(declare()))
    write_report(declare(), "quick")
    assert "Speed of training" not in Path("results/quick/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 5)], [(1, 5)]),
        ([(3, 5), (1, 2), (2, 4)], [(1, 2), (2, 4), (3, 5)]),
        ([(1, 4), (2, 3), (3, 4), (4, 6)], [(1, 4), (4, 6)]),
        ([(1, 2), (1, 3), (2, 3)], [(1, 3)]),
    ],
)
def test_pareto_front(points: list[tuple[float, float]], front: list[tuple[float, float]]) -> None:
    assert tradeoff.find_pareto_front(points) == front


@pytest.mark.parametrize(
    "missing",
    [
        RunFiles("quick", "aspp", 1).evaluation(PLAIN),
        RunFiles("quick", "aspp", 1).evaluation_timing(PLAIN),
        ProfileFiles("quick").speed("cpu", "aspp"),
        RunFiles("quick", "aspp", 0).samples(PLAIN),
        ProfileFiles("quick").receptive_field("aspp"),
        ProfileFiles("quick").receptive_field_maps("aspp"),
    ],
    ids=str,
)
def test_a_missing_file_is_named_and_nothing_is_written(folder: Path, missing: Path) -> None:
    write_results(declare())
    missing.unlink()
    with pytest.raises(UserError, match=rf"^{re.escape(str(missing))} is missing.*`dvc repro`$"):
        write_report(declare(), "quick")
    assert not (folder / "tables").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "psp"}, "is of model 'psp', not 'aspp'"),
        ({"parameters": "many"}, "parameters: "),
        ({"classes": ["a"]}, "iou: "),
        ({"images": {"val_0": [[3, 1, 2]]}}, r"images: .*val_0 has \[3, 1, 2\]"),
        ({"images": {"val_0": [[0, 3, 2]]}}, r"images: .*val_0 has \[0, 3, 2\]"),
        ({"training": {"iteration": [1], "loss": []}}, "training: .*1 iterations but 0 losses"),
    ],
)
def test_an_unfit_file_is_named_with_the_fault(changes: dict[str, Any], message: str) -> None:
    write_results(declare())
    path = RunFiles("quick", "aspp", 1).evaluation(PLAIN)
    edit(path, **changes)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{message}.*`dvc repro`$"):
        load_results(declare(), "quick")


@pytest.mark.parametrize("what", ["settings", "data"])
def test_runs_of_other_settings_or_data_are_refused(what: str) -> None:
    params = declare()
    write_results(params)
    path = RunFiles("quick", "aspp", 1).evaluation(PLAIN)
    provenance = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    edit(path, provenance=provenance | {f"{what}_sha256": "of another day"})
    with pytest.raises(UserError, match=rf"aspp.*1.* other {what}"):
        write_report(params, "quick")


def test_runs_of_another_way_of_inference_are_refused() -> None:
    params = declare()
    write_results(params)
    path = RunFiles("quick", "aspp", 1).evaluation(PLAIN)
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    edit(path, settings=settings | {"inference": ONE_PASS | {"scales": [0.5, 1.0]}})
    with pytest.raises(UserError, match=r"aspp-1\.json is of other settings than inference.plain"):
        load_results(params, "quick")


@pytest.mark.parametrize("stage", ["crf", "audit", "receptive_field"])
def test_a_stage_of_other_data_is_refused(stage: str) -> None:
    params = declare(crf=["aspp"], audit=["aspp"])
    write_results(params)
    run = RunFiles("quick", "aspp", 0)
    paths = {
        "crf": run.crf,
        "audit": run.audit,
        "receptive_field": ProfileFiles("quick").receptive_field("aspp"),
    }
    provenance = json.loads(paths[stage].read_text(encoding="utf-8"))["provenance"]
    edit(paths[stage], provenance=provenance | {"data_sha256": "of another day"})
    with pytest.raises(UserError, match=r"aspp.*0.* other data"):
        load_results(params, "quick")


def test_results_of_other_data_than_those_on_disk_are_refused() -> None:
    """Check also that without data, as in a fresh clone, the results are shown."""
    write_results(declare())
    load_results(declare(), "quick")
    write_bytes(ProfileFiles("quick").data / MANIFEST, b"{}")
    with pytest.raises(UserError, match=r"results/quick was made from other data than data/quick"):
        load_results(declare(), "quick")


@pytest.mark.usefixtures("_without_figures")
def test_results_of_older_code_are_shown_and_marked(folder: Path) -> None:
    params = declare(crf=["aspp"])
    write_results(params)
    assert load_results(params, "quick").outdated == {}
    make_outdated(RunFiles("quick", "aspp", 1).evaluation(PLAIN), "train")
    make_outdated(RunFiles("quick", "aspp", 2).crf, "crf")
    make_outdated(ProfileFiles("quick").speed("cpu", "image_pyramid"), "speed")
    results = load_results(params, "quick")
    assert results.outdated == {"aspp": ("train", "crf"), "image_pyramid": ("speed",)}
    write_report(params, "quick")
    for name in ("README.md", "tables/accuracy.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "> [!CAUTION]" in text
        assert "Results of older code: aspp (train, crf); image_pyramid (speed)" in text


def make_outdated(path: Path, stage: str) -> None:
    """Change the digest of a stage's code in a result."""
    record = json.loads(path.read_text(encoding="utf-8"))
    record.get("provenance", record)["code_sha256"][stage] = "of another day"
    dump(path, record)


def test_runs_of_other_images_are_refused() -> None:
    write_results(declare())
    images = {f"val_{index}": [[0, 3, 4]] for index in (0, 1, 3, 2)}
    edit(RunFiles("quick", "image_pyramid", 1).evaluation(PLAIN), images=images)
    with pytest.raises(UserError, match="image_pyramid, seed 1, was made from other data"):
        load_results(declare(), "quick")


def test_an_undefined_profile_is_refused() -> None:
    with pytest.raises(UserError, match="'quack' is not in params"):
        write_report(declare(), "quack")


def test_one_seed_has_no_spread_and_says_so() -> None:
    files = made(declare(seeds=[0]))
    row = frame(files, "accuracy").loc["aspp"]
    assert row["miou_mean"] == 70.0
    assert row[["miou_std"]].isna().all()
    assert (row["ci95_low"], row["ci95_high"]) == (70.0, 70.0)  # its images are all alike
    assert "95 % interval over images alone" in files["tables/accuracy.md"]
    assert "as there is 1 seed" in files["tables/accuracy.md"]
    assert "±" not in files["tables/accuracy.md"]
    assert json.loads(files["metrics.json"])["aspp"]["miou"] == 0.7


def test_an_absent_class_is_empty_and_named() -> None:
    write_results(declare())
    for model in MIOU:
        for seed in range(3):
            iou = {"background": 0.7, "disc_shape": None, "ring": 0.5}
            edit(
                RunFiles("quick", model, seed).evaluation(PLAIN),
                iou=iou,
                absent_classes=["disc_shape"],
            )
    files = texts(declare())
    classes = frame(files, "per_class")
    assert classes["disc_shape"].isna().all()
    assert (classes["ring"] == 50.0).all()
    for name in ("accuracy", "per_class"):
        assert "left out: disc_shape." in files[f"tables/{name}.md"]


def test_a_class_absent_from_some_runs_is_the_mean_of_the_others() -> None:
    write_results(declare())
    iou = {"background": 0.7, "disc_shape": None, "ring": 0.5}
    edit(RunFiles("quick", "aspp", 2).evaluation(PLAIN), iou=iou, absent_classes=["disc_shape"])
    files = texts(declare())
    assert frame(files, "per_class").loc["aspp", "disc_shape"] == 71.0
    assert "disc_shape (1 of 6 runs)" in files["tables/per_class.md"]


def test_the_best_are_bold() -> None:
    files = made(declare())
    bold = re.compile(r"\*\*(.*?)\*\*")
    scores = ["72.00 ± 2.00", "82.00", "52.00", "72.00", "77.00"]
    assert bold.findall(files["tables/accuracy.md"]) == scores
    best_times = ["5.00", "6.00", "0.62 [0.25, 2.50]", "300.0"]
    assert bold.findall(files["tables/speed.md"]) == best_times


def test_latex_is_escaped_and_balanced() -> None:
    files = made(declare())
    for name in ("accuracy", "per_class", "speed", "training_speed"):
        text = files[f"tables/{name}.tex"]
        body = re.sub(r"(?m)^%.*|\\label\{.*?\}", "", text)
        assert not re.search(r"(?<!\\)[_%#]", body)
        assert text.count("{") == text.count("}")
        assert r"\toprule" in text
        assert r"image\_pyramid" in text
        widths = {line.count(" & ") for line in text.splitlines() if line.endswith(r" \\")}
        assert len(widths) == 1
    assert r"A \& B CPU" in text


def test_identical_results_give_identical_bytes(folder: Path) -> None:
    report(declare())
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report(declare(), "quick")
    second = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert first == second
    assert {path.stem for path in folder.glob("plots/*.svg")} == FIGURES
    assert {path.stem for path in folder.glob("plots/*.png")} == FIGURES | {"samples"}


def test_photographs_stay_out_of_the_plots(folder: Path) -> None:
    report(declare(data={"dataset": "folder", "root": "somewhere"}))
    assert (folder / "photographs.png").is_file()
    assert not (folder / "plots" / "samples.png").exists()
    assert "](plots/samples.png)" not in (folder / "README.md").read_text(encoding="utf-8")


def test_a_figure_that_is_not_drawn_again_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = declare(data={"dataset": "folder", "root": "somewhere"})
    write_results(params)
    shutil.rmtree(folder / "samples")
    write_report(params, "quick")
    assert not (folder / "plots" / "receptive_field.svg").exists()
    assert "results/quick/plots/receptive_field stays as it was" in capsys.readouterr().out


@pytest.mark.parametrize(("models", "seeds"), [(1, 1), (1, 3), (24, 1)])
def test_any_number_of_models_and_seeds(folder: Path, models: int, seeds: int) -> None:
    names = [f"ablation_{index}" for index in range(models)]
    report(declare(models=names, seeds=range(seeds), hardware=["cpu", "gpu"]))
    assert (folder / "tables" / "accuracy.csv").read_text("utf-8").count("\n") == 1 + models


def test_speed_is_left_out_without_hardware(folder: Path) -> None:
    report(declare(hardware=[]))
    assert not list(folder.glob("*/speed.*")) + list(folder.glob("*/latency.*"))
    assert "Speed" not in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("first", "second", "unbeaten"),
    [
        (5.0, 6.0, "`aspp` (5.0 ms, 72.0 %)"),
        (7.0, 6.0, "`image_pyramid` (6.0 ms, 60.0 %) and `aspp` (7.0 ms, 72.0 %)"),
    ],
)
def test_no_model_beats_those_of_the_front(first: float, second: float, unbeaten: str) -> None:
    params = declare(hardware=["gpu", "cpu"])
    write_results(params)
    for model, latency in (("aspp", first), ("image_pyramid", second)):
        path = ProfileFiles("quick").speed("gpu", model)
        costs = json.loads(path.read_text(encoding="utf-8"))["output_strides"]
        costs[0]["latency_ms"]["p50"] = latency
        edit(path, output_strides=costs)
    assert list_findings(load_results(params, "quick"))["cost"] == (
        f"On gpu, by median latency and mean mIoU alone, no model beats {unbeaten} in both (one "
        "image of 32x32 px)."
    )
    assert "cost" not in list_findings(load_results(declare(hardware=[]), "quick"))
    assert "cost" not in list_findings(load_results(declare(["aspp"]), "quick"))


def test_memory_is_drawn_for_gpus_alone() -> None:
    params = declare(hardware=["cpu", "h100"])
    write_results(params)
    results = load_results(params, "quick")
    latency, _, memory = tradeoff.list_expenses(results)
    assert latency.list_hardware(results) == ["cpu", "h100"]
    (panel,) = tradeoff.draw_tradeoff(results, memory).axes
    assert panel.get_title() == "h100, 32x32 px"
    found = tradeoff.list_expenses(load_results(declare(), "quick"))
    assert [each.key for each in found] == ["latency", "flops"]


def test_the_background_is_no_class_of_the_figure() -> None:
    write_results(declare())
    axes = plots.draw_per_class(load_results(declare(), "quick")).axes[0]
    classes = [label.get_text() for label in axes.get_xticklabels()]
    assert CLASSES[0] == "background" and classes == list(CLASSES[1:])
    assert axes.get_title().endswith("without background")


def test_many_models_are_named_in_a_legend_from_the_highest() -> None:
    models = ["fcn", "aspp", "psp", "cascade", "deeplabv1", "deeplabv2"]
    write_results(declare(models))
    results = load_results(declare(models), "quick")
    (legend,) = tradeoff.draw_tradeoff(results, tradeoff.EXPENSES[0]).legends
    means = results.scores().groupby("model")["miou"].mean()
    named = [text.get_text() for text in legend.get_texts()]
    assert sorted(named) == sorted(models)
    assert list(means[named]) == sorted(means, reverse=True)


class TestReceptiveField:
    def test_of_every_model(self) -> None:
        write_results(declare())
        files = receptive_field.render(load_results(declare(), "quick"))
        table = frame(files, "receptive_field")
        assert list(table.index) == ["aspp", "image_pyramid"]
        assert np.isnan(table["field_px"]["aspp"]) and table["field_px"]["image_pyramid"] == 499
        pyramid = table.loc["image_pyramid"]
        assert (pyramid["effective_before_px"], pyramid["effective_after_px"]) == (30, 22.63)
        assert (pyramid["effective_share"], pyramid["half_after_px"]) == (50, 11)
        aspp, _ = re.findall(
            r"(?m)^\| (?:aspp|image_pyramid) .*", files["tables/receptive_field.md"]
        )
        assert "whole image" in aspp
        note = files["tables/receptive_field.md"]
        assert "n = 4 validation images" in note and "more than 4.55 %" in note

    def test_what_is_said_of_it(self) -> None:
        """Check the finding and the figure, with a field that does not cover the image, too."""
        write_results(declare())
        results = load_results(declare(), "quick")
        whole, part = results.fields
        assert list_findings(results)["fields"] == (
            "In theory all 2 models see the whole image (32x32 px); after training, half of the "
            "gradient lies in its middle 11 px."
        )
        assert receptive_field.label_theory(whole) == "in theory:\nwhole picture (32 px)"
        small = part.theoretical.model_copy(update={"share": 0.5, "size_px": 21})
        used = part.effective.after.model_copy(update={"half_px": 9})
        effective = part.effective.model_copy(update={"after": used})
        part = part.model_copy(update={"theoretical": small, "effective": effective})
        assert receptive_field.label_theory(part) == "in theory:\n21 px"
        assert receptive_field.label_effective(part, used).endswith("middle 9 of 32 px")
        assert list_findings(replace(results, fields=[whole, part]))["fields"] == (
            "In theory 1 of 2 models see the whole image (32x32 px); after training, half of the "
            "gradient lies in its middle 9 px (`image_pyramid`) to 11 px (`aspp`)."
        )
        (title,) = {receptive_field.draw_receptive_field(results).get_suptitle()}
        assert title.endswith("input of 32x32 px")

    def test_photographs_are_not_its_background(self) -> None:
        write_results(declare())
        generated = receptive_field.choose_background(load_results(declare(), "quick"))
        assert generated.shape == (32, 32, 3) and generated.std() > 0
        photographs = declare(data={"dataset": "folder", "root": "somewhere"})
        assert receptive_field.choose_background(load_results(photographs, "quick")).std() == 0

    def test_the_figure_is_in_palettes(self) -> None:
        write_results(declare())
        drawn = receptive_field.render_figure(load_results(declare(), "quick"))
        embedded = map(
            b64decode, receptive_field.EMBEDDED.findall(drawn["plots/receptive_field.svg"])
        )
        images = [Image.open(BytesIO(png)) for png in embedded]
        assert [(image.mode, image.size) for image in images] == [("P", (32, 32))] * 6
        with Image.open(BytesIO(drawn["plots/receptive_field.png"])) as image:
            assert image.mode == "P"

    def test_a_palette_is_smaller_and_looks_the_same(self) -> None:
        noise = np.random.default_rng(0).normal(0.5, 0.15, (96, 96)).clip(0, 1)
        image = Image.fromarray(matplotlib.colormaps["cividis"](noise, bytes=True))
        before = BytesIO()
        image.save(before, "png")
        after = receptive_field.reduce_colours(before.getvalue(), receptive_field.MAP_COLOURS)
        assert len(after) < len(before.getvalue()) / 2
        with Image.open(BytesIO(after)) as reduced:
            assert len(reduced.getcolors() or ()) <= receptive_field.MAP_COLOURS
            shown = np.asarray(reduced.convert("RGB"), dtype=int)
        change = np.abs(shown - np.asarray(image.convert("RGB"), dtype=int))
        assert change.max() < 8 and change.mean() < 2

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seed": 1}, "is of seed 1, not 0"),
            ({"provenance": OTHER_SETTINGS}, "other settings"),
            ({"image_size": [32]}, "image_size"),
        ],
    )
    def test_other_results_are_refused(self, changes: dict[str, Any], message: str) -> None:
        write_results(declare())
        edit(ProfileFiles("quick").receptive_field("aspp"), **changes)
        with pytest.raises(UserError, match=rf"aspp\.json.*{message}"):
            load_results(declare(), "quick")


class TestCRF:
    def test_scores_by_iteration(self) -> None:
        files = made(declare(crf=["aspp"]))
        table = frame(files, "crf")
        assert [*table.index] == ["aspp"] * 5
        assert [*table["iteration"]] == [0, 1, 2, 5, 10]
        after = table.iloc[4]
        # 80, 87, 84; beyond the network by 10, 15, 10: deviation 2.88675, standard error 5 / 3
        assert (after["miou_mean"], after["seeds"]) == (83.67, 3)
        assert (after["gain_mean"], after["gain_ci95_low"]) == (11.67, 4.5)
        assert (after["trimap_1_px"], after["boundary_miou"]) == (63.67, 41.83)
        network = table.iloc[0]
        assert (network["miou_mean"], network["boundary_miou"]) == (72.0, 36.0)
        text = files["tables/crf.md"]
        assert "+11.67 (+4.50 to +18.84)" in text
        assert "**41.83**" in text and "within 2 % of the image's diagonal" in text
        assert "4/49/5/3/3, as given" in text and "0.25 s per image" in text
        assert list_findings(load_results(declare(crf=["aspp"]), "quick"))["crf"] == (
            "The fully connected CRF changes `aspp` by +11.7 points (95 % interval 4.5 to 18.8 "
            "over seeds alone)."
        )

    def test_the_figure_of_boundaries_has_both(self) -> None:
        """Check boundary IoU without the CRF, and for aspp also after the last iteration."""
        write_results(declare(crf=["aspp"]))
        _, contours = plots.draw_boundaries(load_results(declare(crf=["aspp"]), "quick")).axes
        shown = [np.round(np.asarray(line.get_xydata()), 2).tolist() for line in contours.lines]
        assert shown == [[[0, 36]], [[0, 36], [1, 41.83]], [[1, 41.83]], [[0, 30]]]

    def test_a_worse_crf_is_reported_as_it_is(self) -> None:
        write_results(declare(crf=["aspp"]))
        for seed in range(3):
            path = RunFiles("quick", "aspp", seed).crf
            content = json.loads(path.read_text(encoding="utf-8"))
            content["iterations"]["10"]["miou"] = content["iterations"]["0"]["miou"] - 0.1
            dump(path, content)
        files = texts(declare(crf=["aspp"]))
        assert "-10.00 (-10.00 to -10.00)" in files["tables/crf.md"]

    def test_searched_parameters_are_those_of_each_seed(self) -> None:
        write_results(declare(crf=["aspp"]))
        for seed in range(3):
            search = {"images": 24}
            found = CRF | {"w1": 5 + seed, "sigma_alpha": 40, "sigma_beta": 6}
            parameters = {key: found[key] for key in list(CRF)[:5]}
            edit(RunFiles("quick", "aspp", seed).crf, search=search, parameters=parameters)
        note = texts(declare(crf=["aspp"]))["tables/crf.md"]
        assert "aspp (seed 2) 7/40/6/3/3" in note and "24 training images" in note

    def test_its_files_are_declared_ones(self, folder: Path) -> None:
        report(declare(crf=["aspp"]))
        assert (folder / "plots" / "crf_aspp.png").is_file()
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert "](plots/crf_aspp.png)" in text and "- [Fully connected CRF](tables/crf.md)" in text
        assert "image_pyramid" not in (folder / "tables" / "crf.csv").read_text(encoding="utf-8")

    def test_is_left_out_where_no_model_has_one(self) -> None:
        files = made(declare())
        assert not any("crf" in name for name in files)
        results = load_results(declare(), "quick")
        assert "CRF" not in page.render(
            results, files | receptive_field.render(results), list_findings(results)
        )

    def test_the_panel_has_the_network_the_first_and_the_last_iteration(self) -> None:
        write_results(declare(crf=["aspp"]))
        panel = samples.draw_crf_panel(load_results(declare(crf=["aspp"]), "quick"), "aspp")
        assert [label.get_text() for label in panel.axes[0].get_yticklabels()] == [
            "input",
            "ground truth",
            *(f"labels, {after}" for after in ("network", "iteration 1", "iteration 10")),
            *(f"beliefs, {after}" for after in ("network", "iteration 1", "iteration 10")),
        ]

    def test_photographs_stay_out_of_the_plots(self, folder: Path) -> None:
        report(declare(data={"dataset": "folder", "root": "somewhere"}, crf=["aspp"]))
        assert (folder / "crf_aspp.png").is_file()
        assert not (folder / "plots" / "crf_aspp.png").exists()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"settings": CRF | {"w1": 5.0}}, "is of other CRF settings"),
            ({"model": "psp"}, "is of model 'psp', not 'aspp'"),
        ],
    )
    def test_results_of_other_settings_are_refused(
        self, changes: dict[str, Any], message: str
    ) -> None:
        write_results(declare(crf=["aspp"]))
        edit(RunFiles("quick", "aspp", 1).crf, **changes)
        with pytest.raises(UserError, match=rf"aspp-1\.json {message}.*`dvc repro`$"):
            load_results(declare(crf=["aspp"]), "quick")

    def test_results_of_other_training_are_refused(self) -> None:
        write_results(declare(crf=["aspp"]))
        edit(RunFiles("quick", "aspp", 1).crf, provenance=OTHER_SETTINGS)
        with pytest.raises(UserError, match=r"crf.aspp-1\.json .*other settings"):
            load_results(declare(crf=["aspp"]), "quick")

    def test_a_missing_picture_is_named(self) -> None:
        write_results(declare(crf=["aspp"]))
        path = RunFiles("quick", "aspp", 0).crf_samples["beliefs"]
        path.unlink()
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))} is missing"):
            write_report(declare(crf=["aspp"]), "quick")


def test_sizes_have_intervals() -> None:
    files = made(declare())
    aspp = frame(files, "object_size").loc["aspp"]
    assert (aspp["miou_small"], aspp["miou_small_std"]) == (52.0, 2.0)
    assert (aspp["miou_large_ci95_low"], aspp["miou_large_ci95_high"]) == (72.03, 81.97)
    assert "| **52.00 [47.03, 56.97]** |" in files["tables/object_size.md"]


def test_boundaries_by_width(folder: Path) -> None:
    files = made(declare())
    aspp = frame(files, "boundaries").loc["aspp"]
    assert list(aspp.filter(like="trimap_")) == [round(72 - 100 / (4 + w), 2) for w in WIDTHS]
    assert (aspp["miou_mean"], aspp["ci95_low"], aspp["boundary_miou"]) == (72.0, 67.03, 36.0)
    assert "within 2 % of the image's diagonal" in files["tables/boundaries.md"]


class TestContextRadius:
    RADII: ClassVar[dict[str, Any]] = {
        "largest_px": [0, 4, 8, 16],
        "correct": [90, 30, 0, 10, 1],
        "total": [100, 60, 0, 40, 2],
    }

    def give(self, params: Params) -> None:
        write_results(params)
        for model in params.run.models:
            for seed in params.run.seeds:
                correct = [90, 30 + seed, 0, 10, 1]
                edit(
                    RunFiles("quick", model, seed).evaluation(PLAIN),
                    context_radius=self.RADII | {"correct": correct},
                )

    def test_accuracy_by_radius(self) -> None:
        """Check that ground, radii without pixels and radii beyond the largest are left out."""
        self.give(declare())
        scores = load_results(declare(), "quick").radius_scores()
        aspp = scores[scores["model"] == "aspp"]
        assert aspp["largest_px"].tolist() == [4, 16] * 3
        assert aspp["accuracy"].tolist() == pytest.approx(
            [50.0, 25.0, 100 * 31 / 60, 25.0, 100 * 32 / 60, 25.0]
        )

    def test_figure_and_table(self, folder: Path) -> None:
        self.give(declare())
        write_report(declare(), "quick")
        page_text = (folder / "README.md").read_text(encoding="utf-8")
        assert "](plots/context_radius.svg)\n\n[Table](tables/context_radius.md)" in page_text
        assert (folder / "plots" / "context_radius.svg").is_file()
        text = (folder / "tables" / "context_radius.md").read_text(encoding="utf-8")
        assert "Up to 4 px (%) |   Up to 16 px (%) |" in text and " **51.67** |" in text
        assert (
            "the 100 pixels of objects" in text
            and "r = 0; 100 pixels" in text
            and "2 pixels with r over 16" in text
        )

    def test_photographs_have_none(self, folder: Path) -> None:
        report(declare())
        assert not (folder / "plots" / "context_radius.svg").exists()
        assert "## Accuracy by context radius" not in (folder / "README.md").read_text(
            encoding="utf-8"
        )


class TestAudit:
    def test_points_that_a_rule_moves(self) -> None:
        files = made(declare(audit=["aspp"]))
        table = frame(files, "protocol_audit").set_index("variant")
        assert list(table.index) == ["protocol", "centre_crop", "void_as_background"]
        crop = table.loc["centre_crop"]
        # -2, -1, -2: deviation 0.57735, standard error a third, t of 2 degrees of freedom 4.30265
        assert (crop["miou_mean"], crop["gain"]) == (70.33, -1.67)
        assert (crop["gain_low"], crop["gain_high"]) == (-3.1, -0.23)
        text = files["tables/protocol_audit.md"]
        assert "-1.67 [-3.10, -0.23]" in text
        assert re.search(r"void_as_background +\| +\| +not applicable \|", text)
        assert crop["as_in"].startswith("VainF's")
        assert re.search(r"\| protocol .*\| FCN, mmseg, ", text)

        assert list_findings(load_results(declare(audit=["aspp"]), "quick"))["audit"] == (
            "By another rule of scoring, `centre_crop`, `aspp` would score 1.7 points lower."
        )

    def test_code_is_named_for_known_variants(self) -> None:
        assert AS_IN.keys() <= {"protocol", *VARIANTS}

    def test_one_seed_has_no_interval(self) -> None:
        files = made(declare(audit=["aspp"], seeds=[0]))
        assert "| -2.00 |" in re.sub(" +", " ", files["tables/protocol_audit.md"])

    @pytest.mark.usefixtures("_without_figures")
    def test_it_is_on_the_page(self, folder: Path) -> None:
        report(declare(audit=["aspp"]))
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert "- [Scoring variants](tables/protocol_audit.md)" in text

    def test_results_of_other_settings_are_refused(self) -> None:
        write_results(declare(audit=["aspp"]))
        edit(RunFiles("quick", "aspp", 1).audit, provenance=OTHER_SETTINGS)
        with pytest.raises(UserError, match=r"audit.aspp-1\.json .*other settings"):
            load_results(declare(audit=["aspp"]), "quick")


def test_the_page_has_one_table_and_links_to_the_others(folder: Path) -> None:
    """Follow every link of the page and of the tables."""
    write_results(declare(crf=["aspp"], audit=["aspp"]))
    write_bytes(get_notes_file("quick"), b"By hand.\n\nMore of it.\n")
    write_report(declare(crf=["aspp"], audit=["aspp"]), "quick")
    text = (folder / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert {"../../docs/glossary.md", "../notes/quick.md"} <= set(links)
    accuracy = (folder / "tables" / "accuracy.md").read_text(encoding="utf-8").strip()
    assert accuracy.replace("](../../../docs/", "](../../docs/") in text
    for path in sorted((folder / "tables").glob("*.md")):
        table = path.read_text(encoding="utf-8").strip()
        assert path.stem == "accuracy" or f"tables/{path.name}" in links
        links += [f"tables/{link}" for link in re.findall(r"\]\(([^)#]+)", table)]
    assert "More of it." not in text
    glossary = folder.parents[1] / captions.GLOSSARY
    glossary.parent.mkdir()
    glossary.touch()
    for link in links:
        assert (folder / link).exists()
    assert "make repro PROFILE=quick" in text
    assert text.index("protocol") < text.index("By hand.") < text.index("## Accuracy")


def test_the_page_says_which_schedules_differ() -> None:
    """Check all that is resolved: a second phase, and settings for this profile alone."""
    params = declare()
    blocks = dict(params.models)
    own = {"per_profile": {"quick": {"training": {"base_lr": 0.5}}}, "training": {"momentum": 0.1}}
    second = {"training": {"iterations": 7, "lr_policy": "fixed"}}
    blocks["aspp"] = blocks["aspp"] | own | {"second_phase": second}
    params = params.model_copy(update={"models": blocks})
    write_results(params)
    found = load_results(params, "quick")
    assert page.describe_own(found) == (
        "Settings that differ: `aspp` in phase 1 has base_lr 0.5, momentum 0.1. "
        "`aspp` in phase 2 has iterations 7, base_lr 0.5, lr_policy fixed, momentum 0.1."
    )
    plain = params.model_copy(update={"models": params.models | {"aspp": {"architecture": "aspp"}}})
    assert page.describe_own(replace(found, params=plain)) == ""


def declare_pretrained() -> tuple[Params, dict[str, Any]]:
    """Declare that all models start from pretrained weights, and make the pretraining's record."""
    params = declare()
    profile = params.profile["quick"]
    training = profile.training.model_copy(
        update={"weights": "pretrained", "zero_init_residual": True, "warmup_iterations": 7}
    )
    pretraining = Pretraining(images=1200, held_out_images=30, image_size=32)
    profile = profile.model_copy(update={"training": training, "pretraining": pretraining})
    params = params.model_copy(update={"profile": {"quick": profile}})
    task = params.pretraining("quick").task
    assert task is not None
    result = {
        "settings": task.model_dump(mode="json"),
        "data_sha256": "objects",
        "code_sha256": compute_code_sha256("pretrain", "deeplab_bench.data.shapes"),
        "weights_sha256": "weights",
        "parameters": 1000,
        "classes": CLASSES,
        "accuracy": 0.9,
        "training": {"iteration": [1], "loss": [1.0]},
    }
    return params, {"profile": "quick", "result": result}


def write_pretrained(params: Params, record: dict[str, Any], started_from: str) -> None:
    """Write the record, and results of models that started from the weights of this digest."""
    write_results(params)
    write_json(ProfileFiles("quick").pretraining, record)
    for path in Path("results/quick/runs").rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "provenance" in content:
            content["provenance"]["weights_sha256"] = started_from
            write_json(path, content)


def test_the_page_shows_the_pretraining() -> None:
    params, record = declare_pretrained()
    write_pretrained(params, record, "weights")
    found = load_results(params, "quick")
    assert page.describe_start(found) == (
        "backbone pretrained once on 1,200 generated images of one object each; it names the class "
        "of 90.0 % of 30 held-out ones; other residual units begin as identities"
    )
    text = page.describe_schedule(found)
    assert "after 7 iterations of linear warm-up" in text
    assert "Settings that differ" not in text
    assert not found.outdated
    assert page.describe_start(replace(found, params=declare())) == "random weights"


def test_results_of_another_pretraining_are_refused() -> None:
    params, record = declare_pretrained()
    write_pretrained(params, record, "weights of another day")
    with pytest.raises(UserError, match=r"aspp, seed 0, started from other pretrained weights"):
        load_results(params, "quick")
    record["result"]["settings"]["images"] = 1300
    write_json(ProfileFiles("quick").pretraining, record)
    with pytest.raises(UserError, match=r"pretrain\.json was made from other settings"):
        load_results(params, "quick")


def test_pretraining_of_older_code_is_marked() -> None:
    params, record = declare_pretrained()
    record["result"]["code_sha256"] = "of another day"
    write_pretrained(params, record, "weights")
    assert load_results(params, "quick").outdated == dict.fromkeys(
        ("aspp", "image_pyramid"), ("pretrain",)
    )


def test_curves_are_long_form() -> None:
    files = made(declare())
    lines = files["tables/training_curves.csv"].splitlines()
    assert lines[0] == "model,seed,iteration,loss"
    assert lines[4] == "aspp,1,20,1.10000"

    lines = files["tables/validation_curves.csv"].splitlines()
    assert lines[0] == "model,seed,iteration,loss,miou"
    assert lines[4] == "aspp,1,20,1.35000,72.00"


def test_validation_curves_are_below_the_losses() -> None:
    params = declare()
    write_results(params)
    results = load_results(params, "quick")
    losses, scores = np.split(np.array(plots.draw_training_curves(results).axes), 2)
    dashed = [line for line in losses[0].lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in dashed] == [[1.5, pytest.approx(1.35)]]
    mean = scores[0].lines[-1]
    assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([12, 20], [36.0, 72.0])
    text = page.render(results, {}, {})
    assert "on 2 of 4 validation images" in text and "Nothing is chosen" in text


@pytest.mark.parametrize("change", ["missing", "empty", "other images"])
def test_without_all_curves_the_report_is_silent_about_them(change: str) -> None:
    params, path = declare(), RunFiles("quick", "aspp", 1).curve
    write_results(params)
    if change == "missing":
        path.unlink()
    elif change == "empty":
        edit(path, iteration=[], loss=[], miou=[])
    else:
        edit(path, images=3)
    results = load_results(params, "quick")
    assert "tables/validation_curves.csv" not in tables.render(results)
    assert len(plots.draw_training_curves(results).axes) == 2
    assert "while" not in page.render(results, {}, {}).lower()


def test_curves_that_do_not_fit_are_refused() -> None:
    params, path = declare(), RunFiles("quick", "aspp", 1).curve
    write_results(params)
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(path, provenance=OTHER_SETTINGS)
    with pytest.raises(UserError, match=r"aspp-1\.json was made from other settings"):
        load_results(params, "quick")
    edit(path, provenance=content["provenance"] | {"data_sha256": "other"})
    with pytest.raises(UserError, match=r"aspp, seed 1, was made from other data"):
        load_results(params, "quick")
    edit(path, provenance=content["provenance"], loss=[1.5])
    with pytest.raises(UserError, match=r"aspp-1\.json: .* miou are not equally long"):
        load_results(params, "quick")


def test_terminal_text(folder: Path) -> None:
    with pytest.raises(UserError, match=r"accuracy\.csv is missing: run `dvc repro`"):
        tables.format_accuracy(declare(), "quick")
    for name, content in made(declare()).items():
        write_bytes(folder / name, content.encode())
    text = tables.format_accuracy(declare(), "quick")
    assert re.search(
        r"image_pyramid +1\.235 +16/16 +60\.00 ± 0\.00 +\S+ to \S+ +2 \(1 to 2\)", text
    )
    assert text.startswith("results/quick: scores in percent, seeds: 3\n")
    assert max(map(len, text.splitlines())) < 120
    path = folder / "tables" / "accuracy.csv"
    older = pd.read_csv(path, dtype=str).drop(columns=["bad_start", "unfinished", "outdated"])
    older.to_csv(path, index=False)
    assert tables.format_accuracy(declare(), "quick") == text
    with pytest.raises(UserError, match="does not show the models of params"):
        tables.format_accuracy(declare(models=["aspp"]), "quick")


def test_readme_is_stale_until_updated(folder: Path) -> None:
    for name, content in made(declare()).items():
        write_bytes(folder / name, content.encode())
    readme, results = Path("README.md"), Path("results")
    readme.write_text(f"# Title\n{page.BEGIN}\nold\n{page.END}\nThe end\n", encoding="utf-8")
    assert not is_readme_current(readme, results)
    page.update_readme(readme, results)
    assert is_readme_current(readme, results)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n")
    assert text.endswith("\nThe end\n")
    assert "72.00 ± 2.00" in text
    assert "old\n" not in text
    assert "### [quick](results/quick/README.md)" in text
    assert "Terms:" not in text and "](../" not in text


def test_a_missing_readme_is_refused() -> None:
    with pytest.raises(UserError, match="is missing: run from the repository"):
        page.update_readme(Path("README.md"), Path("results"))


def test_readme_without_markers_is_refused() -> None:
    Path("README.md").write_text("# Title\n", encoding="utf-8")
    with pytest.raises(UserError, match="needs the lines"):
        page.update_readme(Path("README.md"), Path("results"))
