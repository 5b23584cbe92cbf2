"""Findings: what the results of a profile say, a sentence each."""

from collections.abc import Sequence
from typing import Any

import networkx as nx
import pandas as pd

from deeplab_bench.report.marks import find_marks
from deeplab_bench.report.paper import build_paper
from deeplab_bench.report.phrases import count_images, count_seeds, explain_undecided, join_words
from deeplab_bench.report.receptive_field import covers_image
from deeplab_bench.report.results import Results
from deeplab_bench.report.speed_tables import format_size
from deeplab_bench.report.statistics import is_significant
from deeplab_bench.report.summaries import average_classes, summarise_miou
from deeplab_bench.report.tables import build_protocol_audit, collect_crf
from deeplab_bench.report.tradeoff import find_pareto_front


def list_findings(results: Results) -> dict[str, str]:
    """List the findings in Markdown, by what they are about.

    Decided comparisons tell the models of ``best``, ``lowest`` and ``ties`` apart. All else is as
    measured.
    """
    finders = {
        "best": find_best,
        "lowest": find_lowest,
        "ties": find_ties,
        "classes": find_classes,
        "cost": find_cost,
        "orderings": find_orderings,
        "crf": find_crf,
        "fields": find_fields,
        "audit": find_audit,
    }
    return {name: finding for name, find in finders.items() if (finding := find(results))}


def find_best(results: Results) -> str:
    miou = summarise_miou(results)
    best = str(miou["mean"].idxmax())
    top: Any = miou.loc[best]
    interval = describe_interval(top["ci95_low"], top["ci95_high"])
    brackets = f" ({interval})" if interval else ""
    finding = f"{name(results, best)} has the highest mIoU, {top['mean']:.1f} %{brackets}"
    if results.undecided_because or len(results.models) == 1:
        return f"{finding}."
    lower = [row.other for row in list_decided(results) if row.model == best]
    others = [model for model in results.models if model not in (best, *lower)]
    parts = []
    if lower:
        parts.append(f"{join(results, lower)} {'is' if len(lower) == 1 else 'are'} lower")
    if others:
        parts.append(f"{join(results, others)} cannot be told apart from it")
    return f"{finding}; {', and '.join(parts)}."


def find_lowest(results: Results) -> str:
    """Say how far the lowest model is below those that are above it by decided comparisons."""
    lowest = str(summarise_miou(results)["mean"].idxmin())
    above = sorted(
        (row for row in list_decided(results) if row.other == lowest),
        key=lambda row: row.difference,
    )
    if len(above) < 2:
        return ""
    least, most = above[0], above[-1]
    everyone = len(above) == len(results.models) - 1
    who = "Every other model is" if everyone else f"{len(above)} models are"
    return (
        f"{who} above {name(results, lowest)}, by {describe_difference(results, least)} to "
        f"{describe_difference(results, most)}."
    )


def find_ties(results: Results) -> str:
    """Name the largest groups of which no two models differ by a decided comparison."""
    if results.undecided_because:
        undecided = explain_undecided(results)
        return f"Which models differ is not tested: {undecided}." if len(results.models) > 1 else ""
    compared = results.compared
    open_pairs = compared[~is_significant(compared["p_holm"])]
    graph = nx.Graph(list(zip(open_pairs["model"], open_pairs["other"], strict=True)))
    order = list(results.models)
    groups = [sorted(group, key=order.index) for group in nx.find_cliques(graph)]
    if not groups:
        return ""
    groups.sort(key=lambda group: (-len(group), [order.index(model) for model in group]))
    listed = "; nor between ".join(join(results, group) for group in groups)
    images = count_images(results)
    return f"No difference can be told from {count_seeds(results)} and {images} between {listed}."


def find_orderings(results: Results) -> str:
    cited = build_paper(results).data
    if "ordering" not in cited or cited.empty or results.undecided_because:
        return ""
    counts = cited["ordering"].value_counts()
    verdicts = {"agrees": "agreed", "disagrees": "contradicted", "undecided": "undecided"}
    parts = [f"{counts.get(verdict, 0)} {text}" for verdict, text in verdicts.items()]
    return f"Published orderings, each tested alone: of {len(cited)}, {', '.join(parts)}."


def find_crf(results: Results) -> str:
    if not results.crf_runs:
        return ""
    data = collect_crf(results)
    last = data[data["iteration"] == data["iteration"].max()]
    gains = []
    for row in list[Any](last.itertuples()):
        interval = describe_interval(row.gain_ci95_low, row.gain_ci95_high)
        brackets = f" ({interval} over seeds alone)" if interval else ""
        gains.append(f"{name(results, row.model)} by {row.gain_mean:+.1f} points{brackets}")
    return f"The fully connected CRF changes {join_words(gains)}."


def find_fields(results: Results) -> str:
    """Count the theoretical fields that cover the image, and say how much trained models use."""
    if not results.fields:
        return ""
    halves = {run.model: run.effective.after.half_px for run in results.fields}
    least, most = min(halves, key=halves.__getitem__), max(halves, key=halves.__getitem__)
    span = f"{halves[least]} px"
    if halves[least] < halves[most]:
        span = f"{span} ({name(results, least)}) to {halves[most]} px ({name(results, most)})"
    covering, count = sum(map(covers_image, results.fields)), len(results.fields)
    if count == 1:
        who = f"{name(results, least)} {'sees' if covering else 'does not see'}"
    else:
        who = f"{'all' if covering == count else f'{covering} of'} {count} models see"
    return (
        f"In theory {who} the whole image ({format_size(results.fields[0].image_size)} px); "
        f"after training, half of the gradient lies in its middle {span}."
    )


def find_classes(results: Results) -> str:
    """Name the class on which the models differ most, with the lowest and the highest model."""
    if len(results.models) == 1:
        return ""
    means = average_classes(results, results.scores())
    spread = means.max() - means.min()
    if not spread.max() > 0:
        return ""
    widest = str(spread.idxmax())
    iou = means[widest]
    low, high = str(iou.idxmin()), str(iou.idxmax())
    return (
        f"The models differ most on the class `{widest}`: {name(results, low)} has the lowest IoU, "
        f"{iou[low]:.1f} %, {name(results, high)} the highest, {iou[high]:.1f} %."
    )


def find_cost(results: Results) -> str:
    """Name the models that no other one beats in both mIoU and latency, on the first hardware."""
    if len(results.models) == 1 or not results.speeds:
        return ""
    hardware = results.speeds[0].hardware
    means = summarise_miou(results)["mean"]
    points = {
        speed.model: (speed.trained.latency_ms.p50, float(means[speed.model]))
        for speed in results.speeds
        if speed.hardware == hardware
    }
    front = find_pareto_front(points.values())
    unbeaten = sorted((m for m in points if points[m] in front), key=points.__getitem__)
    listed = [f"{name(results, m)} ({points[m][0]:.1f} ms, {points[m][1]:.1f} %)" for m in unbeaten]
    return (
        f"On {hardware}, by median latency and mean mIoU alone, no model beats "
        f"{join_words(listed)} in both (one image of {format_size(results.speeds[0].input_size)} "
        "px)."
    )


def find_audit(results: Results) -> str:
    """Name the rule of scoring that changes the mIoU most."""
    if not results.audits:
        return ""
    data = build_protocol_audit(results).data
    changed = data[(data["variant"] != "protocol") & data["gain"].notna()]
    if changed.empty:
        return ""
    row = changed.iloc[int(changed["gain"].abs().argmax())]
    higher = "higher" if row["gain"] > 0 else "lower"
    return (
        f"By another rule of scoring, `{row['variant']}`, {name(results, row['model'])} would "
        f"score {abs(row['gain']):.1f} points {higher}."
    )


def list_decided(results: Results) -> list[Any]:
    """List the rows of the comparisons in which the first model is higher."""
    if results.undecided_because or len(results.models) == 1:
        return []
    compared = results.compared
    return list(compared[is_significant(compared["p_holm"])].itertuples())


def describe_difference(results: Results, row: Any) -> str:
    interval = describe_interval(row.ci95_low, row.ci95_high)
    return f"{row.difference:.1f} points ({name(results, str(row.model))}, {interval})"


def describe_interval(low: float, high: float) -> str:
    return f"95 % interval {low:.1f} to {high:.1f}" if pd.notna(low) else ""


def name(results: Results, model: str) -> str:
    return f"`{model}` {find_marks(results).find_symbols(model)}".strip()


def join(results: Results, models: Sequence[str]) -> str:
    return join_words([name(results, model) for model in models])
