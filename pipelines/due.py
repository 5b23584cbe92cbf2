"""Runs that are out of date, according to DVC."""

import subprocess

import networkx as nx

from deeplab_bench.errors import UserError


def list_due_runs(profile: str) -> list[str]:
    """List what ``dvc repro`` would run of a profile, as ``train@quick-aspp-0``.

    The profile's settings are resolved first, since DVC compares them with those of the results.

    Raises:
        UserError: DVC cannot resolve them.
    """
    resolve = ["dvc", "repro", "--quiet", "--single-item", f"resolve@{profile}"]
    done = subprocess.run(resolve, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`{' '.join(resolve)}` failed: {(done.stdout + done.stderr).strip()}")
    from dvc.repo import Repo  # here, as the stages run without DVC

    with Repo() as repo:
        graph = repo.index.graph
        stale = repo.status()
        runs = {stage.addressing: stage for stage in graph}
        due = {run for run in runs.values() if run.addressing in stale}
        for run in list(due):
            due |= nx.ancestors(graph, run)
        return [name for name, run in runs.items() if run in due and is_of(name, profile)]


def is_of(run: str, profile: str) -> bool:
    return run.partition("@")[2].partition("-")[0] == profile
