"""A task on the machine that an engine has chosen for it."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from deeplab_bench.errors import TRY_AGAIN, describe_machine_error
from deeplab_bench.writing import describe_lack_of_room
from pipelines.sweep.store import Store, StoreError, digest_file, list_snapshots
from pipelines.sweep.task import Ended, Progress, Running, Task
from pipelines.warm import ADDRESS, OUT_OF_MEMORY, die_with_parent

ROOT = Path(__file__).resolve().parents[2]
LOGS = Path("logs")
POLL_SECONDS = 0.5
SHARED_SECONDS = 60.0  # NFS may hide for so long what another machine wrote
MEMORY_SECONDS = 5.0  # between measurements, which take some milliseconds
END_SECONDS = 60.0  # a training ends after its step, and saves what it has
TAIL_LINES = 20
TAIL_BYTES = 1 << 14
LOG_BYTES = 1 << 16
CODE = ("deeplab_bench", "pipelines")
LOCK = "requirements.lock"
COUNTED = ("numpy", "torch", "torchvision")  # packages that compute the results
# `title:  45%|####5     | 45/100 [00:10<00:12,  4.50step/s, loss=0.12]`, as tqdm writes it.
BAR = re.compile(
    r"\| *(?P<done>\d+)/(?P<total>\d+) \[[\d:]+<(?P<left>[\d:?]+), +[^ \],]*?"
    r"(?:(?P<unit>[a-z]+)/s|s/(?P<slow>[a-z]+))(?P<values>[^\]]*)\]"
)


def run(
    task: Task, gpus: str | None = None, should_end: Callable[[], bool] = lambda: False
) -> Iterator[Running | Ended]:
    """Run a task, and tell how far it is, until it has ended.

    ``gpus`` are those of the machine that it may use; None leaves this as it is. As soon as
    ``should_end`` says so, or the generator is closed, the task is asked to end. A training then
    saves its state.
    """
    node = socket.gethostname()
    try:
        store = open_store(task)
        problem = find_problem(task)
    except (ImportError, OSError) as error:  # the remote's library, or room on the disk
        problem = f"cannot have its files: {describe_machine_error(error) or error}"
    if problem is not None:
        yield Ended(task.name, node, None, 0.0, f"{node} {problem}", refused=True)
        return
    if store is not None:  # the driver removes old outputs in its own folder alone
        for path in task.outputs:
            (Path(task.folder) / path).unlink(missing_ok=True)
    log = get_log(task)
    started = time.monotonic()
    process = start(task, log, {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus})
    memory = Memory(process.pid)
    try:
        yield Running(task.name, node, gpus or "")
        while not has_ended(process) and not should_end():
            memory.measure()
            offer_snapshots(store, task)
            yield Running(task.name, node, gpus or "", read_progress(log))
    finally:
        end(process)
        offer_snapshots(store, task)
    files: dict[str, str] = {}
    if store is not None and process.returncode == 0:
        files = store.offer(Path(task.folder), task.outputs)
        for snapshot in list_snapshots(task):  # one of several machines has not removed its own
            snapshot.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    status = None if process.returncode == TRY_AGAIN else process.returncode
    said = describe_end(process, log, seconds)
    yield Ended(task.name, node, status, seconds, said, memory_mib=memory.most_mib, files=files)


class Memory:
    """The most memory that a process and its children have had at once, ``most_mib``.

    It is None if it was never measured: a run was too short, or it is a warm process that does the
    work.
    """

    def __init__(self, process: int) -> None:
        self.process = process
        self.most_mib: int | None = None
        self.measured_at = time.monotonic()

    def measure(self) -> None:
        """Measure, if the last time is long enough ago."""
        if ADDRESS in os.environ or time.monotonic() - self.measured_at < MEMORY_SECONDS:
            return
        self.measured_at = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process)
            processes = [parent, *parent.children(recursive=True)]
            mebibytes = sum(map(count_bytes, processes)) >> 20
            self.most_mib = max(mebibytes, self.most_mib or 0)


def count_bytes(process: psutil.Process) -> int:
    """Count the memory of a process; of what several have in common, its share."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:  # it has ended
        return 0
    return getattr(memory, "pss", memory.uss)


def open_store(task: Task) -> Store | None:
    """Open the store of a task and fetch from it what this machine lacks; None without a store."""
    if task.store is None:
        return None
    store = Store(task.store)
    store.fetch(Path(task.folder), task.shipped)
    store.fetch_snapshots(task)
    return store


def offer_snapshots(store: Store | None, task: Task) -> None:
    """Upload the snapshots of a task, if there is a store, and it answers: the task goes on."""
    if store is not None:
        with suppress(StoreError):
            store.offer_snapshots(task)


def start(task: Task, log: Path, own: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the command of a task as ``dvc repro`` does, but with its output added to a log.

    No shell is between them: it would outlive a killed parent, and its child with it.
    """
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            task.command,
            cwd=task.folder,
            env={**get_environment(task), **own},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, if it still runs; kill it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get_log(task: Task) -> Path:
    return Path(task.folder) / LOGS / f"{task.name}.log"


def get_environment(task: Task) -> dict[str, str]:
    """Return the environment of a task: it uses the Python and the code of this process."""
    code = {} if task.code is None else {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return {**put_python_first(), **code, **task.environment}


def put_python_first() -> dict[str, str]:
    """Return an environment in which programs use this Python, even if it is not activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path}


def find_problem(task: Task) -> str | None:
    """Find out why this machine cannot run a task; None if it can."""
    folder = Path(task.folder)
    if not folder.is_dir():
        return f"has no folder {folder}: mount it, or set cluster.files to a DVC remote"
    if task.code is not None and digest_software() != task.code:
        return (
            "has other code than the driver has begun with, or other versions of Python, numpy or "
            f"torch: install the driver's {LOCK} there, and begin again"
        )
    if task.is_shared:
        wait_for_files(folder, task.inputs)
    for path in task.inputs:
        if not (folder / path).exists():
            remedy = "does it see the driver's disk?" if task.is_shared else "put it there"
            return f"lacks {folder / path}: {remedy}"
    for path, digest in task.data.items():
        if digest_file(folder / path) != digest:
            return f"has other data, {folder / path}: prepare there what the driver has"
    return None


def wait_for_files(folder: Path, paths: Iterable[str]) -> None:
    """Wait until a shared disk shows this machine what another one wrote, but not for ever."""
    deadline = time.monotonic() + SHARED_SECONDS
    while missing := [path for path in paths if not (folder / path).exists()]:
        if time.monotonic() > deadline:
            return
        for path in missing:
            with suppress(OSError):  # reading a folder makes NFS ask for what is new
                list((folder / path).parent.iterdir())
        time.sleep(POLL_SECONDS)


@cache
def digest_software() -> str:
    """Compute the digest of this process's code, its lock file, and the packages that compute."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for package in COUNTED:
        digest.update(f"{package} {find_version(package)}\n".encode())
    files = [path for name in CODE for path in (ROOT / name).rglob("*.py")]
    for path in [*sorted(files), ROOT / LOCK]:
        if path.is_file():
            digest.update(f"{path.relative_to(ROOT)} {digest_file(path)}\n".encode())
    return digest.hexdigest()


def find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_progress(log: Path) -> Progress | None:
    """Read the last state of the last bar in a log; None if there is none."""
    found = None
    for found in BAR.finditer(read_end(log)):  # noqa: B007
        pass
    if found is None:
        return None
    parts = (value.partition("=") for value in found["values"].split(", ") if "=" in value)
    return Progress(
        done=int(found["done"]),
        total=int(found["total"]),
        unit=found["unit"] or found["slow"],
        seconds_left=parse_seconds(found["left"]),
        values={name.strip(): value.strip() for name, _, value in parts},
    )


def parse_seconds(clock: str) -> float | None:
    """Parse ``[hours:]minutes:seconds``; None if it is unknown."""
    if "?" in clock:
        return None
    seconds = 0.0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def describe_end(process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> str:
    """Say how a process has ended and what it wrote last; empty if it has ended well."""
    status = process.returncode
    if status == 0:
        return ""
    how = f"exited with {status}"
    if status < 0:
        hint = f" ({OUT_OF_MEMORY})" if status == -signal.SIGKILL else ""
        how = f"was ended by {signal.Signals(-status).name}{hint}"
    said = f"{how} after {seconds:.1f} s. The end of {LOGS / log.name}:"
    lack = describe_lack_of_room(log.parent, LOG_BYTES)  # then the log says nothing
    return "\n".join([said, *filter(None, [*read_tail(log), lack])])


def read_tail(log: Path) -> list[str]:
    """Read the last lines of a log; of a progress bar, which writes over itself, the last state."""
    lines = read_end(log).rstrip().split("\n")
    return [line.rpartition("\r")[2] for line in lines[-TAIL_LINES:]]


def read_end(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return file.read().decode(errors="replace")
