"""Shared parts of all benchmarks: the timing of several implementations, and the table.

A benchmark is a function from ``Workload`` to ``Benchmark``. ``benchmarks.__main__`` lists them.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from deeplab_bench.errors import UserError
from deeplab_bench.report.captions import Caption
from deeplab_bench.report.formats import (
    Table,
    format_cells,
    format_csv,
    format_markdown,
    mark_none,
    put_in_brackets,
)
from deeplab_bench.report.phrases import describe_environments, join_sentences
from deeplab_bench.results.files import RESULTS
from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.timing.rounds import Work, compute_quantiles, compute_ratios, time_in_rounds
from deeplab_bench.writing import write_bytes

MIN_ROUNDS = 5
OURS = "deeplab-bench"
HEADINGS = {
    "implementation": "Implementation",
    "p50_ms": "Time (ms)",
    "ratio": "Ratio",
    "rounds": "Rounds",
    "gflop": "GFLOP",
    "arithmetic_ms": "Arithmetic alone (ms)",
    "traffic_mb": "Traffic (MB)",
    "transfer_ms": "Transfer alone (ms)",
}


class MissingPeer(UserError):
    """A library to compare with is not installed. Its rows are left out."""


@dataclass(frozen=True)
class Workload:
    """The size of the work: ``batch`` square images or crops of ``crop`` px per step.

    ``seconds`` is the time for one benchmark. ``folder`` is for temporary files.
    """

    device: torch.device
    crop: int
    batch: int
    seconds: float
    folder: Path

    @property
    def size(self) -> tuple[int, int]:
        return self.crop, self.crop


@dataclass(frozen=True)
class Implementation:
    """Work to time, with its FLOPs and the least bytes it must move; None means unknown.

    ``precision`` is the number format of most of the arithmetic.
    """

    work: Work
    flops: int | None = None
    traffic_bytes: int | None = None
    precision: torch.dtype = torch.float32


@dataclass(frozen=True)
class Benchmark:
    """Several implementations of the same work, ours first. Each is built only when needed."""

    name: str
    note: str
    implementations: Mapping[str, Callable[[], Implementation]]


@dataclass(frozen=True)
class Rates:
    """The speed of the device in large matrix products, by precision, and in a large copy."""

    flops_per_second: Mapping[torch.dtype, float]
    bytes_per_second: float


def import_peer(module: str) -> Any:
    """Import a library to compare with.

    Raises:
        MissingPeer: the library is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPeer(
            f"The rows of {module} are left out, because it cannot be imported ({error}): "
            "run `pip install -e '.[bench]'`"
        ) from None


def build_implementations(benchmark: Benchmark) -> tuple[dict[str, Implementation], list[str]]:
    """Build the implementations that are installed; return a message for each missing library."""
    found, missing = {}, []
    for name, build in benchmark.implementations.items():
        try:
            found[name] = build()
        except MissingPeer as error:
            missing.append(str(error))
    return found, list(dict.fromkeys(missing))


def compare(benchmark: Benchmark, workload: Workload) -> Table:
    """Time all implementations of a benchmark in turn and make its table."""
    implementations, missing = build_implementations(benchmark)
    for message in missing:
        print(message)
    times = time_in_rounds(
        {name: implementation.work for name, implementation in implementations.items()},
        workload.device,
        seconds=workload.seconds,
        min_rounds=MIN_ROUNDS,
        title=benchmark.name,
    )
    rates = measure_rates(workload.device, {each.precision for each in implementations.values()})
    rows = [
        make_row(name, implementation, times[name], times[OURS], rates)
        for name, implementation in implementations.items()
    ]
    data = pd.DataFrame(rows).dropna(axis="columns", how="all")
    return make_table(benchmark, data, workload.device, missing)


def make_row(
    name: str, implementation: Implementation, times: list[float], ours: list[float], rates: Rates
) -> dict[str, Any]:
    ratio = compute_ratios(times, ours)
    flops, traffic = (
        math.nan if value is None else float(value)
        for value in (implementation.flops, implementation.traffic_bytes)
    )
    return {
        "implementation": name,
        "p50_ms": 1000 * compute_quantiles(times, 50)["p50"],
        "ratio": ratio["p50"],
        "ratio_p25": ratio["p25"],
        "ratio_p75": ratio["p75"],
        "rounds": len(times),
        "gflop": flops / 1e9,
        "arithmetic_ms": 1000 * flops / rates.flops_per_second[implementation.precision],
        "traffic_mb": traffic / 1e6,
        "transfer_ms": 1000 * traffic / rates.bytes_per_second,
    }


def make_table(
    benchmark: Benchmark, data: pd.DataFrame, device: torch.device, missing: list[str]
) -> Table:
    text = put_in_brackets(
        format_cells(data, dict.fromkeys(data.columns, 3)), "ratio", "ratio_p25", "ratio_p75"
    )
    text = text.rename(columns=HEADINGS)
    sentences = (
        benchmark.note,
        f"Ratio: time divided by the time of {OURS} in the same round; median [quartiles] over "
        "all rounds. Above 1 is slower.",
        "Arithmetic alone: about the least time, the FLOPs at the speed of a large matrix product "
        "on this machine."
        if "gflop" in data
        else "",
        "Traffic: the least bytes that must be moved. Transfer alone: about the least time, the "
        "traffic at the speed of a large copy on this machine."
        if "traffic_mb" in data
        else "",
        *(f"{message}." for message in missing),
        f"Measured on {describe_environments([describe_environment(device)])}.",
    )
    caption = Caption(join_sentences(*sentences))
    return Table(benchmark.name, data, text, mark_none(data, text.columns), caption)


def measure_rates(device: torch.device, precisions: Iterable[torch.dtype]) -> Rates:
    """Measure the best speed of a few large matrix products and copies."""
    side = 8192 if device.type == "cuda" else 1024
    flops_per_second = {}
    for precision in precisions:
        left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
        seconds = time_fastest(partial(torch.mm, left, right), device)
        flops_per_second[precision] = 2 * side**3 / seconds
    source = torch.randn(side * side * 4, device=device)
    target = torch.empty_like(source)
    seconds = time_fastest(partial(target.copy_, source), device)
    return Rates(flops_per_second, 2 * source.nbytes / seconds)


def time_fastest(work: Work, device: torch.device) -> float:
    """Time a few rounds and return the seconds of the fastest."""
    title = "speed of the device"
    times = time_in_rounds({title: work}, device, seconds=0, min_rounds=MIN_ROUNDS, title=title)
    return min(times[title])


def write_table(table: Table, hardware: str) -> Path:
    """Write ``results/benchmarks/<hardware>/<benchmark>`` as CSV and Markdown.

    Returns the path of the Markdown file.
    """
    path = RESULTS / "benchmarks" / hardware / f"{table.title}.md"
    write_bytes(path.with_suffix(".csv"), format_csv(table.data).encode())
    write_bytes(path, f"# {table.title}\n\n{format_markdown(table)}".encode())
    return path
