"""Tests that digests change with everything that a result is made from, and nothing else."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab_bench.results import code_digest
from deeplab_bench.results.code_digest import (
    LEFT_OUT,
    compute_code_sha256,
    list_imported_files,
    strip_prose,
)
from deeplab_bench.results.provenance import compute_settings_sha256
from deeplab_bench.settings.experiment import Experiment, Phase
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.training import Training

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"download": "voc2012", "prepare": "voc2012"}  # of the data set; else of the model
OTHER_SCHEDULE = {
    "iterations": 7,
    "batch_size": 3,
    "crop_size": (32, 41),
    "base_lr": 0.051,
    "lr_policy": "step",
    "poly_power": 1.0,
    "step_iterations": 3,
    "step_factor": 0.5,
    "head_lr_multiplier": 10.0,
    "bias_lr_multiplier": 2.0,
    "batch_norm": "frozen",
    "batch_norm_momentum": 0.0003,
    "warmup_iterations": 2,
    "weights": "imagenet",
    "zero_init_residual": True,
    "loss_resolution": "logits",
    "class_balancing": 0.5,
    "compile": True,
    "momentum": 0.8,
    "weight_decay": 0.0,
    "decay_bias": False,
    "decay_norm": False,
    "random_scale": (0.5, 1.9),
    "horizontal_flip": False,
    "precision": "bfloat16",
}
OTHER_EXPERIMENT = {
    "profile": "other",
    "model": "other",
    "architecture": "psp",
    "arguments": {"backbone": "resnet18", "width": 0.25, "output_stride": 8},
    "process": Process(determinism="portable", threads=1),
}


class TestSettings:
    def test_every_setting_is_tried_below(self) -> None:
        assert set(OTHER_SCHEDULE) == set(Training.model_fields)
        assert {*OTHER_EXPERIMENT, "training", "second_phase"} == set(Experiment.model_fields)

    @pytest.mark.parametrize("key", OTHER_SCHEDULE)
    def test_change_with_the_schedule(self, key: str, experiment: Experiment) -> None:
        schedule = experiment.training.model_copy(update={key: OTHER_SCHEDULE[key]})
        other = experiment.model_copy(update={"training": schedule})
        assert compute_settings_sha256(other, 0) != compute_settings_sha256(experiment, 0)

    @pytest.mark.parametrize("key", OTHER_EXPERIMENT)
    def test_change_with_the_model(self, key: str, experiment: Experiment) -> None:
        other = experiment.model_copy(update={key: OTHER_EXPERIMENT[key]})
        assert compute_settings_sha256(other, 0) != compute_settings_sha256(experiment, 0)

    def test_change_with_a_second_phase(self, experiment: Experiment) -> None:
        second = Phase(arguments=experiment.arguments, training=experiment.training)
        more = second.model_copy(update={"train_split": "trainval"})
        others = [
            experiment.model_copy(update={"second_phase": phase}) for phase in (None, second, more)
        ]
        assert len({compute_settings_sha256(other, 0) for other in others}) == 3

    def test_change_with_the_seed(self, experiment: Experiment) -> None:
        assert len({compute_settings_sha256(experiment, seed) for seed in range(5)}) == 5

    def test_order_of_arguments_is_immaterial(self, experiment: Experiment) -> None:
        arguments = dict(reversed(experiment.arguments.items()))
        other = experiment.model_copy(update={"arguments": arguments})
        assert compute_settings_sha256(other, 0) == compute_settings_sha256(experiment, 0)


class TestCode:
    @pytest.fixture
    def copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        ignore = shutil.ignore_patterns("__pycache__")
        for package in ("deeplab_bench", "pipelines"):
            shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
        monkeypatch.setattr(code_digest, "ROOT", tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        "path",
        [
            "deeplab_bench/data/__init__.py",
            "deeplab_bench/data/augmentation.py",
            "deeplab_bench/data/batches.py",
            "deeplab_bench/data/device_batches.py",
            "deeplab_bench/data/packed.py",
            "deeplab_bench/models/__init__.py",
            "deeplab_bench/models/layers.py",
            "deeplab_bench/models/fcn.py",
            "deeplab_bench/settings/experiment.py",
            "deeplab_bench/training/train.py",
            "deeplab_bench/training/trainer.py",
            "pipelines/train.py",
        ],
    )
    def test_changes_with_what_the_stage_imports(self, path: str, copy: Path) -> None:
        before = digest("train", "fcn")
        (copy / path).write_text((copy / path).read_text() + "\nchanged = 1\n")
        assert digest("train", "fcn") != before

    @pytest.mark.parametrize(
        "path",
        [
            "deeplab_bench/evaluation/evaluate.py",
            "deeplab_bench/evaluation/measures/confusion.py",
            "deeplab_bench/report/page.py",
            "deeplab_bench/data/shapes.py",
            "deeplab_bench/models/psp.py",
            "deeplab_bench/models/registry.py",
            "deeplab_bench/settings/loading.py",
            "deeplab_bench/settings/params.py",
            "deeplab_bench/settings/sections.py",
            "deeplab_bench/settings/crf.py",
            "deeplab_bench/settings/inference.py",
            "deeplab_bench/data/dataset.py",
            "pipelines/evaluate.py",
            "pipelines/stages.py",
            *sorted(LEFT_OUT),
        ],
    )
    def test_does_not_change_with_the_rest(self, path: str, copy: Path) -> None:
        before = digest("train", "fcn")
        (copy / path).write_text("changed = 1\n")
        assert digest("train", "fcn") == before

    @pytest.mark.parametrize("stage", ["train", "evaluate", "crf", "audit", "report"])
    def test_does_not_change_with_prose(self, stage: str, copy: Path) -> None:
        """Change comments and docstrings of every file."""
        before = digest(stage, "aspp")
        for package in ("deeplab_bench", "pipelines"):
            for path in (copy / package).rglob("*.py"):
                text = re.sub(r'(?m)^( *"""\w)', r"\1ew words", path.read_text())
                path.write_text(f"# A comment.\n\n{text}\n# Another one.\n")
        assert digest(stage, "aspp") == before

    def test_a_number_changes_every_stage_that_it_should(self, copy: Path) -> None:
        stages = ("prepare", "train", "evaluate", "crf", "audit", "receptive_field", "speed")
        before = {stage: digest(stage, NAMES.get(stage, "fcn")) for stage in stages}
        path = copy / "deeplab_bench" / "training" / "trainer.py"
        text = path.read_text()
        assert "LOOK_EVERY = 20" in text
        path.write_text(text.replace("LOOK_EVERY = 20", "LOOK_EVERY = 21"))
        changed = {
            stage for stage in stages if digest(stage, NAMES.get(stage, "fcn")) != before[stage]
        }
        imports_training = {"train", "evaluate", "receptive_field", "speed"}
        assert changed == imports_training

    def test_changes_with_its_own_architecture_alone(self, copy: Path) -> None:
        before = {name: digest("train", name) for name in ("psp", "aspp", "deeplabv3plus")}
        path = copy / "deeplab_bench" / "models" / "aspp.py"
        path.write_text(path.read_text() + "\nchanged = 1\n")
        assert digest("train", "psp") == before["psp"]
        assert digest("train", "aspp") != before["aspp"]
        assert digest("train", "deeplabv3plus") != before["deeplabv3plus"]  # it has ASPP in it

    @pytest.mark.parametrize("stage", ["download", "prepare"])
    def test_of_the_data_does_not_change_with_models(self, stage: str, copy: Path) -> None:
        before = digest(stage)
        for folder in ("models", "training", "evaluation"):
            for path in (copy / "deeplab_bench" / folder).rglob("*.py"):
                path.write_text(path.read_text() + "\nchanged = 1\n")
        for name in ("experiment", "loading", "params", "published", "sections"):
            path = copy / "deeplab_bench" / "settings" / f"{name}.py"
            path.write_text(path.read_text() + "\nchanged = 1\n")
        assert digest(stage) == before

    @pytest.mark.parametrize("stage", ["download", "prepare"])
    def test_of_the_data_changes_with_its_own_data_set_alone(self, stage: str, copy: Path) -> None:
        before = {name: digest(stage, name) for name in ("camvid", "shapes")}
        for name in ("shapes", "registry"):
            path = copy / "deeplab_bench" / "data" / f"{name}.py"
            path.write_text(path.read_text() + "\nchanged = 1\n")
        assert digest(stage, "camvid") == before["camvid"]
        assert digest(stage, "shapes") != before["shapes"]

    def test_is_the_same_elsewhere(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there = digest("train", "fcn")
        monkeypatch.setattr(code_digest, "ROOT", ROOT)
        assert digest("train", "fcn") == there


def digest(stage: str, name: str | None = None) -> str:
    """Compute a digest from the files as they are now; ``name`` is of a model or a data set."""
    package = "data" if stage in ("download", "prepare") else "models"
    module = name and f"deeplab_bench.{package}.{name}"
    return compute_code_sha256.__wrapped__(stage, module)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1  # one\n", "x = 1"),
        ("# one\n\n\nx = 1\n", "x = 1"),
        ('"""Doc.\n\nMore.\n"""\nx = 1', "x = 1"),
        ('def f():\n    """Doc."""\n    return 1', "def f():\n    return 1"),
        ("x = '# no comment'", "x = '# no comment'"),
        ('x = """a\n\n  # b  \n"""', 'x = """a\n\n  # b  \n"""'),
        ('x = f("a")  # b', 'x = f("a")'),
        ("f(\n    1,  # one\n    2,\n)", "f(\n    1,\n    2,\n)"),
        ('x = (\n    "a"\n    "b"\n)', 'x = (\n    "a"\n    "b"\n)'),
    ],
)
def test_prose_is_stripped_and_nothing_else(source: str, expected: str) -> None:
    assert strip_prose(source) == expected


def test_stripped_sources_do_the_same() -> None:
    """Check that stripped sources have the same syntax trees, apart from docstrings."""
    paths = [
        path for folder in ("deeplab_bench", "pipelines") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(paths) > 50
    for path in paths:
        source = path.read_text(encoding="utf-8")
        # A body of a docstring alone is left empty, which is fine for a digest.
        filled = re.sub(r'(?m)^( +)("""[^"]*""")$', r"\1\2\n\1...", source)
        assert tree(strip_prose(filled)) == tree(filled), path


def tree(source: str) -> str:
    class WithoutDocstrings(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
            is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            return None if is_string else node

    return ast.dump(WithoutDocstrings().visit(ast.parse(source)))


class TestImportedFiles:
    @pytest.mark.parametrize(
        ("statement", "expected"),
        [
            ("import package", {"package/__init__.py"}),
            ("import package.sub.leaf", {"package/sub/__init__.py", "package/sub/leaf.py"}),
            ("import json, package.other as o", {"package/other.py"}),
            ("from package import other", {"package/other.py"}),
            ("from package import sub", {"package/sub/__init__.py"}),
            ("from package.sub import leaf", {"package/sub/__init__.py", "package/sub/leaf.py"}),
            ("from package.sub import value", {"package/sub/__init__.py"}),
            ("from package.other import x, y", {"package/other.py"}),
            ("def f():\n    from package import other", {"package/other.py"}),
            ("if False:\n    import package.cycle", {"package/cycle.py"}),
            ("import json, torch.nn\nfrom os import path", set()),
            ("x = 'import package.other'  # from package import sub", set()),
        ],
    )
    def test_of_a_statement(
        self,
        statement: str,
        expected: set[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(code_digest, "ROOT", tmp_path)
        (tmp_path / "package" / "sub").mkdir(parents=True)
        for path, content in {
            "package/__init__.py": "",
            "package/other.py": "",
            "package/unrelated.py": "",
            "package/cycle.py": "import package.cycle\nimport main",
            "package/sub/__init__.py": "value = 1",
            "package/sub/leaf.py": "",
            "main.py": statement,
        }.items():
            (tmp_path / path).write_text(content)
        found = list_imported_files(["main"])
        assert set(found) - {"package/__init__.py"} == {"main.py", *expected} - {
            "package/__init__.py"
        }
        assert found == sorted(set(found))
        assert "package/__init__.py" in found or not expected

    def test_is_what_python_imports(self) -> None:
        """Import the modules one after another, since each import keeps the ones before."""
        modules = [
            "deeplab_bench.training.train",
            "deeplab_bench.evaluation.evaluate",
            "deeplab_bench.timing.speed",
        ]
        script = (
            "import importlib, json, sys\n"
            "from pathlib import Path\n"
            "for name in sys.argv[2:]:\n"
            "    importlib.import_module(name)\n"
            "    files = [getattr(m, '__file__', None) for m in list(sys.modules.values())]\n"
            "    paths = [Path(file) for file in files if file]\n"
            "    root = Path(sys.argv[1])\n"
            "    own = [p for p in paths if p.is_relative_to(root / 'deeplab_bench')]\n"
            "    print(json.dumps(sorted({p.relative_to(root).as_posix() for p in own})))\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", script, str(ROOT), *modules],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout
        for count, line in enumerate(output.splitlines(), start=1):
            imported = [path for path in json.loads(line) if path not in LEFT_OUT]
            assert list_imported_files(modules[:count]) == imported
        assert len(output.splitlines()) == len(modules)
