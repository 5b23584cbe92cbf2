"""Figures of accuracy over cost: latency, FLOPs and memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from deeplab_bench.drawing import make_figure
from deeplab_bench.report import phrases
from deeplab_bench.report.figures import (
    choose_look,
    count_legend_columns,
    explain_marks,
    render_figure,
)
from deeplab_bench.report.marks import Marks, find_marks
from deeplab_bench.report.results import Results
from deeplab_bench.report.speed_tables import format_size
from deeplab_bench.report.summaries import summarise_miou
from deeplab_bench.results.records import Cost, SpeedRecord

MOST_LABELS = 5  # beside their points; the names of more models are in a legend
# Positions of a label: offset to the right and up in points, then its alignment.
POSITIONS = (
    (7, 0, "left", "center"),
    (7, 7, "left", "bottom"),
    (7, -7, "left", "top"),
    (-7, 0, "right", "center"),
    (-7, 7, "right", "bottom"),
    (-7, -7, "right", "top"),
    (7, 18, "left", "bottom"),
    (7, -18, "left", "top"),
    (-7, 18, "right", "bottom"),
    (-7, -18, "right", "top"),
)


@dataclass(frozen=True)
class Expense:
    """A kind of cost: the horizontal axis of a figure.

    ``range_of`` returns the positions of the symbol and of the end of the horizontal line. ``line``
    explains both. On a CPU, the memory is that of the whole process, which hardly depends on the
    model: it is drawn for GPUs alone.
    """

    key: str
    name: str
    label: str
    range_of: Callable[[Cost], tuple[float, float]]
    line: str = ""
    depends_on_hardware: bool = True
    on_gpus_alone: bool = False

    def list_hardware(self, results: Results) -> list[str]:
        """List the hardware that has a panel."""
        hardware = results.params.run.hardware
        if self.on_gpus_alone:
            return [name for name in hardware if not name.startswith("cpu")]
        return list(hardware if self.depends_on_hardware else hardware[:1])


EXPENSES = (
    Expense(
        "latency",
        "latency",
        "Latency of one image (ms)",
        lambda cost: (cost.latency_ms.p50, cost.latency_ms.p90),
        "symbol: median · horizontal line: to the 90th percentile",
    ),
    Expense(
        "flops",
        "FLOPs",
        "GFLOPs of one image",
        lambda cost: (cost.flops / 1e9,) * 2,
        depends_on_hardware=False,
    ),
    Expense(
        "memory",
        "memory",
        "Peak memory (MiB)",
        lambda cost: (cost.peak_memory_mib,) * 2,
        on_gpus_alone=True,
    ),
)


def render(results: Results) -> dict[str, bytes]:
    """Return a figure for each kind of cost by file name; an empty dict if nothing was timed."""
    files: dict[str, bytes] = {}
    for expense in list_expenses(results):
        files |= render_figure(expense.key, partial(draw_tradeoff, results, expense))
    return files


def list_expenses(results: Results) -> list[Expense]:
    """List the kinds of cost that have a figure."""
    return [expense for expense in EXPENSES if results.speeds and expense.list_hardware(results)]


def draw_tradeoff(results: Results, expense: Expense) -> Figure:
    """Draw mIoU against the cost, with a panel for each hardware if the cost depends on it."""
    hardware = expense.list_hardware(results)
    summary, marks = summarise_miou(results), find_marks(results)
    many = len(results.models) > MOST_LABELS
    columns = count_legend_columns(results) if many else 0
    figure = make_figure(1.6 + 3.8 * len(hardware) + 1.9 * columns, 5.4 if columns > 1 else 4.2)
    panels = figure.subplots(1, len(hardware), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, hardware, strict=True):
        speeds = {speed.model: speed for speed in results.speeds if speed.hardware == name}
        costs = {model: expense.range_of(speed.trained) for model, speed in speeds.items()}
        draw_points(axes, results, summary, costs, marks)
        axes.set_title(title_panel(name, speeds, expense), weight="normal")
    panels[0].set_ylabel("mIoU (%)")
    figure.suptitle(f"{results.profile}: accuracy and {expense.name}", ha="left", x=0.01)
    figure.supxlabel(label_cost(results, expense) + explain_marks(marks), fontsize=9)
    if many:
        figure.legend(handles=list_points(panels[0]), loc="outside right upper", ncols=columns)
        return figure
    figure.draw_without_rendering()
    for axes in panels:
        place_labels(axes)
    return figure


def list_points(axes: Axes) -> list[Line2D]:
    """List the points, which have labels, from the highest mIoU to the lowest."""
    points = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    return sorted(points, key=lambda point: -np.asarray(point.get_ydata())[0])


def title_panel(hardware: str, speeds: Mapping[str, SpeedRecord], expense: Expense) -> str:
    size = format_size(next(iter(speeds.values())).input_size)
    return f"{hardware}, {size} px" if expense.depends_on_hardware else f"{size} px"


def label_cost(results: Results, expense: Expense) -> str:
    over = phrases.describe_scope(results)
    vertical = f"vertical line: 95 % interval over {over}" if over else ""
    front = "dashed line: highest mIoU at this cost or less"
    return "\n".join(filter(None, (expense.label, expense.line, vertical, front)))


def draw_points(
    axes: Axes,
    results: Results,
    summary: pd.DataFrame,
    costs: Mapping[str, tuple[float, float]],
    marks: Marks,
) -> None:
    for model, (cost, highest) in costs.items():
        colour, marker, _ = choose_look(results, model)
        row, label = summary.loc[model], marks.add_to(model)
        axes.plot([cost] * 2, [row["ci95_low"], row["ci95_high"]], color=colour, lw=1.4)
        axes.plot([cost, highest], [row["mean"]] * 2, color=colour, lw=1.4)
        axes.plot(cost, row["mean"], marker, color=colour, ms=7, mec="white", mew=0.8, label=label)
    means = summary["mean"].to_dict()
    points = [(cost, means[model]) for model, (cost, _) in costs.items()]
    draw_front(axes, find_pareto_front(points), max(cost for cost, _ in points))
    axes.margins(x=0.2, y=0.1)


def draw_front(axes: Axes, front: Sequence[tuple[float, float]], most: float) -> None:
    """Draw steps up to the cost ``most``. Each is its own line; labels can go between them."""
    style: dict[str, Any] = {"color": "0.55", "ls": "--", "lw": 1, "zorder": 1.5}
    for (cost, score), (next_cost, next_score) in pairwise([*front, (most, front[-1][1])]):
        axes.plot([cost, next_cost], [score] * 2, **style)
        axes.plot([next_cost] * 2, [score, next_score], **style)


def find_pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Find the points (cost, score) that are better than every cheaper point, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def place_labels(axes: Axes) -> None:
    """Write each point's label beside it, where it covers least. The figure must be drawn."""
    taken = [line.get_window_extent().padded(1) for line in axes.lines]
    for point in list_points(axes):
        x, y = np.asarray(point.get_xydata())[0]
        label = axes.annotate(
            str(point.get_label()), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=8
        )
        best = min(
            POSITIONS, key=lambda position: count_covered(move(label, position), taken, axes)
        )
        taken.append(move(label, best))


def move(label: Annotation, position: tuple[int, int, str, str]) -> Bbox:
    right, up, side, level = position
    label.xyann = (right, up)
    label.set(ha=side, va=level)
    return label.get_window_extent()


def count_covered(box: Bbox, taken: list[Bbox], axes: Axes) -> int:
    """Count the points and labels that a box covers; outside the axes it counts 100 more."""
    inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
    return int(box.count_overlaps(taken)) + (0 if inside else 100)
