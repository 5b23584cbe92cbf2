"""The table that puts a profile's results beside the published rows that its models cite."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deeplab_bench.report import captions
from deeplab_bench.report.captions import Caption
from deeplab_bench.report.formats import (
    Table,
    format_cells,
    join_interval,
    mark_none,
    render_formats,
)
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import (
    Source,
    compute_margin_of_error,
    compute_seed_variance,
    estimate,
    estimate_over_images,
    pool_seed_variance,
)
from deeplab_bench.settings.inference import Inference
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.published import (
    Paper,
    Published,
    describe_settings,
    describe_value,
    find_published,
    is_same,
)

# The values of settings that a run's own settings do not have.
ALWAYS = {"coco": False}


class Cited(NamedTuple):
    """A model, its way of inference (None: the plain one), and the published row it cites."""

    model: str
    inference: str | None
    published: Published

    @property
    def crf(self) -> bool:
        """True if the fully connected CRF has refined the row's predictions."""
        return self.published.settings.get("crf") is True

    @property
    def name(self) -> str:
        way = "crf" if self.crf else self.inference
        return self.model if way is None else f"{self.model}, {way}"


def render(results: Results) -> dict[str, str]:
    """Return the table's files by name; an empty dict if there is nothing to compare."""
    table = build_paper(results)
    return render_formats(table, "paper", results) if len(table.data) else {}


def build_paper(results: Results) -> Table:
    """Compare values if a cited paper uses the same data, else the order of its rows."""
    cited = find_cited(results.params)
    data = results.params.profile[results.profile].data
    same = [row for row in cited if row.published.settings["dataset"] == data.dataset]
    if same and data.is_as_published():
        return build_values(results, cited)
    return build_orderings(results, cited)


def find_cited(params: Params) -> list[Cited]:
    """Return the cited rows whose model, way of inference and CRF are part of the run."""
    cited = [
        Cited(model, citation.inference, find_published(citation))
        for model in params.run.models
        for citation in params.citations(model)
        if citation.inference in (None, *params.run.inference)
    ]
    return [row for row in cited if not row.crf or row.model in params.run.crf]


def build_values(results: Results, cited: list[Cited]) -> Table:
    data = pd.DataFrame([compare_value(results, row) for row in cited])
    title = f"Published and own mIoU on the profile {results.profile}"
    caption = captions.describe_paper_values(results, list_papers(cited))
    return build_table(title, data, caption, "interval_over_seeds")


def compare_value(results: Results, cited: Cited) -> dict[str, Any]:
    published = cited.published
    ours = estimate(select_scores(results, cited))
    reasons = find_differences(collect_settings(results.params, results.profile, cited), published)
    if cited.model in results.trained_on_val:
        reasons.append("trained on val")
    difference = ours.mean - published.value
    return {
        "model": cited.name,
        "paper": name_place(published),
        "row": describe_settings(published.cited),
        "published": published.value,
        "miou_mean": ours.mean,
        "ci95_low": ours.ci95_low,
        "ci95_high": ours.ci95_high,
        "difference": difference,
        "verdict": (
            "not comparable" if reasons else judge_value(difference, results.prediction_margin)
        ),
        "reason": "; ".join(reasons),
    }


def judge_value(difference: float, margin: float) -> str:
    """Judge our mean minus the published value, in percent, rounded as the table prints it.

    The published value is the score of one run. A difference within ``margin``, that of the 95 %
    prediction interval of one new run, counts as none. With one seed the margin is NaN.
    """
    if math.isnan(margin):
        return "one seed"
    if round(abs(difference), 2) <= round(margin, 2):
        return "reproduced"
    return "above" if difference > 0 else "below"


def collect_settings(params: Params, profile: str, cited: Cited) -> dict[str, Any]:
    """Return every setting of the cited model's runs by name, defaults included."""
    experiment = params.experiment(profile, cited.model)
    inference = Inference() if cited.inference is None else params.inference[cited.inference]
    evaluated = {
        "eval_output_stride": experiment.arguments_at(inference.output_stride).get("output_stride"),
        "multi_scale": inference.scales != (1.0,),
        "flip": inference.flip,
    }
    trained = experiment.arguments | experiment.training.model_dump()
    data = params.profile[profile].data.model_dump()
    data["split"] = data.get("val_split", "val")
    rest = {"crf": cited.crf, "phases": len(experiment.phases)}
    return ALWAYS | evaluated | data | trained | rest


def find_differences(ours: dict[str, Any], published: Published) -> list[str]:
    """Return, in words, each setting that the paper states and that differs here."""
    return [
        f"{key} {describe_value(ours[key])} instead of {describe_value(theirs)}"
        for key, theirs in published.settings.items()
        if key in ours and not is_same(ours[key], theirs)
    ]


def build_orderings(results: Results, cited: list[Cited]) -> Table:
    data = pd.DataFrame([compare_pair(results, *pair) for pair in find_neighbours(cited)])
    title = f"Orderings of published rows on the profile {results.profile}"
    orderings = list(data["ordering"]) if len(data) else []
    caption = captions.describe_paper_orderings(results, list_papers(cited), orderings)
    return build_table(title, data, caption, "interval")


def find_neighbours(cited: list[Cited]) -> list[tuple[Cited, Cited]]:
    """Pair each cited row of a series with the next higher one, if their scores differ."""
    all_series = dict.fromkeys(row.published.series for row in cited)
    ascending = [
        sorted((c for c in cited if c.published.series == series), key=lambda c: c.published.value)
        for series in all_series
    ]
    return [
        (higher, lower)
        for rows in ascending
        for lower, higher in pairwise(rows)
        if higher.published.value > lower.published.value
    ]


def compare_pair(results: Results, higher: Cited, lower: Cited) -> dict[str, Any]:
    """Compare two cited rows of a table, on the same seeds and images.

    The variance of seeds is that of the differences if both rows are of one network. Otherwise it
    is pooled over all models, as in the comparisons of every two models.
    """
    difference = select_scores(results, higher) - select_scores(results, lower)
    images = estimate_image_variance(results, higher, lower)
    if higher.model == lower.model:
        own = compute_seed_variance(np.asarray(difference, dtype=np.float64))
        # All on the seeds' few degrees of freedom: their variance may be too small by chance.
        total = own.variance + sum(source.variance for source in images)
        margin = compute_margin_of_error(Source(total, own.freedom))
    else:
        margin = compute_margin_of_error(pool_seed_variance(results.miou_by_seed), *images)
    mean = float(difference.mean())
    return {
        "paper": name_places(higher.published, lower.published),
        "model": higher.name,
        "other": lower.name,
        "published_difference": higher.published.value - lower.published.value,
        "difference": mean,
        "ci95_low": mean - margin,
        "ci95_high": mean + margin,
        "ordering": judge_ordering(mean, margin, results.undecided_because),
    }


def select_scores(results: Results, cited: Cited) -> "pd.Series[float]":
    """Return the mIoU in percent by seed; for a CRF, after its last iteration."""
    if cited.crf:
        scores = results.refined_scores()
    elif cited.inference is not None:
        scores = results.inference_scores()
        scores = scores[scores["inference"] == cited.inference]
    else:
        scores = results.scores()
    return scores[scores["model"] == cited.model].set_index("seed")["miou"]


def estimate_image_variance(results: Results, higher: Cited, lower: Cited) -> list[Source]:
    """Estimate the variance that images add to the difference; return nothing for a CRF."""
    if len(results.seeds) == 1 or higher.crf or lower.crf:
        return []
    difference = select_resampled(results, higher) - select_resampled(results, lower)
    return list(estimate_over_images(difference.to_frame(), results.group_count).values())


def select_resampled(results: Results, cited: Cited) -> "pd.Series[float]":
    if cited.inference is None:
        return results.resampled[cited.model]
    return results.resampled_inferences[cited.inference, cited.model]


def judge_ordering(difference: float, margin: float, undecided_because: str) -> str:
    """Judge whether our runs have the paper's order."""
    if undecided_because:
        return f"undecided ({undecided_because})"
    if abs(difference) <= margin:
        return "undecided"
    return "agrees" if difference > 0 else "disagrees"


def name_place(published: Published) -> str:
    return f"{published.paper.name}, {published.table}"


def name_places(higher: Published, lower: Published) -> str:
    """Name the tables of two rows of one paper."""
    tables = dict.fromkeys([higher.table, lower.table])
    return f"{higher.paper.name}, {' and '.join(tables)}"


def list_papers(cited: list[Cited]) -> list[Paper]:
    return list({row.published.paper.arxiv: row.published.paper for row in cited}.values())


def build_table(title: str, data: pd.DataFrame, caption: Caption, heading: str) -> Table:
    """Build a table with the interval in one cell, which is empty for one seed."""
    text = format_cells(data)
    if len(data):
        text = join_interval(text, heading)
    return Table(title, data, text, mark_none(data, text.columns), caption)
