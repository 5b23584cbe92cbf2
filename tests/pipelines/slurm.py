"""A cluster of Slurm with two pretended machines, all on this one."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CONFIGURATION = """\
ClusterName=pretended
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
JobRequeue=1
KillWait=5
MessageTimeout=100
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
NodeName=n1 NodeHostname=localhost Port={ports[1]} CPUs=2 RealMemory=1000 Gres=gpu:1
NodeName=n2 NodeHostname=localhost Port={ports[2]} CPUs=2 RealMemory=1000 Gres=gpu:1
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""
DAEMONS = ("munged", "slurmctld", "slurmd")
START_SECONDS = 300


class NotInstalledError(Exception):
    """Slurm is not installed here."""


class SlurmError(Exception):
    """Slurm does not start; the message says why."""


class Machines:
    """The pretended machines, ``n1`` and ``n2``: the process that listens on each."""

    def __init__(self, folder: Path, program: str, stack: ExitStack) -> None:
        self.folder, self.program, self.stack = folder, program, stack
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a machine, which ends with the cluster."""
        context = daemon(self.folder, self.program, "-D", "-N", name)
        self.processes[name] = self.stack.enter_context(context)

    def lose(self, name: str) -> None:
        """Switch a machine off, so that Slurm notices at once."""
        self.processes[name].kill()
        self.processes[name].wait()
        change = ["scontrol", "update", f"nodename={name}", "state=down", "reason=lost"]
        subprocess.run(change, check=True)


@contextmanager
def pretend_slurm(folder: Path) -> Iterator[Machines]:
    """Run Slurm during the block; this process and its children then use it.

    Raises:
        NotInstalledError: it is not installed.
        SlurmError: it does not start.
    """
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    daemons = [shutil.which(name, path=path) for name in DAEMONS]
    if None in daemons:
        raise NotInstalledError(f"{DAEMONS[daemons.index(None)]} is not installed")
    munged, controller, program = map(str, daemons)
    (folder / "state").mkdir()
    configuration = folder / "slurm.conf"
    ports, user = find_free_ports(3), pwd.getpwuid(os.geteuid()).pw_name
    text = CONFIGURATION.format(folder=folder, ports=ports, user=user)
    configuration.write_text(text, encoding="utf-8")
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n", encoding="utf-8")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(configuration)
    with ExitStack() as stack:
        stack.callback(restore, "SLURM_CONF", before)
        files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        files |= {"seed-file": "munged.seed", "key-file": "munge.key"}
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        stack.enter_context(daemon(folder, munged, "--foreground", "--force", *options))
        wait_for(["munge", "--no-input", f"--socket={folder / 'munge.socket'}"])
        stack.enter_context(daemon(folder, controller, "-D"))
        machines = Machines(folder, program, stack)
        for name in ("n1", "n2"):
            machines.start(name)
        wait_for(["srun", "--nodes=2", "--immediate=1", "true"])
        yield machines


@contextmanager
def daemon(folder: Path, *command: str) -> "Iterator[subprocess.Popen[bytes]]":
    with (folder / "daemons.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(command: list[str]) -> None:
    """Wait until a command succeeds."""
    deadline = time.monotonic() + START_SECONDS
    while (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        if time.monotonic() > deadline:
            raise SlurmError(f"{command[0]} fails: {done.stderr.strip()}")
        time.sleep(0.2)


def find_free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def restore(variable: str, value: str | None) -> None:
    if value is None:
        del os.environ[variable]
    else:
        os.environ[variable] = value
