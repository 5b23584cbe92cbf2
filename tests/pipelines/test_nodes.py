"""A test of one training on two machines: two network namespaces, of which one is cut off."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from miniature import PREPARE, Repository

from deeplab_bench.runtime.pins import list_pins

PORT = 6379
HEAD, OTHER = "10.214.77.1", "10.214.77.2"
# Ray finds out within seconds that a machine is lost.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_AUTH_MODE": "disabled",
}
SWEEP = """\
import sys
from deeplab_bench.settings.sweep import load_sweep_params
from pipelines.repro import open_engine
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.node import digest_software
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.tasks import Tasks
params = load_sweep_params()
with open_engine(params, sys.argv[1], jobs=None) as engine:
    costs = RunCosts()
    sys.exit(not sweep(engine, Tasks(params, digest_software(), costs), Board(costs)))
"""


def can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"deeplab-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return made.returncode == 0


pytest.importorskip("ray")
pytestmark = [
    pytest.mark.long(seconds=110),
    pytest.mark.skipif(not can_make_namespaces(), reason="needs root and `ip netns`"),
]


class Machines:
    """Two network namespaces with an address each, joined by a cable."""

    def __init__(self, folder: Path) -> None:
        self.names = [f"deeplab-{os.getpid()}-{side}" for side in "ab"]
        self.cables = [f"dl{os.getpid() % 10**6}{side}" for side in "ab"]
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []

    def make(self) -> None:
        ip("link", "add", self.cables[0], "type", "veth", "peer", "name", self.cables[1])
        for name, cable, address in zip(self.names, self.cables, (HEAD, OTHER), strict=True):
            ip("netns", "add", name)
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", cable)
            for device in ("lo", cable):
                ip("-n", name, "link", "set", device, "up")

    def remove(self) -> None:
        for daemon in self.daemons:
            end_with_children(daemon.pid)
            daemon.wait()
        for name in self.names:
            ip("netns", "delete", name)

    def start(self, index: int, *command: str, **options: object) -> "subprocess.Popen[bytes]":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | IMPATIENT | {"PATH": path, "PYTHONPATH": str(self.folder)}
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[index], *command],
            cwd=self.folder,
            env=environment | {"GLOO_SOCKET_IFNAME": self.cables[index]},
            **options,  # type: ignore[call-overload]
        )

    def start_ray(self, index: int) -> None:
        place = ["--head", f"--port={PORT}"] if index == 0 else [f"--address={HEAD}:{PORT}"]
        address = (HEAD, OTHER)[index]
        options = [
            "--num-cpus=1",
            f"--node-ip-address={address}",
            "--block",
            "--disable-usage-stats",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.daemons.append(self.start(index, "ray", "start", *place, *options, **quiet))

    def plug(self, is_plugged: bool) -> None:
        ip("-n", self.names[1], "link", "set", self.cables[1], "up" if is_plugged else "down")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def end_with_children(pid: int) -> None:
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    made = Machines(folder)
    made.make()
    try:
        yield made
    finally:
        made.remove()


def test_a_training_on_two_machines_survives_that_one_is_cut_off(tmp_path: Path) -> None:
    expected = train_undisturbed(tmp_path / "undisturbed")
    repository = make_repository(tmp_path / "disturbed")
    repository.drop_stages("receptive_field", "report")  # they have one machine
    with machines(repository.root) as pair:
        for index in (0, 1):
            pair.start_ray(index)
        command = [sys.executable, "-c", SWEEP, f"{HEAD}:{PORT}"]
        wait_until(lambda: can_connect(pair), "Ray listens")
        driver = pair.start(0, *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        checkpoints = repository.root / "checkpoints" / "miniature"
        wait_until(lambda: list(checkpoints.glob("*.snapshot")) != [], "there is a snapshot")
        pair.plug(False)
        events = repository.root / "logs" / "sweep.jsonl"
        wait_until(lambda: '"event": "lost"' in events.read_text(), "the driver has lost it")
        pair.plug(True)
        pair.start_ray(1)
        out, err = driver.communicate()
    assert driver.returncode == 0, f"{out!r} {err!r}"
    assert (checkpoints / "fcn-0.pt").read_bytes() == expected


def make_repository(folder: Path) -> Repository:
    folder.mkdir()
    repository = Repository(folder, pins=list_pins("portable", threads=1))
    repository.edit("models: [fcn, aspp]", "models: [fcn]")
    repository.edit("hardware: [cpu]", "hardware: []")
    repository.edit("iterations: 3", "iterations: 20")
    repository.edit(
        "    data: {dataset: shapes",
        "    process: {determinism: portable, threads: 1}\n"
        "    resources: {nodes: 2}\n"
        "    data: {dataset: shapes",
    )
    repository.change("training/watch.py", "SNAPSHOT_SECONDS = 120", "SNAPSHOT_SECONDS = 0.1")
    return repository


def train_undisturbed(folder: Path) -> bytes:
    """Train with two processes on one machine, and return the checkpoint."""
    repository = make_repository(folder)
    repository.python("-c", PREPARE)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    repository.python(*launcher, "-m", "deeplab_bench", "train", "miniature", "fcn", "0")
    return (folder / "checkpoints" / "miniature" / "fcn-0.pt").read_bytes()


def can_connect(pair: Machines) -> bool:
    probe = pair.start(0, "bash", "-c", f"exec 2>/dev/null; : < /dev/tcp/{HEAD}/{PORT}")
    return probe.wait() == 0


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 1000
    while time.monotonic() < until:
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError(f"in vain: {what}")
