"""Commits that hold files, and the digests of code at a commit."""

import hashlib
import importlib.util
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from deeplab_bench.runtime.source import ask_git


def find_holder(path: Path) -> str | None:
    """Find the last commit that changed a file; None if no commit has it."""
    return (ask_git("log", "-1", "--format=%H", "--", str(path)) or "").strip() or None


def is_edited(path: Path) -> bool:
    """Return whether a file has changes that are in no commit."""
    return bool(ask_git("status", "--porcelain", "--", str(path)))


@cache
def find_day(commit: str) -> str | None:
    """Find the day of a commit, as in 2017-06-17; None if the repository does not have it."""
    found = ask_git("log", "-1", "--no-show-signature", "--format=%cs", commit)
    return None if found is None else found.strip()


@cache
def find_committed(path: str, sha256: str) -> str | None:
    """Find the text that a file had in some commit, by its digest; None if no commit has it."""
    for commit in (ask_git("log", "--format=%H", "--", path) or "").split():
        text = ask_git("show", f"{commit}:{path}")
        if text is not None and hashlib.sha256(text.encode()).hexdigest() == sha256:
            return text
    return None


@cache
def compute_code_at(commit: str, stage: str, module: str) -> str | None:
    """Compute the digest of a stage's code at a commit, as the code of that commit does.

    None if the repository has no such commit, or if its code computes no such digest.
    """
    with tempfile.TemporaryDirectory() as folder:
        packed, root = Path(folder) / "code.tar", Path(folder) / "code"
        parts = ("deeplab_bench", "pipelines")
        if ask_git("archive", "-o", str(packed), commit, *parts) is None:
            return None
        with tarfile.open(packed) as archive:
            archive.extractall(root, filter="data")
        compute = load_function(root / "deeplab_bench" / "results" / "code_digest.py")
        return None if compute is None else compute(stage, module)


def load_function(path: Path) -> Callable[[str, str], str] | None:
    """Load ``compute_code_sha256`` from a file, which reads the code around that file."""
    spec = importlib.util.spec_from_file_location("code_digest_of_a_commit", path)
    if not path.is_file() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "compute_code_sha256", None)
