"""What every benchmark has in common: contenders that take turns, ratios, a table.

A benchmark is a function from ``Settings`` to ``Benchmark``; ``benchmarks.__main__`` lists them.
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
from deeplab_bench.report.captions import Caption, environments
from deeplab_bench.report.formats import Table, format_csv, format_markdown
from deeplab_bench.report.results import write
from deeplab_bench.results.files import RESULTS
from deeplab_bench.timing.rounds import Work, fingerprint, in_rounds, quantiles, ratios

LEAST_ROUNDS = 5
OURS = "deeplab-bench"
HEADINGS = {
    "contender": "Contender",
    "p50_ms": "Time (ms)",
    "ratio": "Ratio",
    "rounds": "Rounds",
    "gflop": "GFLOP",
    "arithmetic_ms": "Arithmetic alone (ms)",
    "traffic_mb": "Traffic (MB)",
    "transfer_ms": "Transfer alone (ms)",
}


class MissingPeer(UserError):
    """A package to compare with is not installed; the rows of it are left out."""


@dataclass(frozen=True)
class Settings:
    """The size of the work: square crops or images of ``crop`` px, ``batch`` of them a step.

    ``folder`` is for files that a benchmark needs while it runs.
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
class Contender:
    """Work whose FLOPs and least bytes moved through memory are known where they are not None.

    ``precision``: of its arithmetic.
    """

    work: Work
    flops: int | None = None
    traffic_bytes: int | None = None
    precision: torch.dtype = torch.float32


@dataclass(frozen=True)
class Benchmark:
    """The same work by several contenders, ours first; each is made when it is called for."""

    name: str
    note: str
    contenders: Mapping[str, Callable[[], Contender]]


@dataclass(frozen=True)
class Rates:
    """What the device reaches in large matrix products, by their precision, and a large copy."""

    flops_per_second: Mapping[torch.dtype, float]
    bytes_per_second: float


def peer(module: str) -> Any:
    """
    Raises:
        MissingPeer: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPeer(
            f"the rows of {module} are left out, {error}: run `pip install -e '.[bench]'`"
        ) from None


def present(benchmark: Benchmark) -> tuple[dict[str, Contender], list[str]]:
    """The contenders there are, and a line for each that is missing."""
    found, missing = {}, []
    for name, make in benchmark.contenders.items():
        try:
            found[name] = make()
        except MissingPeer as error:
            missing.append(str(error))
    return found, list(dict.fromkeys(missing))


def compare(benchmark: Benchmark, settings: Settings) -> Table:
    contenders, missing = present(benchmark)
    for line in missing:
        print(line)
    times = in_rounds(
        {name: contender.work for name, contender in contenders.items()},
        settings.device,
        seconds=settings.seconds,
        least=LEAST_ROUNDS,
        title=benchmark.name,
    )
    rates = measured_rates(settings.device, {each.precision for each in contenders.values()})
    rows = [
        row_of(name, contender, times[name], times[OURS], rates)
        for name, contender in contenders.items()
    ]
    data = pd.DataFrame(rows).dropna(axis="columns", how="all")
    return table_of(benchmark, data, settings.device, missing)


def row_of(
    name: str, contender: Contender, times: list[float], ours: list[float], rates: Rates
) -> dict[str, Any]:
    ratio = ratios(times, ours)
    flops, traffic = (
        math.nan if value is None else float(value)
        for value in (contender.flops, contender.traffic_bytes)
    )
    return {
        "contender": name,
        "p50_ms": 1000 * quantiles(times, 50)["p50"],
        "ratio": ratio["p50"],
        "ratio_p25": ratio["p25"],
        "ratio_p75": ratio["p75"],
        "rounds": len(times),
        "gflop": flops / 1e9,
        "arithmetic_ms": 1000 * flops / rates.flops_per_second[contender.precision],
        "traffic_mb": traffic / 1e6,
        "transfer_ms": 1000 * traffic / rates.bytes_per_second,
    }


def table_of(
    benchmark: Benchmark, data: pd.DataFrame, device: torch.device, missing: list[str]
) -> Table:
    text = data.astype(str)
    for column in data.select_dtypes("float"):
        text[column] = [f"{x:.3f}" if pd.notna(x) else "" for x in data[column]]
    text["ratio"] += " [" + text["ratio_p25"] + ", " + text["ratio_p75"] + "]"
    text = text.drop(columns=["ratio_p25", "ratio_p75"]).rename(columns=HEADINGS)
    floors = (
        "Arithmetic and transfer alone: the floating-point operations over the rate of a large "
        "matrix product here, the least bytes over the bandwidth of a large copy; no version can "
        "be faster than the larger."
        if {"gflop", "traffic_mb"} & set(data)
        else ""
    )
    sentences = (
        benchmark.note,
        f"Ratio: of the time to that of {OURS}, median [quartiles] over rounds in which all take "
        "their turn; more than 1 is slower than ours.",
        floors,
        *(f"{line}." for line in missing),
        f"Measured on {environments([fingerprint(device)])}.",
    )
    best = pd.DataFrame(False, index=text.index, columns=text.columns)
    caption = Caption(" ".join(filter(None, sentences)))
    return Table(benchmark.name, data, text, best, caption)


def measured_rates(device: torch.device, precisions: Iterable[torch.dtype]) -> Rates:
    """The best of some products and copies that are large for the device."""
    side = 8192 if device.type == "cuda" else 1024
    flops_per_second = {}
    for precision in precisions:
        left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
        flops_per_second[precision] = 2 * side**3 / best(partial(torch.mm, left, right), device)
    source = torch.randn(side * side * 4, device=device)
    target = torch.empty_like(source)
    seconds = best(partial(target.copy_, source), device)
    return Rates(flops_per_second, 2 * source.nbytes / seconds)


def best(work: Work, device: torch.device) -> float:
    """The least seconds of some rounds."""
    title = "rates of the device"
    times = in_rounds({title: work}, device, seconds=0, least=LEAST_ROUNDS, title=title)
    return min(times[title])


def save(table: Table, hardware: str) -> Path:
    """Write ``results/benchmarks/<hardware>/<benchmark>`` as CSV and Markdown: the latter."""
    path = RESULTS / "benchmarks" / hardware / f"{table.title}.md"
    write(path.with_suffix(".csv"), format_csv(table.data).encode())
    write(path, f"# {table.title}\n\n{format_markdown(table)}".encode())
    return path
