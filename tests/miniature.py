"""A repository of its own with the project's pipeline and a tiny profile."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ruamel.yaml import YAML

from deeplab_bench.runtime.pins import list_pins
from pipelines.warm import ADDRESS, warm_process

ROOT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns("__pycache__")
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")

MINIATURE = """\
run:
  profiles: [miniature]
  models: [fcn, aspp]
  seeds: [0]
  hardware: [cpu]
  inference: [plain]
  crf: []
  audit: []
  label_files: []

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

inference:
  plain: {}

models:
  fcn:
    architecture: fcn
    output_stride: 32
  aspp:
    architecture: aspp
"""
# Python then takes files and names for ASCII, unless it is told otherwise.
OTHER_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
PINS = list_pins("strict", None)  # of the profile: a warm process runs no stages with others
REPRODUCE = """\
import sys
from pipelines.repro import open_engine
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.tasks import Tasks
from deeplab_bench.settings.sweep import load_sweep_params
params = load_sweep_params()
costs = RunCosts()
with open_engine(params, "", jobs=1) as engine:
    sys.exit(not sweep(engine, Tasks(params, None, costs), Board(costs)))
"""
# What comes before a training, in one process.
PREPARE = """\
from pipelines import download, prepare, pretrain, resolve
for stage in (resolve, download, prepare, pretrain):
    stage.main("miniature")
"""


class Repository:
    """A git repository with the project's pipeline and the tiny profile."""

    def __init__(self, root: Path, pins: dict[str, str] = PINS) -> None:
        """Make one; ``pins`` are those of its profile, if its ``process`` is to be edited."""
        self.root, self.pins = root, pins
        for folder in ("deeplab_bench", "lists", "pipelines"):
            shutil.copytree(ROOT / folder, root / folder, ignore=IGNORED)
        (root / ".dvc").mkdir()
        for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml"):
            shutil.copy(ROOT / name, root / name)
        (root / "results" / "notes").mkdir(parents=True)
        shutil.copy(ROOT / "results" / "published.yaml", root / "results")
        (root / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "glossary.md", root / "docs")
        (root / "results" / "notes" / "miniature.md").write_text("A note.\n", encoding="utf-8")
        self.params = root / "params.yaml"
        self.params.write_text(MINIATURE, encoding="utf-8")
        self.run("git", "init", "--quiet")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command)
        out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        common = {"PATH": path, "DVC_NO_ANALYTICS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment = os.environ | self.pins | OTHER_LOCALE | common
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def python(self, *arguments: str) -> str:
        done = self.run(sys.executable, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.python("-m", "dvc", *arguments)

    @contextmanager
    def warm(self) -> Iterator[None]:
        """Run a warm process during the block, for the stages of the code that is there now."""
        with warm_process(self.pins | OTHER_LOCALE, self.root):
            yield

    def repro(self) -> set[str]:
        """Reproduce as ``make repro`` does, and return the stages that ran."""
        with nullcontext() if ADDRESS in os.environ else self.warm():
            output = self.python("-c", REPRODUCE)
        return set(re.findall(r"(?m)^\[.*\] (\w+@.+): [\d.]+ s$", output))

    def add_architecture(self, name: str, of: str) -> None:
        """Add an architecture: one file and one line."""
        models = self.root / "deeplab_bench" / "models"
        shutil.copy(models / f"{of}.py", models / f"{name}.py")
        registry = models / "registry.py"
        text = registry.read_text(encoding="utf-8")
        registry.write_text(text.replace("= (\n", f'= (\n    "{name}",\n'), encoding="utf-8")

    def change(self, path: str, old: str, new: str) -> None:
        """Edit a file of the package."""
        file = self.root / "deeplab_bench" / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def commit(self) -> None:
        """Commit all that git does not ignore."""
        for command in (("add", "--all"), (*AUTHOR, "commit", "--quiet", "--message", "results")):
            done = self.run("git", *command)
            assert done.returncode == 0, done.stderr

    def drop_stages(self, *names: str) -> None:
        """Remove stages from dvc.yaml."""
        path, yaml = self.root / "dvc.yaml", YAML()
        pipeline = yaml.load(path)
        for name in names:
            del pipeline["stages"][name]
        yaml.dump(pipeline, path)

    def edit(self, old: str, new: str) -> None:
        text = self.params.read_text(encoding="utf-8")
        assert old in text
        self.params.write_text(text.replace(old, new), encoding="utf-8")
