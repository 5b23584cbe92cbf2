"""A warm process, which saves stages their start-up time.

Every stage needs some seconds to import torch. The warm process imports everything once. When
``dvc repro`` starts the process of a stage, this process sends its arguments and its terminal to
the warm process, and waits. The warm process forks, and the fork runs the stage. A stage runs by
itself if there is no warm process, if a source file has changed since the import, if the warm
process has other pins, or under ``torchrun``.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from deeplab_bench.runtime.pins import get_pins
from pipelines.stages import STAGES

ADDRESS = "DEEPLAB_BENCH_WARM"
OUT_OF_MEMORY = "if nobody did that, memory ran out: run fewer stages side by side (JOBS=1)"
GPUS = "CUDA_VISIBLE_DEVICES"
TORCHRUN = "TORCHELASTIC_RUN_ID"  # a process of several, with an environment of its own
ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1
ACCEPTED = b"\0"
MOST_BYTES = 1 << 16


def delegate(command: Sequence[str]) -> int | None:
    """Ask the warm process to run a stage; return its exit status, or None if nothing ran."""
    address = os.environ.get(ADDRESS)
    if not address or not command or not can_fork(command[0]) or TORCHRUN in os.environ:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        request = {
            "command": list(command),
            "folder": str(Path.cwd()),
            "sources": list_sources(),
            "gpus": os.environ.get(GPUS),
            "pins": get_pins(),
        }
        try:
            connection.connect(address)
            socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
            if connection.recv(1) != ACCEPTED:
                return None
        except OSError:
            return None
        status = connection.recv(1)
    if not status:
        print(f"error: the stage was killed; {OUT_OF_MEMORY}", file=sys.stderr)
    return status[0] if status else 1


def can_fork(command: str) -> bool:
    """Return whether this is a stage that needs no process of its own."""
    return command in STAGES and not STAGES[command].cold


def die_with_parent() -> None:
    """Ask Linux to terminate this process when its parent is killed.

    Otherwise the stage of a killed ``dvc repro`` continues, and the next ``dvc repro`` starts it a
    second time.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def list_sources() -> list[list[Any]]:
    """List the source files with their modification times, to detect edits after the import."""
    files = [
        path for name in ("deeplab_bench", "pipelines") for path in (ROOT / name).rglob("*.py")
    ]
    return sorted([str(path), path.stat().st_mtime_ns] for path in files)


def serve(listener: socket.socket) -> int:
    """Fork for every request. Only the fork returns, with its stage's exit status."""
    die_with_parent()
    imported = list_sources()
    for stage in STAGES:
        import_module(f"pipelines.{stage}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        message, terminal, _, _ = socket.recv_fds(connection, MOST_BYTES, 3)
        request = json.loads(message) if message else {}
        fits = request.get("sources") == imported and request.get("pins") == get_pins()
        if fits and os.fork() == 0:
            listener.close()
            return work(request, terminal, connection)
        for descriptor in terminal:
            os.close(descriptor)
        connection.close()


def work(request: Any, terminal: Sequence[int], connection: socket.socket) -> int:
    """Run the stage in place of the requesting process, and send it the exit status."""
    from deeplab_bench.command_line import run

    connection.send(ACCEPTED)
    become(request, terminal, connection)
    status = 1
    try:
        status = run(request["command"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status]))
    return status


def become(request: Any, terminal: Sequence[int], connection: socket.socket) -> None:
    """Take over terminal, folder and GPUs of the requesting process, and end when it ends."""
    for own, given in enumerate(terminal):
        os.dup2(given, own)
        os.close(given)
    os.chdir(request["folder"])
    if request["gpus"] is not None:
        os.environ[GPUS] = request["gpus"]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def end_with_asker(*_: Any) -> None:
        if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGIO, end_with_asker)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, os.O_ASYNC)
    die_with_parent()


@contextmanager
def warm_process(pins: Mapping[str, str], root: Path = ROOT) -> Iterator[None]:
    """Run a warm process during the block, for the stages that the block starts.

    It has the code of the repository at ``root``. It is a new Python, since ``pins`` must be set
    before numpy and torch are imported.
    """
    folder = tempfile.mkdtemp()
    address = str(Path(folder) / "socket")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    server = subprocess.Popen(
        [sys.executable, "-m", "pipelines.warm", str(listener.fileno())],
        cwd=root,
        env=os.environ | pins,
        pass_fds=[listener.fileno()],
        preexec_fn=ignore_interrupts,
    )
    listener.close()
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        del os.environ[ADDRESS]
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C, which ends the stages; the warm process ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
