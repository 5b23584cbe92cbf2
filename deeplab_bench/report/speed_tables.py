"""Tables of the models' costs: speed of inference and of training."""

import math
from collections.abc import Collection

import pandas as pd

from deeplab_bench.report import captions
from deeplab_bench.report.captions import Caption
from deeplab_bench.report.formats import (
    SHOWN_DECIMALS,
    Table,
    find_best,
    format_cells,
    put_in_brackets,
    render_formats,
)
from deeplab_bench.report.results import Results
from deeplab_bench.results.records import Cost, Quartiles, SpeedRecord


def render(results: Results) -> dict[str, str]:
    """Return the tables by file name; an empty dict if nothing was timed."""
    files: dict[str, str] = {}
    if results.speeds:
        files |= render_formats(build_speed(results), "speed", results)
    if any(speed.training for speed in results.speeds):
        files |= render_formats(build_training_speed(results), "training_speed", results)
    return files


def build_speed(results: Results) -> Table:
    """Build a row for each model and output stride.

    Throughput and seconds of the CRF are those of the first row, at the training's output stride.
    """
    crf_seconds = average_crf_seconds(results)
    rows = [
        describe_cost(speed, cost, crf_seconds)
        for speed in results.speeds
        for cost in speed.output_strides
    ]
    data = pd.DataFrame(rows)
    if not crf_seconds:
        data = data.drop(columns="crf_seconds")
    title = f"Speed of inference on the profile {results.profile}"
    return build_table(title, data, ["latency_relative"], captions.describe_speed(results))


def describe_cost(
    speed: SpeedRecord, cost: Cost, crf_seconds: dict[str, float]
) -> dict[str, str | float]:
    is_trained = cost is speed.trained
    return {
        "model": speed.model,
        "hardware": speed.hardware,
        "input": format_size(speed.input_size),
        "output_stride": str(cost.output_stride or ""),
        "params_m": cost.parameters / 1e6,
        "gflops": cost.flops / 1e9,
        "latency_p50_ms": cost.latency_ms.p50,
        "latency_p90_ms": cost.latency_ms.p90,
        **name_quartiles("latency_relative", cost.relative_latency),
        "images_per_second": max(speed.images_per_second.values()) if is_trained else math.nan,
        "batch_size": find_best_batch(speed) if is_trained else "",
        "peak_memory_mib": cost.peak_memory_mib,
        "crf_seconds": crf_seconds.get(speed.model, math.nan) if is_trained else math.nan,
    }


def build_training_speed(results: Results) -> Table:
    rows = [
        {
            "model": speed.model,
            "hardware": speed.hardware,
            "crop": format_size(training.crop_size),
            "batch_size": str(training.batch_size),
            "precision": training.precision,
            **name_quartiles("step_ms", training.step_ms),
            **name_quartiles("step_relative", training.relative_step),
            "images_per_second": training.images_per_second,
            "peak_memory_mib": training.peak_memory_mib,
        }
        for speed in results.speeds
        if (training := speed.training) is not None
    ]
    title = f"Speed of training on the profile {results.profile}"
    caption = captions.describe_training_speed(results)
    return build_table(title, pd.DataFrame(rows), ["step_ms", "step_relative"], caption)


def build_table(
    title: str, data: pd.DataFrame, with_quartiles: Collection[str], caption: Caption
) -> Table:
    """Put the quartiles of some columns in brackets, and find the best per hardware."""
    text = format_cells(data, SHOWN_DECIMALS)
    for column in with_quartiles:
        text = put_in_brackets(text, column, f"{column}_p25", f"{column}_p75")
    groups = [part for _, part in data.groupby("hardware", sort=False)]
    best = pd.concat([find_best(part, text.columns) for part in groups])
    return Table(title, data, text, best, caption)


def name_quartiles(name: str, found: Quartiles) -> dict[str, float]:
    return {name: found.p50, f"{name}_p25": found.p25, f"{name}_p75": found.p75}


def average_crf_seconds(results: Results) -> dict[str, float]:
    """Average the CRF's seconds per image over seeds, by model."""
    runs = zip(results.crf_runs, results.crf_timings, strict=True)
    rows = [{"model": run.model, "seconds": timing.seconds_per_image} for run, timing in runs]
    frame = pd.DataFrame(rows, columns=["model", "seconds"])
    return {
        str(model): seconds for model, seconds in frame.groupby("model")["seconds"].mean().items()
    }


def format_size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def find_best_batch(speed: SpeedRecord) -> str:
    """Find the batch size with the highest throughput."""
    return max(speed.images_per_second, key=speed.images_per_second.__getitem__)
