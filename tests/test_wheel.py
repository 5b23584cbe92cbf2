"""Tests of the wheel, installed into a folder of its own, far from the repository."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.long(seconds=30)

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("deeplab_bench", "pipelines")
IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources and install it, without a network."""
    root = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, root / "source" / name, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(root)]
    subprocess.run([*pip, *build, str(root / "source")], check=True)
    (wheel,) = root.glob("*.whl")
    folder = root / "installed"
    install = ["install", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run([*pip, *install], check=True)
    return folder


def run(installed: Path, folder: Path, *arguments: str) -> str:
    command = [str(installed / "bin" / "deeplab-bench"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_every_module_and_no_other(installed: Path) -> None:
    def list_files(folder: Path) -> set[str]:
        paths = (p for name in SOURCES for p in (folder / name).rglob("*"))
        return {str(p.relative_to(folder)) for p in paths if p.suffix in (".py", ".jinja")}

    assert list_files(installed) == list_files(ROOT)


def test_the_version_is_the_project_s(installed: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    expected = f"{project['name']} {project['version']}\n"
    assert run(installed, tmp_path, "--version") == expected


def test_it_predicts_with_a_checkpoint_alone(
    installed: Path, checkpoint_file: Path, tmp_path: Path
) -> None:
    shutil.copy(checkpoint_file, tmp_path / "plain-0.pt")
    Image.new("RGB", (40, 30), (90, 160, 70)).save(tmp_path / "photo.jpg")
    run(installed, tmp_path, "predict", "photo.jpg", "--checkpoint", "plain-0.pt")
    written = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert written == {"photo.png", "photo.plain-0.png", "photo.plain-0.overlay.png"}
