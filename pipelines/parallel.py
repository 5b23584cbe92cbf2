"""Parallel runs of stages, one on each GPU.

With one job, or with fewer than two GPUs, plain ``dvc repro`` runs one stage after another. The
output of a parallel stage is shown when it ends.
"""

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

from tqdm import tqdm

from pipelines.dvc_runs import list_stale_runs, run_dvc
from pipelines.stages import STAGES


def reproduce(jobs: int) -> int:
    """Run all stages that are due, in parallel where possible.

    Returns the exit status of the first stage that failed, otherwise that of ``dvc repro``.
    """
    gpus = list_gpus()[:jobs] if jobs > 1 else []
    waves = sorted({stage.wave for stage in STAGES.values() if stage.wave is not None})
    for wave in waves if len(gpus) > 1 else ():
        stages = [name for name, stage in STAGES.items() if stage.wave == wave]
        status = run_side_by_side(list_stale_runs(stages), gpus)
        if status:
            return status
    return run_dvc("repro").returncode


def list_gpus() -> list[str]:
    """List the GPUs as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    import torch  # takes seconds

    return [str(index) for index in range(torch.cuda.device_count())]


def run_side_by_side(runs: Sequence[str], gpus: Sequence[str]) -> int:
    """Run stages, as many at a time as there are GPUs; stop at the first failure."""
    free: SimpleQueue[str] = SimpleQueue()
    for gpu in gpus:
        free.put(gpu)

    def reproduce(run: str) -> "subprocess.CompletedProcess[str]":
        gpu = free.get()
        try:
            return run_dvc(
                *("--wait-for-lock", "repro", "--single-item", run),
                environment={"CUDA_VISIBLE_DEVICES": gpu},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
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
