"""The state of the source that a result is made with: commit, edits, pinned packages.

Digests of code and settings stand in the results, since they do not depend on the history. A commit
does: it stands beside the times and the machine.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from deeplab_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LOCK = "requirements.lock"
DESCRIBED = "DEEPLAB_BENCH_SOURCE"  # tells a machine that has the code without its history
# What a value depends on. Results, documents and tests may be edited.
MADE_FROM = ("deeplab_bench", "pipelines", "params.yaml", LOCK)


class GitError(UserError):
    """Git refuses, or is not installed; the message is its own."""


def describe_source(root: Path = ROOT) -> dict[str, Any]:
    """Describe the source in the folder ``root``.

    ``commit`` is HEAD, ``date`` its day by its committer's clock, as in 2017-06-17. ``dirty`` says
    whether code, params.yaml or the lock file have changes that are not in it. All are None outside
    a git repository. ``lock_sha256`` is None without the file. If the environment has a description
    as JSON, this is returned.
    """
    if DESCRIBED in os.environ:
        given: dict[str, Any] = json.loads(os.environ[DESCRIBED])
        return given
    found = ask_git("rev-parse", "--show-toplevel", "HEAD", root=root)
    commit = None
    if found is not None and Path(found.splitlines()[0]).resolve() == root.resolve():
        commit = found.splitlines()[1]
    day = ("log", "-1", "--no-show-signature", "--format=%cs")
    date = ask_git(*day, root=root) if commit else None
    edits = ask_git("status", "--porcelain", "--", *MADE_FROM, root=root) if commit else None
    lock = root / LOCK
    return {
        "commit": commit,
        "date": None if date is None else date.strip(),
        "dirty": None if edits is None else bool(edits),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
    }


def ask_git(*arguments: str, root: Path = Path()) -> str | None:
    """Return what git prints, or None if it fails or is not installed."""
    try:
        return run_git(*arguments, root=root)
    except GitError:
        return None


def run_git(*arguments: str, root: Path = Path()) -> str:
    """Return what git prints in the folder ``root``.

    Raises:
        GitError: it fails, or is not installed.
    """
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise GitError("git is not installed: install it") from None
    if done.returncode:
        raise GitError(f"`git {' '.join(arguments)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout
