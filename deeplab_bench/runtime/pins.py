"""The pins of a process: what must be set before numpy and torch are imported.

They keep the mathematical libraries from choosing their instructions by the processor they run on,
and from sharing out sums by its number of cores. ``docs/reproducibility.md`` says what differed
without each of them.
"""

import json
import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
DETERMINISM = "DEEPLAB_BENCH_DETERMINISM"
INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # On AMD, MKL ignores every other branch than this one, which uses SSE2.
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
}
# MKL may otherwise use fewer threads than it is given.
FIXED_THREADS = {"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def list_pins(determinism: str, threads: int | None) -> dict[str, str]:
    """List the environment variables that pin a process.

    Without AVX2, instructions are not pinned: ``can_pin_instructions`` tells.
    """
    pins = {DETERMINISM: determinism}
    if threads is not None:
        pins |= FIXED_THREADS | dict.fromkeys(THREADS, str(threads))
    if determinism == "portable" and can_pin_instructions():
        pins |= INSTRUCTIONS
    return pins


def can_pin_instructions() -> bool:
    """Return whether this processor has the instructions that ``portable`` pins."""
    return platform.machine() in ("x86_64", "AMD64") and {"avx2", "fma"} <= set(
        read_cpuinfo().get("flags", "").split()
    )


def pin_process(process_file: Path) -> None:
    """Pin this process as the file of a profile's settings says; do nothing without the file.

    The stage itself then reports what is missing.
    """
    if process_file.is_file():
        process = json.loads(process_file.read_text(encoding="utf-8"))
        os.environ.update(list_pins(process["determinism"], process.get("threads")))


def find_missing_pin(determinism: str, threads: int | None) -> str | None:
    """Return the first pin, as NAME=value, that this process lacks; None if it has all."""
    pins = list_pins(determinism, threads).items()
    return next((f"{name}={v}" for name, v in pins if os.environ.get(name) != v), None)


def get_pins() -> dict[str, str | None]:
    """Return the values of all variables that can pin a process, as this process has them."""
    return {
        name: os.environ.get(name)
        for name in (DETERMINISM, *INSTRUCTIONS, *FIXED_THREADS, *THREADS)
    }


def get_determinism() -> str:
    """Return the determinism that this process was pinned for."""
    return os.environ.get(DETERMINISM, "strict")


def read_cpuinfo() -> dict[str, str]:
    """Read the properties of the first processor; empty if the system does not tell them."""
    if not CPUINFO.is_file():
        return {}
    first, _, _ = CPUINFO.read_text(encoding="utf-8").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
