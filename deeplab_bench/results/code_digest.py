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
# No result changes with the place where it lies.
LEFT_OUT = {"deeplab_bench/results/files.py"}
STATEMENT_STARTS = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


@cache
def compute_code_sha256(stage: str, architecture: str | None = None) -> str:
    """Compute the digest of a stage's code; of the architectures, this one alone counts."""
    modules = [f"pipelines.{stage}"]
    if architecture is not None:
        modules.append(f"deeplab_bench.models.{architecture}")
    digest = hashlib.sha256()
    for path in list_imported_files(modules):
        if path not in LEFT_OUT:
            code = strip_prose((ROOT / path).read_text(encoding="utf-8"))
            digest.update(f"{path} {hashlib.sha256(code.encode()).hexdigest()}\n".encode())
    return digest.hexdigest()


def strip_prose(source: str) -> str:
    """Remove comments, docstrings and blank lines from Python code."""
    lines, cuts = source.splitlines(), []
    in_strings: set[int] = set()
    before = tokenize.ENCODING
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (top, left), (bottom, right) = token.start, token.end
        is_statement = token.type == tokenize.STRING and before in STATEMENT_STARTS
        if token.type == tokenize.COMMENT or is_statement:
            cuts.append((top - 1, left, bottom - 1, right))
        else:
            in_strings.update(range(top - 1, bottom - 1))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    for top, left, bottom, right in reversed(cuts):
        rest = lines[top][:left] + lines[bottom][right:]
        lines[top : bottom + 1] = [rest, *[""] * (bottom - top)]
    kept = [(i, line if i in in_strings else line.rstrip()) for i, line in enumerate(lines)]
    return "\n".join(line for i, line in kept if line or i in in_strings)


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
        found.add(path)
        pending += [module.rpartition(".")[0], *_imports((ROOT / path).read_text(encoding="utf-8"))]
    return sorted(found)


def _find_source(module: str) -> str | None:
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if module and candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
