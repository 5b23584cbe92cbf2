"""Runs of stages, named as in ``train@quick-aspp-0``: calls of DVC, and lists of due runs.

DVC is imported in the functions, as the stages run without it.
"""

import errno
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.errors import UserError
from deeplab_bench.writing import describe_lack_of_room, write_bytes
from pipelines.sweep.node import put_python_first
from pipelines.sweep.store import digest_file
from pipelines.sweep.task import get_profile

LOCK_FILE = Path("dvc.lock")
ROOM_BYTES = 1 << 20  # for new entries
READERS = Path(".dvc/tmp/rwlock")
WHOLE = Path(".dvc/tmp/dvc.lock.whole")  # the last one that could be read


class DVCError(UserError):
    """DVC refuses something; the message is its own."""


def run_dvc(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the DVC of this Python."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        env=put_python_first(),
        text=True,
        check=False,
        **options,
    )


def secure_lock_file() -> None:
    """Keep a copy of dvc.lock, or put the last copy in its place if a kill has cut it off.

    DVC does not write the file atomically.

    Raises:
        DVCError: the file is damaged and there is no copy.
    """
    if not LOCK_FILE.is_file():
        return
    if is_lock_file_whole():
        write_bytes(WHOLE, LOCK_FILE.read_bytes())
        return
    if not WHOLE.is_file():
        raise DVCError(f"{LOCK_FILE} is damaged: run `git checkout {LOCK_FILE}`, and then again")
    print(f"warning: {LOCK_FILE} was damaged; its last copy is in place again", file=sys.stderr)
    write_bytes(LOCK_FILE, WHOLE.read_bytes())


def is_lock_file_whole() -> bool:
    """Tell whether DVC can read dvc.lock, and whether its last line is complete."""
    try:
        text = LOCK_FILE.read_text(encoding="utf-8")
        runs = YAML(typ="safe").load(text)["stages"].values()
        return text.endswith("\n") and all("cmd" in run for run in runs)
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, YAMLError):
        return False


@contextmanager
def locked_repository() -> Iterator[Any]:
    """Open DVC's repository and hold its lock: no other DVC changes a result meanwhile.

    Raises:
        DVCError: another DVC holds the lock, or dvc.yaml or params.yaml is wrong.
    """
    from dvc.repo import Repo, lock_repo

    logging.getLogger("dvc").setLevel(logging.WARNING)  # its progress would mix with ours
    with say_errors_of_dvc(), Repo() as repo, lock_repo(repo):
        remove_damaged_list()
        yield repo


def remove_damaged_list() -> None:
    """Remove DVC's list of who reads and writes which file, if a kill has cut it off.

    DVC would refuse to work.
    """
    if READERS.is_file():
        try:
            json.loads(READERS.read_bytes())
        except ValueError:
            READERS.unlink()


@contextmanager
def say_errors_of_dvc() -> Iterator[None]:
    """Raise DVC's errors as errors of the user."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        raise DVCError(" ".join(str(error).split())) from error


def prepare(run: Any) -> bool:
    """Do what ``dvc repro`` does before the command of a run: remove its outputs.

    Returns True if DVC knows the outputs from an earlier time; then they are in place again.

    Raises:
        DVCError: a dependency is missing.
    """
    from dvc.stage.cache import RunCacheNotFoundError

    for dependency in run.deps:
        if not dependency.exists:
            raise DVCError(f"{dependency} is missing: run the stage that makes it")
    with say_errors_of_dvc():
        run.remove_outs()
        try:
            run.repo.stage_cache.restore(run)
        except RunCacheNotFoundError:
            run.save_deps()
            return False
        return True


def digest_inputs(run: Any) -> str:
    """Compute a digest of the command of a run and of its dependencies, as DVC has them.

    Raises:
        DVCError: params.yaml lacks a parameter.
    """
    with say_errors_of_dvc():
        hashes = {
            dependency.def_path: dependency.get_hash().value if dependency.exists else None
            for dependency in run.deps
        }
    content = json.dumps([run.addressing, run.cmd, hashes], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def has_outputs(run: Any, digests: Mapping[str, str]) -> bool:
    """Tell whether the outputs of a run are files that all have the given digests."""
    paths = [output.def_path for output in run.outs]
    return all(
        Path(path).is_file() and digest_file(Path(path)) == digests.get(path) for path in paths
    )


def take_outputs(run: Any) -> None:
    """Hash what a run has read and written, and put its cached outputs into DVC's cache.

    Raises:
        DVCError: an output is missing.
        OSError: the disk is full.
    """
    with say_errors_of_dvc():
        # As `dvc repro` does: its cache of runs has only those whose outputs are all in the cache.
        run.save(run_cache=all(out.use_cache for out in run.outs))
        run.commit()


def count_output_bytes(run: Any) -> int:
    """Count the bytes of the outputs of a run that DVC copies into its cache."""
    paths = [Path(output.def_path) for output in run.outs if output.use_cache]
    return sum(path.stat().st_size for path in paths if path.is_file())


def record(runs: Sequence[Any]) -> None:
    """Write runs, whose outputs are taken, into dvc.lock. This takes a second.

    Raises:
        OSError: the disk is full; dvc.lock is as it was.
    """
    if runs:
        require_room_for_lock_file()
        runs[0].dvcfile.dump_stages(runs, update_pipeline=False)
        secure_lock_file()


def require_room_for_lock_file() -> None:
    """Check that the disk has room for dvc.lock, which DVC does not write atomically."""
    size = LOCK_FILE.stat().st_size if LOCK_FILE.is_file() else 0
    if describe_lack_of_room(Path(), 3 * size + ROOM_BYTES):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(LOCK_FILE))


def list_recorded_runs(repo: Any) -> list[str]:
    """List the names of the runs in dvc.lock, in its order."""
    from dvc.dvcfile import load_file

    return list(load_file(repo, "dvc.yaml").lockfile_contents.get("stages", {}))


def sort_recorded_runs(repo: Any, before: Collection[str]) -> None:
    """Sort the runs that dvc.lock did not have before, as ``dvc repro`` would have written them."""
    from dvc.utils.serialize import modify_yaml

    new = [name for name in list_recorded_runs(repo) if name not in before]
    in_order = [run.addressing for run in repo.index.stages if run.addressing in new]
    if new != in_order:
        require_room_for_lock_file()
        with modify_yaml("dvc.lock", fs=repo.fs) as content:
            entries = content["stages"]
            for name in in_order:
                entries[name] = entries.pop(name)


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
        names = [run.addressing for run in graph if run in due]
        return [name for name in names if get_profile(name) == profile]
