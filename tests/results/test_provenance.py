"""Digests change with all that a result is made from, and with nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from deeplab_bench.results import provenance
from deeplab_bench.results.provenance import (
    code_sha256,
    environment,
    imported_files,
    run_code_sha256,
    settings_sha256,
)
from deeplab_bench.settings.schema import Experiment, Phase, Training

ROOT = Path(__file__).parents[1]
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
    "batch_norm": "frozen",
    "batch_norm_momentum": 0.0003,
    "weights": "imagenet",
    "loss_resolution": "scores",
    "class_balancing": 0.5,
    "compile": True,
    "momentum": 0.8,
    "weight_decay": 0.0,
    "random_scale": (0.5, 1.9),
    "horizontal_flip": False,
    "precision": "bfloat16",
}
OTHER_EXPERIMENT = {
    "profile": "other",
    "model": "other",
    "architecture": "psp",
    "arguments": {"backbone": "resnet18", "width": 0.25, "output_stride": 8},
}


class TestSettings:
    def test_every_setting_is_tried_below(self) -> None:
        assert set(OTHER_SCHEDULE) == set(Training.model_fields)
        assert {*OTHER_EXPERIMENT, "training", "second_phase"} == set(Experiment.model_fields)

    @pytest.mark.parametrize("key", OTHER_SCHEDULE)
    def test_change_with_the_schedule(self, key: str, experiment: Experiment) -> None:
        schedule = experiment.training.model_copy(update={key: OTHER_SCHEDULE[key]})
        other = experiment.model_copy(update={"training": schedule})
        assert settings_sha256(other, 0) != settings_sha256(experiment, 0)

    @pytest.mark.parametrize("key", OTHER_EXPERIMENT)
    def test_change_with_the_model(self, key: str, experiment: Experiment) -> None:
        other = experiment.model_copy(update={key: OTHER_EXPERIMENT[key]})
        assert settings_sha256(other, 0) != settings_sha256(experiment, 0)

    def test_change_with_a_second_phase(self, experiment: Experiment) -> None:
        second = Phase(arguments=experiment.arguments, training=experiment.training)
        other = experiment.model_copy(update={"second_phase": second})
        assert settings_sha256(other, 0) != settings_sha256(experiment, 0)

    def test_change_with_the_seed(self, experiment: Experiment) -> None:
        assert len({settings_sha256(experiment, seed) for seed in range(5)}) == 5

    def test_order_of_arguments_is_immaterial(self, experiment: Experiment) -> None:
        arguments = dict(reversed(experiment.arguments.items()))
        other = experiment.model_copy(update={"arguments": arguments})
        assert settings_sha256(other, 0) == settings_sha256(experiment, 0)


class TestCode:
    @pytest.fixture
    def copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        ignore = shutil.ignore_patterns("__pycache__")
        for package in ("deeplab_bench", "pipelines"):
            shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
        monkeypatch.setattr(provenance, "ROOT", tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        "path",
        [
            "deeplab_bench/training.py",
            "deeplab_bench/__init__.py",
            "deeplab_bench/data/__init__.py",
            "deeplab_bench/data/augmentation.py",
            "deeplab_bench/data/batches.py",
            "deeplab_bench/data/device_batches.py",
            "deeplab_bench/data/packed.py",
            "deeplab_bench/models/__init__.py",
            "deeplab_bench/models/layers.py",
            "deeplab_bench/experiment.py",
            "deeplab_bench/provenance.py",
        ],
    )
    def test_changes_with_what_is_imported(self, path: str, copy: Path) -> None:
        before = code_sha256("deeplab_bench.training.train")
        (copy / path).write_text((copy / path).read_text() + "\n# changed\n")
        assert code_sha256("deeplab_bench.training.train") != before

    @pytest.mark.parametrize(
        "path",
        [
            "deeplab_bench/evaluation.py",
            "deeplab_bench/metrics.py",
            "deeplab_bench/report/page.py",
            "deeplab_bench/data/shapes.py",
            "deeplab_bench/models/psp.py",
            "deeplab_bench/models/registry.py",
            "deeplab_bench/params.py",
            "deeplab_bench/paths.py",
            "pipelines/train.py",
        ],
    )
    def test_does_not_change_with_the_rest(self, path: str, copy: Path) -> None:
        before = code_sha256("deeplab_bench.training.train")
        (copy / path).write_text("changed = 1\n")
        assert code_sha256("deeplab_bench.training.train") == before

    def test_of_a_run_changes_with_its_own_architecture_alone(self, copy: Path) -> None:
        def digest(architecture: str) -> str:
            return run_code_sha256.__wrapped__("deeplab_bench.training.train", architecture)

        before = {name: digest(name) for name in ("psp", "aspp", "deeplabv3plus")}
        path = copy / "deeplab_bench" / "models" / "aspp.py"
        path.write_text(path.read_text() + "\n# changed\n")
        assert digest("psp") == before["psp"]
        assert digest("aspp") != before["aspp"]
        assert digest("deeplabv3plus") != before["deeplabv3plus"]  # it has ASPP in it

    def test_is_the_same_elsewhere(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there = code_sha256("deeplab_bench.training.train")
        monkeypatch.setattr(provenance, "ROOT", ROOT)
        assert code_sha256("deeplab_bench.training.train") == there


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
        monkeypatch.setattr(provenance, "ROOT", tmp_path)
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
        found = imported_files(["main"])
        assert set(found) - {"package/__init__.py"} == {"main.py", *expected} - {
            "package/__init__.py"
        }
        assert found == sorted(set(found))
        assert "package/__init__.py" in found or not expected

    def test_is_what_python_imports(self) -> None:
        """One module after another, as each of them leaves those before imported."""
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
            assert imported_files(modules[:count]) == json.loads(line)
        assert len(output.splitlines()) == len(modules)


def test_environment() -> None:
    found: dict[str, Any] = environment(torch.device("cpu"))
    assert set(found) == {
        "device",
        "threads",
        "cpus",
        "python",
        "torch",
        "torchvision",
        "numpy",
        "pillow",
        "cuda",
    }
    assert found["device"] and found["cuda"] is None
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == torch.get_num_threads()
    json.dumps(found)
