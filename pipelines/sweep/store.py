"""The DVC remote through which files travel, if the machines of a sweep share no folder."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import uuid4

from deeplab_bench.errors import UserError
from deeplab_bench.writing import DISK_FULL
from pipelines.sweep.task import Task

FOLDER = "sweep"
SNAPSHOTS = "snapshots"
SUFFIX = ".snapshot"
FIRST_PAUSE_SECONDS = 1.0  # each further one is twice as long, up to the longest
LONGEST_PAUSE_SECONDS = 30.0
PATIENCE_SECONDS = 180.0
# The remote says no. Anything else may be over in a moment.
LASTING = (PermissionError, FileExistsError, NotADirectoryError)
P = ParamSpec("P")
T = TypeVar("T")


class StoreError(UserError):
    """A DVC remote does not answer as it should; the message has its own words."""


def tells_the_remote(
    method: Callable[Concatenate["Store", P], T],
) -> Callable[Concatenate["Store", P], T]:
    """Make a method raise a StoreError for whatever the library of a remote raises.

    A remote that is away for a moment is asked again, for ``PATIENCE_SECONDS``.
    """

    @wraps(method)
    def told(store: "Store", /, *args: P.args, **kwargs: P.kwargs) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return method(store, *args, **kwargs)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in DISK_FULL:
                    raise
                said = f"the DVC remote at {store.root}: {error}"
                if isinstance(error, LASTING) or time.monotonic() + pause > deadline:
                    raise StoreError(said) from error
                logging.getLogger(__name__).warning("%s; it is asked again", said)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    return told


class Store:
    """Files by their digest, and snapshots of one task by its checkpoint, in a DVC remote.

    ``config`` is what DVC's configuration says of the remote. Its methods raise a StoreError if the
    remote does not answer as it should, and an OSError if the disk here is full.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from dvc.fs import get_cloud_fs  # takes a second

        kind, options, path = get_cloud_fs({"remote": {"it": dict(config)}}, name="it")
        self.fs = kind(**options)
        self.root = self.fs.join(path, FOLDER)
        self.offered: set[str] = set()

    @tells_the_remote
    def offer(self, folder: Path, paths: Iterable[str]) -> dict[str, str]:
        """Upload files of a folder that are not there yet; return their digests by path.

        Files that the folder lacks are left out: of several machines, one has written them.
        """
        digests = {path: digest_file(folder / path) for path in paths if (folder / path).is_file()}
        for path, digest in digests.items():
            there = self._place(digest[:2], digest)
            if not self.fs.exists(there):
                self._upload(folder / path, there)
        return digests

    @tells_the_remote
    def fetch(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Download files that a folder does not have yet."""
        for path, digest in digests.items():
            here = folder / path
            if not here.is_file() or digest_file(here) != digest:
                self._download(self._place(digest[:2], digest), here)

    @tells_the_remote
    def offer_snapshots(self, task: Task) -> None:
        """Upload the snapshots of a task, and remove those that it has replaced by newer ones.

        The last ones stay: a training removes them before its outputs are in the store.
        """
        checkpoint = find_checkpoint(task)
        here = {path.name: path for path in list_snapshots(task)}
        if checkpoint is None or not here:
            return
        for name in here.keys() - self.offered:
            with suppress(FileNotFoundError):  # the task has removed it meanwhile
                self._upload(here[name], self._place(SNAPSHOTS, checkpoint, name))
                self.offered.add(name)
        if not self.offered & here.keys():  # all new ones were removed meanwhile
            return
        for name in self.offered - here.keys():
            with suppress(FileNotFoundError):
                self.fs.remove(self._place(SNAPSHOTS, checkpoint, name))
            self.offered.remove(name)

    @tells_the_remote
    def fetch_snapshots(self, task: Task) -> None:
        """Download the snapshots of a task from the machine that it was on before."""
        checkpoint = find_checkpoint(task)
        if checkpoint is None:
            return
        for name in self._list_snapshots(checkpoint):
            here = (Path(task.folder) / checkpoint).with_name(name)
            if not here.is_file():
                self._download(self._place(SNAPSHOTS, checkpoint, name), here)
            self.offered.add(name)

    @tells_the_remote
    def remove_snapshots(self, task: Task) -> None:
        """Remove the snapshots of a task, as its outputs are where they belong."""
        checkpoint = find_checkpoint(task)
        if checkpoint is not None:
            for name in self._list_snapshots(checkpoint):
                self.fs.remove(self._place(SNAPSHOTS, checkpoint, name))

    def _list_snapshots(self, checkpoint: str) -> set[str]:
        folder = self._place(SNAPSHOTS, checkpoint)
        if not self.fs.exists(folder):
            return set()
        return {self.fs.name(path) for path in self.fs.find(folder) if path.endswith(SUFFIX)}

    def _place(self, *names: str) -> str:
        return self.fs.join(self.root, *names)

    def _upload(self, here: Path, there: str) -> None:
        """Upload a file; whoever sees it sees all of it."""
        self.fs.makedirs(self.fs.parent(there), exist_ok=True)
        part = f"{there}.{uuid4().hex}"
        self.fs.put_file(str(here), part)
        self.fs.move(part, there)

    def _download(self, there: str, here: Path) -> None:
        here.parent.mkdir(parents=True, exist_ok=True)
        part = here.with_name(f"{here.name}.part")
        self.fs.get_file(there, str(part))
        part.replace(here)


def find_checkpoint(task: Task) -> str | None:
    """Return the checkpoint that a task makes, with its snapshots beside it; None without one."""
    return next((path for path in task.outputs if path.endswith(".pt")), None)


def list_snapshots(task: Task) -> list[Path]:
    checkpoint = find_checkpoint(task)
    if checkpoint is None:
        return []
    path = Path(task.folder) / checkpoint
    return list(path.parent.glob(f"{path.stem}.*{SUFFIX}"))


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
