"""Tests that the documents' commands and code run, and that links lead somewhere."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import OTHER_LOCALE, PINS, ROOT, Repository
from PIL import Image
from torch import nn

from deeplab_bench.command_line import build_parser
from deeplab_bench.data.packed import load_split
from deeplab_bench.data.pixels import write_label
from deeplab_bench.report.captions import make_anchor
from pipelines.warm import warm_process

pytestmark = pytest.mark.long(seconds=120)

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/notes/*.md")])
FENCED = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:deeplab-bench|make|mkdocs|python|dvc|tensorboard) [^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What stands for a word of the user.
PLACEHOLDER = re.compile(r"<[^>]+>|\bCOMMAND\b|…")


def list_commands(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    found = [line for line in [*lines, *INLINE.findall(text)] if line.strip()]
    return list(dict.fromkeys(found))


COMMANDS = [(path, command) for path in DOCUMENTS for command in list_commands(path)]


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*each, id=f"{each[0].stem}: {each[1]}") for each in COMMANDS]
)
def test_a_command_can_be_run_as_it_stands(path: Path, command: str) -> None:
    words = shlex.split(PLACEHOLDER.sub("x", command), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):  # the environment of the command
        words.pop(0)
    match words:
        case ["deeplab-bench", *arguments]:
            if len(arguments) == 1 and "-" not in arguments[0]:  # the text names the command alone
                assert find_spec(f"pipelines.{arguments[0]}") is not None
            elif arguments not in (["--help"], ["--version"]):
                build_parser(arguments).parse_args(arguments)
        case ["make", *arguments]:
            done = subprocess.run(
                ["make", "--dry-run", "--old-file", ".venv/installed", *arguments],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        case ["python", "-m", module, *_]:
            source = ROOT / module.replace(".", "/")
            assert source.with_suffix(".py").is_file() or (source / "__main__.py").is_file()
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case [program, *_]:
            assert program in {
                "dvc",
                "git",
                "mkdocs",
                "pip",
                "ray",
                "tensorboard",
                "torchrun",
                "export",
                "uv",
            }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text(encoding="utf-8"))
            assert anchor in map(make_anchor, headings), link


def test_the_site_is_built_and_loads_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("index.html"))
    assert len(pages) == len([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")])
    for page in pages:
        loaded = re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(http[^"]*)"', page.read_text()
        )
        assert loaded == [], page


MANUAL = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# What the texts name only in passing, and what reads results.
MORE = (
    "deeplab-bench --help",
    "deeplab-bench table",
    "deeplab-bench trace results/quick/tables/accuracy.csv aspp miou_mean",
    "make cite MODEL=aspp",
    "make dag",
)
MAKES_RESULTS = "make repro", "make repro PROFILE=voc2012 STUDY=multi_grid"
EXCEPTIONS = {
    "make test": "runs this test",
    "make repro PROFILE=voc2012": "is the first again, with nothing to do",
    "make verify": "trains anew, as in tests/pipelines/test_verify.py",
    "make verify PROFILE=camvid": "trains anew, as in tests/pipelines/test_verify.py",
    "deeplab-bench verify quick --models aspp,psp --seed 1": "trains anew, as the one before",
    "make submit MODEL=deeplabv3_trainval IMAGES=…": "needs VOC's test images",
    "make submit MODEL=deeplabv3_trainval SEED=0 INFERENCE=os8_ms_flip "
    "IMAGES=/path/to/VOCdevkit": "needs VOC's test images",
    "ray start --head --port 6379": "starts a server; tests/pipelines/test_ray.py does so",
    "ray start --address 10.0.0.1:6379": "needs a second machine",
    "tensorboard --logdir logs/live": "serves pages until it is ended",
    "python -m studies.sweep_scale 100 1000 10000": "runs for an hour",
}
CODE_TESTED_ELSEWHERE = {"networks.md"}  # tests/models/test_networks_of_others.py trains with it
STUDY = """\
studies:
  multi_grid:
    paper: A, Table 1
    question: Which?
    hours: 1
    models: &multi_grid [fcn, aspp]
"""


# Any command asks the warm process, as stages do: it has imported torch already.
COMMAND = """\
#!/bin/sh
exec python -c '
import sys
from pipelines import warm
warm.can_fork = lambda command: True
sys.exit(warm.delegate(sys.argv[1:]))' "$@"
"""
RUN_EACH = "import sys; [exec(code, {}) for code in sys.argv[1:]]"


def list_fenced_lines() -> list[str]:
    """List all lines of shell in the manual, without their comments."""
    blocks = [block for path in MANUAL for block in FENCED.findall(path.read_text("utf-8"))]
    lines = [re.sub(r"\s+# .*", "", line) for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(filter(None, lines)))


def build_repository(root: Path) -> Repository:
    """Make a repository that has what `make` and the commands of the manual need."""
    repository = Repository(root)
    for name in ("CITATION.cff", "Makefile", "README.md", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / ".dvc" / "plots", root / ".dvc" / "plots")
    (root / ".venv" / "bin").mkdir(parents=True)
    command = root / ".venv" / "bin" / "deeplab-bench"
    command.write_text(COMMAND, encoding="utf-8")
    command.chmod(0o755)
    (root / ".venv" / "installed").touch()
    repository.edit("hardware: [cpu]", "hardware: []")
    repository.edit("models: [fcn, aspp]", "models: [fcn]")  # the study adds aspp
    params = repository.params.read_text("utf-8").replace("miniature", "quick")
    repository.params.write_text(STUDY + params, "utf-8")
    repository.commit()
    return repository


def add_files_of_users(root: Path) -> None:
    """Write the photographs, the label PNGs, the checkpoint and the curve that the manual names."""
    split = load_split(root / "data" / "quick", "val")
    (root / "more").mkdir()
    (root / "a_folder").mkdir()
    for path in (root / "photo.jpg", root / "more" / "other.jpg"):
        Image.fromarray(split.image(0)).save(path)
    for index, name in enumerate(split.names):
        write_label(root / "a_folder" / f"{name}.png", np.zeros_like(split.label(index)))
    shutil.copy(root / "checkpoints" / "quick" / "aspp-0.pt", root)
    curve = root / "logs" / "live" / "voc2012" / "aspp-0" / "plots/metrics/val/miou.tsv"
    curve.parent.mkdir(parents=True)
    curve.write_text("step\tmiou\n0\t0.1\n1\t0.2\n", encoding="utf-8")


def execute(repository: Repository, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on the profile that is there, by the programs of the repository."""
    command = re.sub(r"\bvoc2012(?!/)", "quick", command)
    settings = f'PATH="$PWD/.venv/bin:$PATH"; unset {" ".join(OTHER_LOCALE)}'
    return repository.run("sh", "-c", f"{settings}; {command}")


def test_the_manual_runs(tmp_path: Path) -> None:
    """Run each command of the manual, and its Python, in a repository with a tiny profile."""
    lines = list_fenced_lines()
    assert {*EXCEPTIONS, *MAKES_RESULTS} <= set(lines)
    root = tmp_path / "repository"
    repository = build_repository(root)
    with warm_process(PINS, root):
        for command in MAKES_RESULTS:
            done = execute(repository, command)
            assert done.returncode == 0, done.stdout + done.stderr
            repository.commit()
            repository.run("git", "tag", "v0.2.0")  # stays at the first
        add_files_of_users(root)
        said = {}
        for command in [*lines, *MORE]:
            if command not in EXCEPTIONS and command not in MAKES_RESULTS:
                done = execute(repository, command)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                said[command] = done.stdout
    tested_here = [path for path in MANUAL if path.name not in CODE_TESTED_ELSEWHERE]
    codes = [code for path in tested_here for code in PYTHON.findall(path.read_text("utf-8"))]
    repository.python("-c", RUN_EACH, *codes)
    assert "run.models" in said["dvc params diff v0.2.0"]
    for command in ("dvc metrics diff v0.2.0", "make compare A=v0.2.0 B=HEAD"):
        assert "aspp" in said[command]
    assert (root / "dvc_plots" / "index.html").is_file()

    # What docs/troubleshooting.md says of DVC in a fresh clone.
    execute(repository, "git clone --quiet . ../clone")
    done = execute(repository, "cd ../clone && dvc repro --dry")
    assert "failed to reproduce 'prepare@quick': [Errno 2] No such file" in done.stderr
    done = execute(repository, "cd ../clone && dvc pull")
    assert "Is your cache up to date?" in done.stderr


def test_the_architecture_of_the_manual_is_one() -> None:
    (code,) = PYTHON.findall((ROOT / "docs" / "adding.md").read_text("utf-8"))
    found: dict[str, type[nn.Module]] = {}
    exec(code, found)
    network = found["Plain"](num_classes=3, backbone="resnet18", width=0.25, output_stride=16)
    assert network.eval()(torch.zeros(1, 3, 33, 49)).shape == (1, 3, 33, 49)
