"""Provenance of a result: the settings, data, weights and code that it was made from.

The code counts by what it does. A stage's digest is that of its script in ``pipelines`` and of all
files of the project that the script imports, without comments, docstrings and blank lines.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from deeplab_bench.data.packed import data_sha256
from deeplab_bench.models import module_of
from deeplab_bench.settings.schema import Experiment
from deeplab_bench.training.pretrained import compute_weights_sha256

ROOT = Path(__file__).resolve().parents[2]
# No result changes with the place where it lies.
LEFT_OUT = {"deeplab_bench/results/files.py"}
STATEMENT_STARTS = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


class Provenance(BaseModel):
    """The digests of all that a run was made from; ``code_sha256`` is by stage."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    settings_sha256: str
    data_sha256: str
    weights_sha256: str | None
    code_sha256: dict[str, str]

    def after(self, stage: str, architecture: str) -> "Provenance":
        """Add the code of a later stage that works on the same run."""
        code = self.code_sha256 | {stage: code_sha256(stage, architecture)}
        return self.model_copy(update={"code_sha256": code})


def provenance_of_training(experiment: Experiment, seed: int, data_folder: Path) -> Provenance:
    """Compute the provenance that a checkpoint made now would have."""
    backbone = experiment.arguments.get("backbone", "")
    return Provenance(
        settings_sha256=settings_sha256(experiment, seed),
        data_sha256=data_sha256(data_folder),
        weights_sha256=compute_weights_sha256(experiment.training.weights, backbone),
        code_sha256={"train": code_sha256("train", experiment.architecture)},
    )


def settings_sha256(experiment: Experiment, seed: int) -> str:
    """Compute a digest of every setting of a run."""
    settings = experiment.model_dump(mode="json") | {"seed": seed}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@cache
def code_sha256(stage: str, architecture: str | None = None) -> str:
    """Compute the digest of a stage's code, of all architectures with this one alone."""
    modules = [f"pipelines.{stage}"] + ([module_of(architecture)] if architecture else [])
    digest = hashlib.sha256()
    for path in imported_files(modules):
        if path not in LEFT_OUT:
            code = strip_prose((ROOT / path).read_text(encoding="utf-8"))
            digest.update(f"{path} {hashlib.sha256(code.encode()).hexdigest()}\n".encode())
    return digest.hexdigest()


def strip_prose(source: str) -> str:
    """Remove comments, docstrings and blank lines from Python code."""
    lines, cuts, in_strings = source.splitlines(), [], set()
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


def imported_files(modules: Iterable[str]) -> list[str]:
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
