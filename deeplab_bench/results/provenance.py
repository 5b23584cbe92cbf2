"""What a result was made from: digests of settings and code, and the machine it ran on."""

import ast
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from deeplab_bench.models import module_of
from deeplab_bench.settings.schema import Experiment

ROOT = Path(__file__).resolve().parents[2]


def settings_sha256(experiment: Experiment, seed: int) -> str:
    """A digest of every setting of a run; the data have a digest of their own."""
    settings = experiment.model_dump(mode="json") | {"seed": seed}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def code_sha256(*modules: str) -> str:
    """A digest of these modules of the project and all that they import of it."""
    digest = hashlib.sha256()
    for path in imported_files(modules):
        content = (ROOT / path).read_bytes()
        digest.update(f"{path} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


@cache
def run_code_sha256(module: str, architecture: str) -> str:
    """A digest of a module that works on one architecture, in which the others have no part."""
    return code_sha256(module, module_of(architecture))


def imported_files(modules: Iterable[str]) -> list[str]:
    """The project's files that these modules are made of, relative to the root, sorted.

    Read from the sources; nothing is imported.
    """
    found: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        path = _source(module)
        if path is None or path in found:
            continue
        found.add(path)
        pending += [module.rpartition(".")[0], *_imports((ROOT / path).read_text(encoding="utf-8"))]
    return sorted(found)


def _source(module: str) -> str | None:
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if module and candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


def _imports(source: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def environment(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that a timing belongs to."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: version(package) for package in ("torchvision", "numpy", "pillow")},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
