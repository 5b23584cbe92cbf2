"""Snapshots: the state of a training that is not done, from which an interrupted run goes on."""

import fcntl
import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
import torch.distributed as dist

from deeplab_bench.errors import TRY_AGAIN, UserError
from deeplab_bench.runtime import distributed
from deeplab_bench.writing import write_tensors

Point = tuple[float | None, float | None]  # loss and mIoU of a validation; None is undefined
Points = dict[int, Point]  # by iteration

PATIENCE_SECONDS = 20.0
KEPT = 2  # of one phase. If the newest cannot be read, the other can.


class LockError(UserError):
    """Another process trains the same run; the message says what to do."""

    exit_status = TRY_AGAIN


class Snapshots:
    """The snapshots of one run, beside its ``checkpoint``.

    Their names have a digest of the run's ``provenance``, the phase and the iteration. A snapshot
    of other settings, data or code is not loaded, and is removed as soon as this run has its own.
    ``points`` of the validation, by phase, are saved and loaded with the state.
    """

    def __init__(self, checkpoint: Path, provenance: Mapping[str, Any]) -> None:
        self.checkpoint, self.provenance = checkpoint, dict(provenance)
        self.points: dict[int, Points] = {}
        self.digest = hashlib.sha256(json.dumps(self.provenance).encode()).hexdigest()[:12]

    def save(self, phase: int, iteration: int, state: Mapping[str, Any]) -> None:
        """Write the state after an iteration, and remove what it makes superfluous."""
        name = f"{self.checkpoint.stem}.{self.digest}.{phase}.{iteration:08d}.snapshot"
        content = {**state, "points": self.points.get(phase, {})}
        write_tensors(self.checkpoint.with_name(name), content)
        kept = {p: self.list(p)[:KEPT] for p in range(1, phase + 1)}
        self._remove_all_but({path for paths in kept.values() for path in paths})

    def load(self, phase: int, device: torch.device) -> dict[str, Any] | None:
        """Load the newest state of a phase that can be read; None if there is none.

        All processes load what process 0 has: on another machine, the folder may lack it.
        """
        for path in distributed.broadcast_object(self.list(phase)):
            content = io.BytesIO(_share(path))
            try:
                state: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
            except (EOFError, OSError, RuntimeError, UnpicklingError):
                logging.getLogger(__name__).warning("%s is damaged and is not used", path)
                continue
            self.points[phase] = state.pop("points", {})  # older snapshots have none
            return state
        return None

    def list(self, phase: int) -> list[Path]:
        """List the files of a phase, the newest first."""
        pattern = f"{self.checkpoint.stem}.{self.digest}.{phase}.*.snapshot"
        return sorted(self.checkpoint.parent.glob(pattern), reverse=True)

    def remove(self) -> None:
        """Remove all snapshots of the run, also those of other settings."""
        self._remove_all_but(set())

    def _remove_all_but(self, kept: set[Path]) -> None:
        for path in self.checkpoint.parent.glob(f"{self.checkpoint.stem}.*.snapshot*"):
            if path not in kept:
                path.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run, so that no second process trains it, e.g. after ``dvc`` was killed.

        A process that was told to end holds the lock until its last step is saved: wait for it.

        Raises:
            LockError: another process has locked it for longer than ``PATIENCE_SECONDS``.
        """
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.checkpoint.with_suffix(".lock").open("w") as file:
            while not _take_lock(file):
                if time.monotonic() > deadline:
                    raise LockError(
                        f"{self.checkpoint} is being trained by another process: wait for it or "
                        "end it"
                    )
                time.sleep(0.1)
            yield


def _share(path: Path) -> bytes:
    """Read a file in process 0, and return its content in all; empty if it cannot be read."""
    contents = [b""]
    if distributed.rank() == 0:
        with suppress(OSError):
            contents = [path.read_bytes()]
    if dist.is_initialized():
        dist.broadcast_object_list(contents)
    return contents[0]


def _take_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
