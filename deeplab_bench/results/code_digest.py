"""The digest of a stage's code.

The code counts by what it does: the digest covers the stage's script in ``pipelines`` and all files
of the project that the script imports, without comments, docstrings and blank lines.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# They fetch what a digest verifies, say where a result lies, check and write what it holds,
# describe the machine, show progress, keep the state of an interrupted run, or validate a copy of
# the network while it trains. None of this changes a result, but for the validation curve.
LEFT_OUT = {
    "deeplab_bench/data/archives.py",
    "deeplab_bench/errors.py",
    "deeplab_bench/results/code_digest.py",
    "deeplab_bench/results/files.py",
    "deeplab_bench/results/provenance.py",
    "deeplab_bench/results/records.py",
    "deeplab_bench/results/stage_settings.py",
    "deeplab_bench/runtime/environment.py",
    "deeplab_bench/runtime/signals.py",
    "deeplab_bench/runtime/source.py",
    "deeplab_bench/training/live.py",
    "deeplab_bench/training/snapshots.py",
    "deeplab_bench/training/validation.py",
    "deeplab_bench/training/watch.py",
    "deeplab_bench/writing.py",
}

INTERFACE = "deeplab_bench/__init__.py"  # what users import, and no stage; it counts as empty

Span = tuple[int, int, int, int]  # first line and column, last line and column; lines from 0


@cache
def compute_code_sha256(stage: str, module: str | None = None) -> str:
    """Compute the digest of a stage's code.

    ``module`` is the architecture or the data set that the stage imports by its name. No other
    architecture or data set counts.
    """
    return compute_imported_sha256(f"pipelines.{stage}", *([module] if module else []))


def compute_imported_sha256(*modules: str) -> str:
    """Compute the digest of these modules and all files of the project that they import."""
    digest = hashlib.sha256()
    for path in list_imported_files(modules):
        digest.update(f"{path} {_compute_sha256(_read(path))}\n".encode())
    return digest.hexdigest()


def list_imported_files(modules: Iterable[str]) -> list[str]:
    """List the project's files that these modules import, relative to the root, sorted.

    The imports are read from the sources: nothing is run.
    """
    found: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        path = _find_source(module)
        if path is None or path in found:
            continue
        pending.append(module.rpartition(".")[0])
        if path not in LEFT_OUT:
            found.add(path)
            pending += _list_imports(_read(path))
    return sorted(found)


def strip_prose(source: str) -> str:
    """Remove comments, docstrings and blank lines from Python code."""
    lines = source.splitlines()
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    prose = sorted([*_find_comments(tokens), *_find_docstrings(source, lines)])
    strings = _find_string_lines(tokens, prose)
    for top, left, bottom, right in reversed(prose):
        rest = lines[top][:left] + lines[bottom][right:]
        lines[top : bottom + 1] = [rest, *[""] * (bottom - top)]
    kept = [line if i in strings else line.rstrip() for i, line in enumerate(lines)]
    return "\n".join(line for i, line in enumerate(kept) if line or i in strings)


def _find_comments(tokens: Iterable[tokenize.TokenInfo]) -> Iterator[Span]:
    for token in tokens:
        if token.type == tokenize.COMMENT:
            line, column = token.start
            yield line - 1, column, line - 1, token.end[1]


def _find_docstrings(source: str, lines: list[str]) -> Iterator[Span]:
    """Find all statements that are a string alone."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            top, bottom = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            right = lines[bottom].encode()[: node.end_col_offset].decode()  # ast counts bytes
            yield top, node.col_offset, bottom, len(right)


def _find_string_lines(tokens: Iterable[tokenize.TokenInfo], prose: Iterable[Span]) -> set[int]:
    """Find the lines that end inside a string which is no docstring: all of their text counts."""
    starts = {(top, left) for top, left, _, _ in prose}
    found: set[int] = set()
    for token in tokens:
        top, bottom = token.start[0] - 1, token.end[0] - 1
        if (top, token.start[1]) not in starts:
            found.update(range(top, bottom))
    return found


def _read(path: str) -> str:
    return "" if path == INTERFACE else (ROOT / path).read_text("utf-8")


@cache
def _compute_sha256(source: str) -> str:
    return hashlib.sha256(strip_prose(source).encode()).hexdigest()


def _find_source(module: str) -> str | None:
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if module and candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


@cache
def _list_imports(source: str) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)
