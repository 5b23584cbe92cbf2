"""Interactive charts of accuracy over cost, with the name of each model beside its point."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import NDArray

from deeplab_bench.report.results import Results
from deeplab_bench.report.summaries import summarise_miou
from deeplab_bench.report.tradeoff import Expense
from deeplab_bench.report.web.figures import GREY, OUTLINE, colours, finish, label, make_error

Positions = NDArray[np.float64]
MOST_NAMES = 14  # of more models, a name is shown when its point is touched
# Where a name may stand beside its point: to the right or left, and above or below.
SIDES = {
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "bottom right": (1, -1),
    "top left": (-1, 1),
    "bottom left": (-1, -1),
}
LETTER, LINE = 0.009, 0.06  # the size of a letter of a name, as shares of the axes


def draw_tradeoff(results: Results, expense: Expense, hardware: str) -> Markup:
    """Draw mIoU with its interval over a cost on a hardware, with the models' names."""
    speeds = [speed for speed in results.speeds if speed.hardware == hardware]
    models = [speed.model for speed in speeds]
    summary = summarise_miou(results).loc[models]
    cost, highest = np.transpose([expense.range_of(speed.trained) for speed in speeds])
    names = label(results, models)
    reach = [cost.min() - 0.1 * np.ptp(highest), highest.max() + 0.1 * np.ptp(highest)]
    figure = go.Figure(
        go.Scatter(
            x=cost,
            y=summary["mean"],
            mode="markers+text" if len(models) <= MOST_NAMES else "markers",
            marker={"color": colours(results, models), "size": 13, "line": OUTLINE},
            error_x={
                "type": "data",
                "array": highest - cost,
                "arrayminus": 0 * cost,
                "color": GREY,
                "width": 0,
            },
            error_y=make_error(summary["mean"], summary),
            text=[f" {name} " for name in names],
            textposition=place_names(names, cost, highest, summary),
            cliponaxis=False,
            hovertext=names,
            hovertemplate="%{hovertext}: %{x:.3g}, %{y:.1f} %<extra></extra>",
        )
    )
    title = expense.label + (f", {hardware}" if expense.depends_on_hardware else "")
    return finish(
        figure,
        f"{expense.key}-{hardware}",
        440,
        least_width=720,
        xaxis={"title": title, "range": reach if reach[0] < reach[1] else None},
        yaxis={"title": "mIoU (%)"},
    )


def place_names(
    names: Sequence[str], cost: Positions, highest: Positions, summary: pd.DataFrame
) -> list[str]:
    """Choose the side of each point on which its name covers least of lines and other names.

    All positions are shares of the axes.
    """
    span = 1.2 * (highest.max() - cost.min()) or 1.0
    x, reach = (cost - cost.min()) / span, (highest - cost) / 2 / span
    mean = summary["mean"]
    low, high = (summary[end].fillna(mean) for end in ("ci95_low", "ci95_high"))
    height = 1.1 * (high.max() - low.min()) or 1.0
    y, bars = (mean - low.min()) / height, (high - low) / 2 / height + 0.02
    points = list(zip(x, y, strict=True))
    taken = [(u, v, 0.01, half) for (u, v), half in zip(points, bars, strict=True)]
    taken += [(u + half, v, half, 0.01) for (u, v), half in zip(points, reach, strict=True)]
    chosen = []
    for name, (u, v) in zip(names, points, strict=True):
        width = LETTER * (len(name) + 2) / 2
        boxes = {
            side: (u + right * (0.01 + width), v + up * LINE, width, LINE / 2)
            for side, (right, up) in SIDES.items()
        }
        best = min(boxes, key=lambda side: sum(overlap(boxes[side], each) for each in taken))
        taken.append(boxes[best])
        chosen.append(best)
    return chosen


def overlap(first: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two boxes overlap: centre, and half of the sides."""
    near = [abs(first[axis] - other[axis]) < first[axis + 2] + other[axis + 2] for axis in (0, 1)]
    return all(near)
