"""Committed runs, made again in a temporary clone of HEAD by the stages of the pipeline."""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.packed import compute_data_sha256
from deeplab_bench.errors import UserError
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.runtime.pins import list_pins
from deeplab_bench.runtime.source import run_git
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.params_file import PARAMS_FILE
from deeplab_bench.verification.verdict import RunResults, read_results
from pipelines.stages import STAGES
from pipelines.warm import warm_process

START = (sys.executable, "-m", "deeplab_bench")


@contextmanager
def clone_head() -> Iterator[Path]:
    """Clone HEAD into a temporary folder, with links to the downloads that are here.

    Raises:
        GitError: this is no git repository.
        UserError: Python would not import the clone's code.
    """
    with tempfile.TemporaryDirectory(prefix="deeplab-bench-") as folder:
        clone = Path(folder).resolve() / "clone"
        run_git("clone", "--quiet", "--shared", ".", str(clone))
        code = "import deeplab_bench; print(deeplab_bench.__file__)"
        imported = run_command(clone, sys.executable, "-c", code)
        if not Path(imported.strip()).is_relative_to(clone):
            raise UserError(
                f"the stages of the clone would import {imported.strip()}: unset what "
                "puts it first, such as PYTHONSAFEPATH"
            )
        downloads = clone / DOWNLOADS
        downloads.mkdir(parents=True)
        for archive in DOWNLOADS.glob("*") if DOWNLOADS.is_dir() else ():
            if archive.suffix != ".json":
                (downloads / archive.name).symlink_to(archive.resolve())
        yield clone


def list_uncommitted() -> list[str]:
    """List the files in git that differ from HEAD."""
    return run_git("diff", "--name-only", "HEAD").splitlines()


def rerun(
    clone: Path, params: Params, committed: Mapping[RunFiles, RunResults]
) -> dict[RunFiles, RunResults]:
    """Make committed runs of one profile again, from the data on.

    Returns:
        Their results; none if the data differ from those of the committed results: then nothing is
        trained.

    Raises:
        UserError: params.yaml declares no such run, or a stage failed.
    """
    (profile,) = {run.profile for run in committed}
    if profile not in params.run.profiles:
        run_command(clone, *START, "select", "--profile", profile)
    ways = params.run.inference
    targets = [f"evaluate@{profile}-{way}-{run.name}" for run in committed for way in ways]
    commands = list_commands(clone, targets)
    of_data = list_commands(clone, [f"prepare@{profile}"])
    process = load_params(clone / PARAMS_FILE).profile[profile].process
    with warm_process(list_pins(process.determinism, process.threads), clone):
        for name in of_data:
            run_stage(clone, name, commands[name])
        data_sha256 = compute_data_sha256(clone / ProfileFiles(profile).data)
        if any(results.provenance["data_sha256"] != data_sha256 for results in committed.values()):
            return {}
        for name, command in commands.items():
            if name not in of_data:
                run_stage(clone, name, command)
    return {run: read_results(clone, run, ways) for run in committed}


def list_commands(clone: Path, targets: Sequence[str]) -> dict[str, str]:
    """List the runs of stages that the targets need, and the targets, each with its command.

    Raises:
        UserError: params.yaml does not declare a target.
    """
    from dvc.repo import Repo  # here, as the stages run without DVC

    with Repo(str(clone)) as repo:
        graph = repo.index.graph
        named: dict[str, Any] = {run.name: run for run in graph}
        for target in targets:
            if target not in named:
                raise UserError(f"`run` of params.yaml declares no run {target}: add it there")
        wanted = {named[target] for target in targets}
        needed = wanted.union(*(nx.descendants(graph, run) for run in wanted))
        order = nx.lexicographical_topological_sort(graph.subgraph(needed).reverse(), key=get_place)
        return {run.name: run.cmd for run in order}


def get_place(run: Any) -> tuple[int, str]:
    """Return the place of a run in the order of the stages."""
    return list(STAGES).index(run.name.partition("@")[0]), run.name


def run_stage(clone: Path, name: str, command: str) -> None:
    """Run a stage in the clone with this Python; it shows its progress itself.

    Raises:
        UserError: the stage failed.
    """
    print(f"Running {name}", file=sys.stderr, flush=True)
    arguments = [sys.executable, *shlex.split(command)[1:]]
    status = subprocess.run(arguments, cwd=clone, check=False).returncode
    if status:
        raise UserError(f"{name} failed in the clone with the exit status {status}; see above")


def run_command(folder: Path, *command: str) -> str:
    """Run a command and return what it prints.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`{' '.join(command[:2])}` failed: {done.stderr.strip()}")
    return done.stdout
