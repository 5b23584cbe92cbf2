"""Tests that the documents' commands can be run as they stand, and that links lead somewhere."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deeplab_bench.command_line import build_parser
from deeplab_bench.report.captions import make_anchor

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/notes/*.md")])
FENCED = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:deeplab-bench|make|mkdocs|python|dvc|tensorboard) [^`\n]+)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
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
            elif "--help" not in arguments:
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
