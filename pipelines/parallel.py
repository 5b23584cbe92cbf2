"""Stages side by side, a GPU each: ``python -m pipelines.parallel JOBS`` in place of ``dvc repro``.

With one job, or fewer than two GPUs, it is ``dvc repro``. What the stages print is shown as each of
them ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

from tqdm import tqdm

# Each needs those before it, and no other of its own; the rest of the pipeline is quick or has to
# have the machine for itself.
WAVES = (
    ("configure", "download"),
    ("prepare",),
    ("train",),
    ("evaluate", "infer", "crf", "audit", "receptive_field"),
)


def main(jobs: int) -> int:
    """The exit status of the first stage that failed, or of ``dvc repro`` at the end."""
    gpus = visible_gpus()[:jobs] if jobs > 1 else []
    for wave in WAVES if len(gpus) > 1 else ():
        status = side_by_side(stale(wave), gpus)
        if status:
            return status
    return subprocess.run(["dvc", "repro"]).returncode


def visible_gpus() -> list[str]:
    """As ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    import torch  # takes seconds

    return [str(index) for index in range(torch.cuda.device_count())]


def stale(stages: Collection[str]) -> list[str]:
    """The runs of these stages that are out of date, as ``train@quick-aspp-0``."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True, check=True)
    return [name for name in json.loads(status.stdout) if name.partition("@")[0] in stages]


def side_by_side(runs: Sequence[str], gpus: Sequence[str]) -> int:
    """Reproduce these alone, as many at a time as there are GPUs; the first failure ends it."""
    free: SimpleQueue[str] = SimpleQueue()
    for gpu in gpus:
        free.put(gpu)

    def reproduce(run: str) -> subprocess.CompletedProcess[str]:
        gpu = free.get()
        try:
            return subprocess.run(
                ["dvc", "--wait-for-lock", "repro", "--single-item", run],
                env=os.environ | {"CUDA_VISIBLE_DEVICES": gpu},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(len(gpus)) as pool:
        pending = [pool.submit(reproduce, run) for run in runs]
        for future in tqdm(as_completed(pending), desc="stages", total=len(runs), unit="stage"):
            done = future.result()
            tqdm.write(done.stdout)
            if done.returncode:
                pool.shutdown(cancel_futures=True)
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
