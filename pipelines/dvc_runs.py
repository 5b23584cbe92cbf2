"""Runs of stages, named as in ``train@quick-aspp-0``: calls of DVC, and lists of due runs."""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from deeplab_bench.errors import UserError


def run_dvc(
    *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the DVC of this Python. Stages use this Python too, even if it is not activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        env=os.environ | {"PATH": path} | dict(environment or {}),
        text=True,
        check=False,
        **options,
    )


def list_stale_runs(stages: Collection[str]) -> list[str]:
    """List the runs of these stages with a changed dependency, output or command."""
    from dvc.repo import Repo  # here, as the stages run without DVC

    with Repo() as repo:
        return [run for run in repo.status() if run.partition("@")[0] in stages]


def list_due_runs(profile: str) -> list[str]:
    """List the runs of a profile that are stale, and all that depend on them.

    The profile's settings are resolved first, since DVC compares them with those of the results.

    Raises:
        UserError: DVC cannot resolve the settings.
    """
    resolve = ["repro", "--quiet", "--single-item", f"resolve@{profile}"]
    done = run_dvc(*resolve, capture_output=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise UserError(f"`dvc {' '.join(resolve)}` failed: {said}")
    from dvc.repo import Repo

    with Repo() as repo:
        graph, stale = repo.index.graph, repo.status()
        due = {run for run in graph if run.addressing in stale}
        due = due.union(*(nx.ancestors(graph, run) for run in due))
        return [run.addressing for run in graph if run in due and belongs_to(run, profile)]


def belongs_to(run: Any, profile: str) -> bool:
    return run.addressing.partition("@")[2].partition("-")[0] == profile
