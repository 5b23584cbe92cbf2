"""The pipeline as DVC runs it, in a repository of its own on a miniature profile."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deeplab_bench.results.provenance import imported_files
from deeplab_bench.settings.resolve import file_digests
from pipelines.configure import OF_EACH_RUN

ROOT = Path(__file__).resolve().parents[2]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
IGNORED = shutil.ignore_patterns("__pycache__")

MINIATURE = """\
run:
  profiles: [miniature]
  models: [fcn, aspp]
  seeds: [0]
  hardware: [cpu]
  inference: []
  crf: []
  audit: []

profile:
  miniature:
    data: {dataset: shapes, seed: 0, image_size: 48, train_images: 6, val_images: 3}
    model:
      backbone: resnet18
      width: 0.25
      output_stride: 16
      head_channels: 8
      atrous_rates: [1, 2]
    training:
      iterations: 3
      batch_size: 2
      crop_size: [32, 32]
      base_lr: 0.05
      poly_power: 0.9
      momentum: 0.9
      weight_decay: 0.0001
      random_scale: [0.75, 1.5]
      horizontal_flip: true
      precision: float32

inference: {}

models:
  fcn:
    architecture: fcn
    output_stride: 32
  aspp:
    architecture: aspp
"""


class Repository:
    """A git repository with the project's pipeline and the miniature profile."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("deeplab_bench", "pipelines"):
            shutil.copytree(ROOT / folder, root / folder, ignore=IGNORED)
        (root / ".dvc").mkdir()
        for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml"):
            shutil.copy(ROOT / name, root / name)
        (root / "results").mkdir()
        shutil.copy(ROOT / "results" / "published.yaml", root / "results")
        self.params = root / "params.yaml"
        self.params.write_text(MINIATURE, encoding="utf-8")
        self.run("git", "init", "--quiet")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def python(self, *arguments: str) -> str:
        done = self.run(sys.executable, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.python("-m", "dvc", *arguments)

    def repro(self) -> set[str]:
        """The stages that ran, as ``make repro`` runs them."""
        output = self.python("-m", "pipelines.warm", sys.executable, "-m", "dvc", "repro")
        return set(re.findall(r"Running stage '(.+)'", output))

    def add_architecture(self, name: str, of: str) -> None:
        """One file and one line."""
        models = self.root / "deeplab_bench" / "models"
        shutil.copy(models / f"{of}.py", models / f"{name}.py")
        registry = models / "registry.py"
        text = registry.read_text(encoding="utf-8")
        registry.write_text(text.replace("= (\n", f'= (\n    "{name}",\n'), encoding="utf-8")

    def edit(self, old: str, new: str) -> None:
        text = self.params.read_text(encoding="utf-8")
        assert old in text
        self.params.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    yield Repository(tmp_path_factory.mktemp("repository"))


def stages_of(model: str) -> set[str]:
    return {
        f"train@miniature-{model}-0",
        f"evaluate@miniature-{model}-0",
        f"receptive_field@miniature-{model}-0",
        f"speed@miniature-cpu-{model}",
    }


CONFIGURED = {"configure@miniature", "report@miniature"}
ONCE = CONFIGURED | {"download@miniature", "prepare@miniature", "atrous"}


@pytest.mark.timeout(600)
def test_only_what_is_out_of_date_runs(repository: Repository) -> None:
    assert repository.repro() == ONCE | stages_of("fcn") | stages_of("aspp")
    results = repository.root / "results" / "miniature"
    table = results / "tables" / "accuracy.csv"
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == ["fcn", "aspp"]
    assert (results / "README.md").is_file()

    assert repository.repro() == set()
    assert "up to date" in repository.dvc("status")

    run = results / "runs" / "aspp-0.json"
    before = {path.name: path.read_bytes() for path in run.parent.iterdir()}
    repository.edit(
        "    architecture: aspp\n", "    architecture: aspp\n    image_pooling: false\n"
    )
    assert repository.repro() == stages_of("aspp") | CONFIGURED
    after = {path.name: path.read_bytes() for path in run.parent.iterdir()}
    assert after["aspp-0.json"] != before["aspp-0.json"]
    assert after["fcn-0.json"] == before["fcn-0.json"]

    repository.edit("models: [fcn, aspp]", "models: [fcn, aspp, wide]")
    with repository.params.open("a", encoding="utf-8") as params:
        params.write("  wide:\n    architecture: aspp\n    atrous_rates: [2, 4]\n")
    assert repository.repro() == stages_of("wide") | CONFIGURED
    assert len(table.read_text().splitlines()) == 4

    repository.edit("    architecture: fcn\n", "    architecture: fcn\n    published: []\n")
    assert repository.repro() == CONFIGURED

    with (repository.root / "deeplab_bench/effective_field.py").open("a") as code:
        code.write("# Nothing that moves a result, which DVC cannot know.\n")
    fields = {f"receptive_field@miniature-{model}-0" for model in ("fcn", "aspp", "wide")}
    assert repository.repro() == fields | CONFIGURED

    repository.add_architecture("copied", of="psp")
    repository.edit("models: [fcn, aspp, wide]", "models: [fcn, aspp, wide, copied]")
    with repository.params.open("a", encoding="utf-8") as params:
        params.write("  copied: {architecture: copied}\n")
    assert repository.repro() == stages_of("copied") | ONCE

    repository.run("git", "add", "--all")
    repository.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first")
    assert repository.run("git", "status", "--porcelain").stdout == ""
    assert '"wide"' in repository.dvc("metrics", "show", "--json", *metrics(results))


def metrics(results: Path) -> list[str]:
    return [str(results / "metrics.json")]


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [("configure", ["miniature"]), ("download", ["miniature"]), ("report", ["miniature"])],
)
def test_every_stage_refuses_a_mistake_in_one_line(
    tmp_path: Path, stage: str, arguments: list[str]
) -> None:
    repository = Repository(tmp_path)
    repository.edit("models: [fcn, aspp]", "models: [fcn, asp]")
    done = repository.run(sys.executable, "-m", "pipelines", stage, *arguments)
    assert done.returncode == 1
    assert done.stderr == (
        "error: params.yaml: run.models: 'asp' is not defined; the nearest valid one is 'aspp'\n"
    )
    assert not (tmp_path / "results" / "miniature").exists()


def test_a_profile_is_selected_by_name(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.edit(
        "profile:\n",
        "profile:\n  other: &other\n    data: {dataset: folder, root: x}\n"
        "    model: {backbone: resnet18, width: 1.0, output_stride: 16, head_channels: 8,"
        " atrous_rates: [1]}\n    training: {iterations: 1, batch_size: 2, crop_size: "
        "[8, 8], base_lr: 0.1, poly_power: 1.0, momentum: 0.9, weight_decay: 0.0, "
        "random_scale: [1.0, 1.0], horizontal_flip: true, precision: float32}\n",
    )
    done = repository.run(sys.executable, "-m", "pipelines", "select_profile", "other")
    assert done.returncode == 0, done.stderr
    assert "  profiles: [other]\n" in repository.params.read_text(encoding="utf-8")
    refused = repository.run(sys.executable, "-m", "pipelines", "select_profile", "othr")
    assert refused.returncode == 1
    assert "PROFILE=othr" in refused.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_a_stage_dies_with_its_parent(tmp_path: Path) -> None:
    """As when `dvc repro` alone is killed."""
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


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_what_a_stage_is_made_of(stage: str) -> None:
    deps = STAGES[stage]["deps"]
    made_of = {path for path in imported_files([f"pipelines.{stage}"]) if has_code(ROOT / path)}
    made_of -= {"deeplab_bench/paths.py"}
    if f"results/${{item.profile}}/settings/code/{stage}.json" in deps:
        assert stage in OF_EACH_RUN
        deps = list(file_digests(f"pipelines.{stage}"))
    missing = {p for p in made_of if not any(p == d or p.startswith(f"{d}/") for d in deps)}
    assert missing == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_among_the_deps_exists(stage: str) -> None:
    files: list[Any] = [d for d in STAGES[stage]["deps"] if d.startswith(("deeplab", "pipelines"))]
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_report_needs_no_folder_that_a_run_may_lack() -> None:
    """The lists of `run` that may be empty leave out whole stages."""
    optional = {f"${{run.{key}}}" for key in ("hardware", "inference", "crf", "audit")}
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
        assert any(name.startswith(f"{folder}/") for name in always), folder


def has_code(path: Path) -> bool:
    """Whether a file holds more than a docstring."""
    return len(compile(path.read_text(encoding="utf-8"), str(path), "exec").co_names) > 1
