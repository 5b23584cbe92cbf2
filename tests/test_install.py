"""Tests of what ``make`` says while it installs. Python is a stand-in that prints its arguments."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = """#!/bin/sh
if [ "$1" = -c ]; then exit; fi
if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi
echo "ran: $*"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "stand_in"
    python.write_text(STAND_IN, encoding="utf-8")
    python.chmod(0o755)
    return tmp_path


def install(folder: Path, stderr: int) -> list[str]:
    """Install, and return what ``make`` prints, without the commands that it echoes."""
    command = ["make", "--silent", f"PYTHON={folder / 'stand_in'}", ".venv/installed"]
    output = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True
    ).stdout
    assert (folder / ".venv" / "installed").is_file()
    return output.splitlines()


def test_it_says_first_what_it_installs_and_how_long_that_takes(folder: Path) -> None:
    said, environment, locked, *_ = install(folder, subprocess.DEVNULL)
    assert "6 GB" in said and "minutes" in said
    assert environment == "ran: -m venv .venv"
    assert locked == "ran: -m pip install --quiet --require-hashes -r requirements.lock"


def test_in_a_terminal_pip_shows_its_progress(folder: Path) -> None:
    own, terminal = pty.openpty()
    try:
        locked = install(folder, terminal)[2]
    finally:
        os.close(own)
        os.close(terminal)
    assert locked == "ran: -m pip install --require-hashes -r requirements.lock"
