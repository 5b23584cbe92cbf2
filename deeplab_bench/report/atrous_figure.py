"""The figure of atrous convolution, after DeepLabv3's Figures 1 and 4."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deeplab_bench.analysis.atrous import compute_extent, count_valid_weights, insert_holes
from deeplab_bench.drawing import make_figure
from deeplab_bench.report.figures import COLOURS, render_figure

RATES = (1, 2, 4)
SIDE = 65  # of the feature map, as in the paper


def render() -> dict[str, bytes]:
    """Return the figure by file name; it is the same for every profile."""
    return render_figure("atrous", draw_atrous)


def draw_atrous() -> Figure:
    figure = make_figure(11, 2.9)
    *kernels, curve = figure.subplots(1, len(RATES) + 1, width_ratios=[1] * len(RATES) + [2])
    for axes, rate in zip(kernels, RATES, strict=True):
        draw_kernel(axes, rate)
    draw_valid_weights(curve)
    return figure


def draw_kernel(axes: Axes, rate: int) -> None:
    """Draw the kernel's weights dark and its holes light, on the grid of the largest kernel."""
    largest = compute_extent(3, max(RATES))
    taps = np.pad(insert_holes(np.ones((3, 3)), rate), (largest - compute_extent(3, rate)) // 2)
    spanned = np.pad(
        np.ones((compute_extent(3, rate),) * 2), (largest - compute_extent(3, rate)) // 2
    )
    axes.imshow(spanned + 2 * taps, cmap="Blues", vmin=0, vmax=4)
    edges = np.arange(largest + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(visible=False)
    axes.grid(which="minor", color="0.75")
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    size = compute_extent(3, rate)
    axes.set_title(f"rate {rate}", loc="center")
    axes.set_xlabel(f"9 weights\nover {size}x{size} px")


def draw_valid_weights(axes: Axes) -> None:
    """Draw, for each rate, the share of positions where 9, 4, 1 or other weights are valid."""
    rates = np.arange(1, SIDE + 6)
    fractions = [count_valid_weights(SIDE, int(rate)) for rate in rates]
    groups = {"9 weights": (9,), "4": (4,), "1": (1,), "2 or 6": (2, 6)}
    for (name, counts), colour in zip(groups.items(), (*COLOURS[:3], "0.6"), strict=True):
        share = [100 * sum(found.get(count, 0.0) for count in counts) for found in fractions]
        axes.plot(rates, share, "--" if len(counts) > 1 else "-", color=colour, label=name)
    axes.set_title(f"3x3 kernel on a map of {SIDE}x{SIDE}")
    axes.set(xlabel="Atrous rate", ylabel="Positions (%)\nwith so many weights on the map")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.margins(x=0.01)
