"""Tests of the pipeline with DVC, in a repository of its own with a tiny profile."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from miniature import MINIATURE, ROOT, Repository
from ruamel.yaml import YAML

from deeplab_bench.command_line import run
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.loading import load_params
from pipelines import select
from pipelines.stages import STAGES as TABLE

pytestmark = pytest.mark.long(seconds=110)

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

PRETRAINING = """\
    pretraining:
      images: 8
      held_out_images: 4
      image_size: 32
      training: {iterations: 2, batch_size: 4}
"""
CRF = "{w1: 4, sigma_alpha: 49, sigma_beta: 5, w2: 3, sigma_gamma: 3, iterations: [0, 1]}"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "a repository").mkdir()
    return Repository(tmp_path / "a repository")


@pytest.fixture
def warm_repository(repository: Repository) -> Iterator[Repository]:
    """Make a repository whose code stays as it is."""
    with repository.warm():
        yield repository


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the tiny profile's params.yaml alone."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(MINIATURE, encoding="utf-8")
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def stages_of(model: str) -> set[str]:
    return {
        f"train@miniature-{model}-0",
        f"evaluate@miniature-plain-{model}-0",
        f"receptive_field@miniature-{model}-0",
        f"speed@miniature-cpu-{model}",
    }


RESOLVED = {"resolve@miniature"}
SETTINGS = RESOLVED | {"report@miniature"}
ONCE = SETTINGS | {"download@miniature", "prepare@miniature", "pretrain@miniature"}


def test_only_what_settings_change_runs(warm_repository: Repository) -> None:
    repository = warm_repository
    assert repository.repro() == ONCE | stages_of("fcn") | stages_of("aspp")
    results = repository.root / "results" / "miniature"
    table = results / "tables" / "accuracy.csv"
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == ["fcn", "aspp"]
    assert (results / "README.md").is_file()

    assert repository.repro() == set()
    assert "up to date" in repository.dvc("status")

    runs = results / "runs" / "evaluate" / "plain"
    before = {path.name: path.read_bytes() for path in runs.iterdir()}
    repository.edit(
        "    architecture: aspp\n", "    architecture: aspp\n    image_pooling: false\n"
    )
    repository.edit("models: [fcn, aspp]", "models: [fcn, aspp, wide]")
    with repository.params.open("a", encoding="utf-8") as params:
        params.write("  wide:\n    architecture: aspp\n    atrous_rates: [2, 4]\n")
    assert repository.repro() == stages_of("aspp") | stages_of("wide") | SETTINGS
    after = {path.name: path.read_bytes() for path in runs.iterdir()}
    assert after["aspp-0.json"] != before["aspp-0.json"]
    assert after["fcn-0.json"] == before["fcn-0.json"]
    assert len(table.read_text().splitlines()) == 4

    repository.edit("    architecture: fcn\n", "    architecture: fcn\n    published: []\n")
    assert repository.repro() == SETTINGS

    repository.commit()
    assert repository.run("git", "status", "--porcelain").stdout == ""
    assert '"wide"' in repository.dvc("metrics", "show", "--json", *metrics(results))


def test_only_what_code_and_data_change_runs(repository: Repository) -> None:
    repository.edit("hardware: [cpu]", "hardware: []")
    speeds = {f"speed@miniature-cpu-{model}" for model in ("fcn", "aspp", "copied")}
    assert repository.repro() == (ONCE | stages_of("fcn") | stages_of("aspp")) - speeds

    # Comments and docstrings, a measure, and an architecture.
    repository.change("training/trainer.py", "LOOK_EVERY = 20", "LOOK_EVERY = 20  # steps")
    repository.change("training/train.py", '"""Train a model', '"""Trains one model')
    repository.change("analysis/effective_field.py", "IMAGES = 32", "IMAGES = 31")
    repository.add_architecture("copied", of="psp")
    repository.edit("models: [fcn, aspp]", "models: [fcn, aspp, copied]")
    with repository.params.open("a", encoding="utf-8") as params:
        params.write("  copied: {architecture: copied}\n")
    with repository.warm():
        fields = {f"receptive_field@miniature-{model}-0" for model in ("fcn", "aspp")}
        assert repository.repro() == (fields | stages_of("copied") | SETTINGS) - speeds

        repository.edit("precision: float32\n", f"precision: float32\n{PRETRAINING}")
        repository.edit("  aspp:\n", "  aspp:\n    training: {weights: pretrained}\n")
        ran = repository.repro()
        assert ran >= ({"pretrain@miniature", *stages_of("aspp"), *SETTINGS} - speeds)
        assert "prepare@miniature" not in ran
        results = repository.root / "results" / "miniature"
        pretrained = json.loads((results / "runs" / "pretrain.json").read_text())["result"]
        record = results / "runs" / "evaluate" / "plain" / "aspp-0.json"
        started = json.loads(record.read_text())["provenance"]["weights_sha256"]
        assert pretrained["weights_sha256"] == started

        repository.edit("seed: 0, image_size", "seed: 1, image_size")
        due = repository.python(
            "-c", "from pipelines.dvc_runs import *; print(*list_due_runs('miniature'))"
        )
    everything = (ONCE - RESOLVED).union(*map(stages_of, ("fcn", "aspp", "copied")))
    assert set(due.split()) == everything - speeds


def metrics(results: Path) -> list[str]:
    return [str(results / "metrics.json")]


@pytest.mark.parametrize("stage", ["resolve", "report"])
def test_every_stage_refuses_a_mistake_in_one_line(
    params_file: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(params_file, "models: [fcn, aspp]", "models: [fcn, asp]")
    assert run([stage, "miniature"]) == 1
    assert capsys.readouterr().err == (
        "error: params.yaml: run.models: 'asp' is not defined; the nearest valid one is 'aspp'\n"
    )
    assert [path.name for path in params_file.parent.iterdir()] == ["params.yaml"]


@pytest.mark.usefixtures("params_file")
def test_an_unknown_profile_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["resolve", "minature"]) == 1
    assert capsys.readouterr().err == (
        "error: profile: 'minature' is not defined; the nearest valid one is 'miniature'\n"
    )


def test_a_profile_is_selected_by_name(
    params_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        params_file,
        "profile:\n",
        "profile:\n  other: &other\n    data: {dataset: folder, root: x}\n"
        "    run: {models: [aspp], seeds: [1, 2], hardware: []}\n"
        "    model: {backbone: resnet18, width: 1.0, output_stride: 16, head_channels: 8,"
        " atrous_rates: [1]}\n    training: {iterations: 1, batch_size: 2, crop_size: "
        "[8, 8], base_lr: 0.1, poly_power: 1.0, momentum: 0.9, weight_decay: 0.0, "
        "random_scale: [1.0, 1.0], horizontal_flip: true, precision: float32}\n",
    )
    assert run(["select", "--profile", "other"]) == 0
    selected = load_params().run
    assert (selected.profiles, selected.models) == (("other",), ("aspp",))
    assert (selected.seeds, selected.hardware, selected.inference) == ((1, 2), (), ("plain",))
    assert "params.yaml: run.models: [aspp]\n" in capsys.readouterr().out

    edit(params_file, "models: [aspp]\n  seeds", "models: [fcn]\n  seeds")  # not the profile's own
    assert run(["select", "--profile", "other"]) == 0
    assert (capsys.readouterr().out, load_params().run.models) == ("", ("fcn",))

    assert run(["select", "--profile", "othr"]) == 1
    assert capsys.readouterr().err == (
        "error: --profile: 'othr' is not defined; the nearest valid one is 'other'\n"
    )


def test_a_study_is_selected_by_name(params_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that all of `run` that the study's models need is selected."""
    params_file.write_text(
        "studies:\n  rates:\n    paper: A, Table 1\n    question: Which?\n    hours: 1\n"
        "    models: &rates [aspp]\n    crf: [aspp]\n"
        + MINIATURE.replace("    training:", f"    crf: {CRF}\n    training:")
    )
    assert run(["select", "--study", "rates"]) == 0
    selected = load_params().run
    assert (selected.models, selected.crf, selected.audit) == (("aspp",), ("aspp",), ())
    assert selected.inference == ("plain",)
    assert run(["select", "--study", "rate"]) == 1
    message = "--study: 'rate' is not defined; the nearest valid one is 'rates'"
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("_undrawn_weights")
def test_every_study_can_be_selected_with_the_papers_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, study in load_params().studies.items():
        select.main(profile="voc2012", study=name)
        lists = YAML(typ="safe").load(Path("params.yaml"))["run"]
        expected = [["voc2012"], [*study.models], [*study.crf]]
        assert [lists["profiles"], lists["models"], lists["crf"]] == expected


def test_a_study_that_the_profile_cannot_run_is_not_selected(
    params_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "studies:\n  refined:\n    paper: A, Table 1\n    question: Which?\n    hours: 1\n"
        "    models: &refined [aspp]\n    crf: [aspp]\n" + MINIATURE
    )
    params_file.write_text(text, encoding="utf-8")
    assert run(["select", "--study", "refined"]) == 1
    assert capsys.readouterr().err == (
        "error: params.yaml: profile.miniature.crf is missing: run.crf needs it\n"
    )
    assert params_file.read_text(encoding="utf-8") == text


def test_a_list_over_several_lines_is_not_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    names = "\n    - ".join(["", "fcn", "deeplabv1", "deeplabv2", "psp"])
    text = text.replace("  models: *figure2", f"  models:{names}")
    Path("params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match=r"run\.models is not on a line of its own"):
        select.main(study="decoder")
    assert Path("params.yaml").read_text(encoding="utf-8") == text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_a_stage_dies_with_its_parent(tmp_path: Path) -> None:
    """Check a parent that is killed alone, as `dvc repro` may be."""
    child = (
        "import time; from pipelines.warm import die_with_parent; die_with_parent(); "
        "print('up', flush=True); time.sleep(20); print('still here')"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
        assert process.stdout.read() == ""  # returns once the child, too, has closed its end


def test_the_table_of_stages_is_that_of_dvc() -> None:
    assert list(STAGES) == list(TABLE)
    for name, stage in STAGES.items():
        assert stage["cmd"].startswith(f"python -m deeplab_bench {name} ")


@pytest.mark.parametrize("stage", [name for name in STAGES if name not in ("resolve", "report")])
def test_a_stage_depends_on_its_settings_alone(stage: str) -> None:
    """Check that a stage depends on one file of settings, not on params.yaml or code."""
    assert "params" not in STAGES[stage]
    deps = STAGES[stage]["deps"]
    assert not [dep for dep in deps if dep.startswith(("deeplab_bench", "pipelines"))]
    settings = [dep for dep in deps if "/settings/" in dep]
    (one,) = settings
    assert one.startswith(f"results/${{item.profile}}/settings/{stage}")


def test_the_report_needs_no_folder_that_a_run_may_lack() -> None:
    """Check stages that do not run if a list of `run` is empty."""
    optional = {f"${{run.{key}}}" for key in ("hardware", "crf", "audit", "label_files")}
    always = [
        name
        for stage in STAGES.values()
        if not optional & {str(values) for values in stage.get("matrix", {}).values()}
        for out in stage["outs"]
        if isinstance(out, dict)
        for name in out
    ]
    folders = [d for d in STAGES["report"]["deps"] if d.startswith("results/${item.profile}/")]
    assert len(folders) > 2
    for folder in folders:
        assert any(name == folder or name.startswith(f"{folder}/") for name in always), folder
