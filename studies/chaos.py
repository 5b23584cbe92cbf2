"""Accidents at random, and whether the results stay the same: ``make chaos``.

A tiny profile runs once undisturbed, in a copy of this repository. Then it runs again and again
from nothing. Each time, processes of it are killed, files are cut off, and writes fail. In the end
``repro`` runs undisturbed, and all results must have the same bytes as at first. Where Linux lets a
user mount one, all this is on a small disk in memory, which also gets full.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
COPIED = [
    *("deeplab_bench", "lists", "pipelines", "results/published.yaml", "docs/glossary.md"),
    *("dvc.yaml", "README.md"),
    *(".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"),
]
MADE = ["checkpoints", "data", "logs", "results/quick", "dvc.lock", ".dvc/cache", ".dvc/tmp"]
COMPARED = ("checkpoints/quick/*.pt", "results/quick/*/**/*.json")
NOT_COMPARED = "timings"  # times differ in every run
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
PATIENCE_SECONDS = 120.0
DISK_BYTES = 400 << 20
# Starts a command that may mount disks, which nobody else sees.
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
PARAMS = """\
run:
  profiles: [quick]
  models: [fcn, aspp]
  seeds: [0, 1]
  hardware: []
  inference: [plain]
  crf: []
  audit: []
  label_files: []

profile:
  quick:  # the profile that README.md shows
    data: {dataset: shapes, seed: 0, image_size: 48, train_images: 12, val_images: 10}
    process: {determinism: portable, threads: 1}
    model: {backbone: resnet18, width: 0.25, output_stride: 16, head_channels: 8, atrous_rates: [1]}
    training:
      iterations: 60
      batch_size: 4
      crop_size: [33, 33]
      base_lr: 0.05
      poly_power: 0.9
      momentum: 0.9
      weight_decay: 0.0001
      random_scale: [0.75, 1.5]
      horizontal_flip: true
      precision: float32

inference:
  plain: {}

models:
  fcn: {architecture: fcn, output_stride: 32}
  aspp: {architecture: aspp}
"""


class ChaosError(Exception):
    """Something that must never happen."""


@dataclass
class Playground:
    """A copy of the repository, with a tiny profile, that saves a snapshot after every step."""

    root: Path
    has_own_disk: bool
    accidents: Counter[str] = field(default_factory=Counter)

    def build(self) -> None:
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        (self.root / "results" / "notes").mkdir()
        (self.root / "params.yaml").write_text(PARAMS, encoding="utf-8")
        watch = self.root / "deeplab_bench" / "training" / "watch.py"
        text = watch.read_text(encoding="utf-8")
        changed = text.replace("SNAPSHOT_SECONDS = 120", "SNAPSHOT_SECONDS = -1")
        if changed == text:
            raise ChaosError(f"{watch} has no SNAPSHOT_SECONDS = 120")
        watch.write_text(changed, encoding="utf-8")
        subprocess.run(["git", "init", "--quiet"], cwd=self.root, check=True)

    def clear(self) -> None:
        """Remove all that a run makes."""
        for name in MADE:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def start(self, largest_file: int | None = None) -> "subprocess.Popen[bytes]":
        """Start ``repro``. With ``largest_file``, writes beyond so many bytes of a file fail."""

        def limit() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(self.root)}
        with (self.root / "repro.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "deeplab_bench", "repro", "--jobs", "2"],
                cwd=self.root,
                env=environment | {"DVC_NO_ANALYTICS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=limit,
            )

    def finish(self) -> None:
        """Run ``repro`` undisturbed."""
        status = self.start().wait()
        if status:
            tail = (self.root / "repro.log").read_text("utf-8", errors="replace")[-3000:]
            raise ChaosError(f"repro has the exit status {status}:\n{tail}")

    def list_digests(self) -> dict[str, str]:
        files = {path for pattern in COMPARED for path in self.root.glob(pattern)}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
            if NOT_COMPARED not in (name := path.relative_to(self.root).as_posix())
        }

    def kill_at_random(self, chance: random.Random, longest: float) -> None:
        """Kill a random process of a running ``repro`` after a random time."""
        driver = self.start()
        time.sleep(chance.uniform(0.05, 0.8) * longest)
        family = list_family(driver.pid)
        if driver.poll() is None and family:
            victim, number = chance.choice(family), chance.choice(SIGNALS)
            kind = "the driver" if victim.pid == driver.pid else name_process(victim)
            try:
                victim.send_signal(number)
                self.accidents[f"{number.name} of {kind}"] += 1
            except psutil.NoSuchProcess:
                pass
        self.await_end(driver, family)

    def fail_writes(self, chance: random.Random) -> None:
        """Let writes fail beyond a random size of a file, as on a full disk."""
        driver = self.start(largest_file=int(10 ** chance.uniform(3, 6.5)))
        self.accidents["writes that fail"] += 1
        self.await_end(driver, [])

    def fill_disk(self, chance: random.Random) -> None:
        """Leave so little of the disk that it gets full."""
        ballast = self.root / "ballast"
        left = int(10 ** chance.uniform(3.5, 7))
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.root).free - left)
        driver = self.start()
        self.accidents["a full disk"] += 1
        self.await_end(driver, [])
        ballast.unlink()

    def truncate_at_random(self, chance: random.Random) -> None:
        """Cut off the newest snapshot of a run, if there is one."""
        found = sorted(self.root.glob("checkpoints/quick/*.snapshot"))
        if found:
            path = chance.choice(found)
            newest = max(path.parent.glob(f"{path.name.partition('.')[0]}.*.snapshot"))
            os.truncate(newest, int(chance.random() * newest.stat().st_size))
            self.accidents["a snapshot cut off"] += 1

    def await_end(
        self, driver: "subprocess.Popen[bytes]", family: Iterable[psutil.Process]
    ) -> None:
        """Wait until all processes have ended by themselves.

        Raises:
            ChaosError: some still run after ``PATIENCE_SECONDS``; these are killed.
        """
        try:
            driver.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            family = [*family, *list_family(driver.pid)]
        _, alive = psutil.wait_procs(family, PATIENCE_SECONDS)
        for process in alive:
            process.kill()
        if alive:
            raise ChaosError(f"still running: {[name_process(process) for process in alive]}")


def can_mount() -> bool:
    """Return whether this user may mount disks that nobody else sees."""
    if shutil.which(OWN_MOUNTS[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "disk", folder]
        return subprocess.run([*OWN_MOUNTS, *mount], capture_output=True).returncode == 0


@contextmanager
def mounted(folder: str, own_disk: bool) -> Iterator[None]:
    """Mount a small disk in memory, if it is asked for."""
    if own_disk:
        options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}"]
        subprocess.run(["mount", *options, "disk", folder], check=True)
    try:
        yield
    finally:
        if own_disk:
            subprocess.run(["umount", "--lazy", folder], check=True)


def list_family(pid: int) -> list[psutil.Process]:
    """List a process and all that it has started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def name_process(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
        parent = process.parent()
        if "deeplab_bench" in words:
            return "the process of a stage"
        if "pipelines.warm" not in words:
            return next((word for word in words[2:] if not word.startswith("-")), "a process")
        is_fork = parent is not None and "pipelines.warm" in parent.cmdline()
        return "a stage in the warm process" if is_fork else "the warm process"
    except psutil.Error:
        return "a process"


def run_round(
    playground: Playground, chance: random.Random, longest: float, expected: dict[str, str]
) -> None:
    """Run from nothing with several accidents, then to the end.

    Raises:
        ChaosError: a result has other bytes than ``expected``, or processes do not end.
    """
    playground.clear()
    for _ in range(chance.randint(3, 6)):
        if playground.list_digests().keys() >= expected.keys():
            playground.clear()  # nothing is left to disturb
        if chance.random() < 0.6:
            playground.kill_at_random(chance, longest)
        elif playground.has_own_disk and chance.random() < 0.5:
            playground.fill_disk(chance)
        else:
            playground.fail_writes(chance)
        if chance.random() < 0.5:
            playground.truncate_at_random(chance)
    playground.finish()
    found = playground.list_digests()
    if found != expected:
        differ = sorted(dict(expected.items() ^ found.items()))
        raise ChaosError(f"other bytes in {', '.join(differ)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="runs from nothing (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the accidents (default: 0)")
    parser.add_argument(
        "--own-disk", action="store_true", help="mount a small disk; set without asking if possible"
    )
    given = parser.parse_args()
    if not given.own_disk and can_mount():
        again = [sys.executable, "-m", "studies.chaos", *sys.argv[1:], "--own-disk"]
        os.execvp(OWN_MOUNTS[0], [*OWN_MOUNTS, *again])
    with tempfile.TemporaryDirectory() as folder, mounted(folder, given.own_disk):
        playground = Playground(Path(folder), given.own_disk)
        playground.build()
        started = time.monotonic()
        playground.finish()
        longest = time.monotonic() - started
        expected = playground.list_digests()
        for number in tqdm(range(given.rounds), desc="chaos", unit="round"):
            chance = random.Random(f"{given.seed} {number}")
            try:
                run_round(playground, chance, longest, expected)
            except ChaosError as error:
                sys.exit(f"round {number} of --seed {given.seed}: {error}")
    for accident, times in sorted(playground.accidents.items()):
        print(f"{times:4d}  {accident}")
    total = sum(playground.accidents.values())
    print(f"{given.rounds} rounds with {total} accidents: {len(expected)} files, all equal")


if __name__ == "__main__":
    main()
