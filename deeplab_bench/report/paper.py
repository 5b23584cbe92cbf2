"""A profile's results beside the published ones that its models cite."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import pandas as pd

from deeplab_bench.report import captions as notes
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import Estimate, Source, estimate, over_images
from deeplab_bench.report.tables import Table, files_of, formatted, interval_text
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.published import (
    Paper,
    Published,
    in_words,
    published_value,
    replica_spread,
    same,
    value_in_words,
)
from deeplab_bench.settings.schema import Inference

# What holds for a run whose settings do not say.
UNSAID = {"split": "val", "coco": False}


class Cited(NamedTuple):
    """A model of the run, under a way of inference, and a published row that its block names."""

    model: str
    inference: str | None
    published: Published

    @property
    def crf(self) -> bool:
        """Whether the row is of predictions that the fully connected CRF has refined."""
        return self.published.settings.get("crf") is True

    @property
    def name(self) -> str:
        way = "crf" if self.crf else self.inference
        return self.model if way is None else f"{self.model}, {way}"


def render(results: Results) -> dict[str, str]:
    """The files of the table ``paper``, none if there is nothing to compare."""
    table = paper(results)
    return files_of(table, "paper", results) if len(table.data) else {}


def paper(results: Results) -> Table:
    """Values where the data are those of a paper that is cited, elsewhere orderings of its rows."""
    cited = citations(results.params)
    dataset = results.params.profile[results.profile].data.dataset
    if any(row.published.settings["dataset"] == dataset for row in cited):
        return values(results, cited)
    return orderings(results, cited)


def citations(params: Params) -> list[Cited]:
    """Those of the run, its ways of inference and its CRFs included."""
    cited = [
        Cited(model, citation.inference, published_value(citation))
        for model in params.run.models
        for citation in params.citations(model)
        if citation.inference in (None, *params.run.inference)
    ]
    return [row for row in cited if not row.crf or row.model in params.run.crf]


def values(results: Results, cited: list[Cited]) -> Table:
    data = pd.DataFrame([value_row(results, row) for row in cited])
    title = f"Published and own mIoU on the profile {results.profile}"
    return table_of(
        title, data, notes.paper_values(results, papers_of(cited)), "interval_over_seeds"
    )


def value_row(results: Results, cited: Cited) -> dict[str, Any]:
    published = cited.published
    ours = estimate(scores_of(results, cited))
    reasons = departures(settings_of(results.params, results.profile, cited), published)
    difference = ours.mean - published.value
    return {
        "model": cited.name,
        "paper": place(published),
        "row": in_words(published.cited),
        "published": published.value,
        "miou_mean": ours.mean,
        "ci95_low": ours.ci95_low,
        "ci95_high": ours.ci95_high,
        "difference": difference,
        "verdict": "not comparable" if reasons else verdict(difference, ours.ci95_high - ours.mean),
        "reason": "; ".join(reasons),
    }


def verdict(difference: float, half_interval: float) -> str:
    """Of our mean less the published value, in percent, compared as the table prints them.

    A difference within our own 95 % interval, or within the spread of the paper's replicas, is
    none; of one seed, whose interval is NaN, the latter alone counts.
    """
    own = 0.0 if math.isnan(half_interval) else half_interval
    if round(abs(difference), 2) <= round(max(own, replica_spread()), 2):
        return "reproduced"
    return "above" if difference > 0 else "below"


def settings_of(params: Params, profile: str, cited: Cited) -> dict[str, Any]:
    """Every setting of the runs by its name, where nothing is said what then holds."""
    experiment = params.experiment(profile, cited.model)
    inference = Inference() if cited.inference is None else params.inference[cited.inference]
    evaluated = {
        "eval_output_stride": experiment.arguments_for(inference).get("output_stride"),
        "multi_scale": inference.scales != (1.0,),
        "flip": inference.flip,
    }
    trained = experiment.arguments | experiment.training.model_dump()
    data = params.profile[profile].data.model_dump()
    rest = {"crf": cited.crf, "phases": len(experiment.phases)}
    return UNSAID | evaluated | data | trained | rest


def departures(ours: dict[str, Any], published: Published) -> list[str]:
    """Each setting that the paper states and we have otherwise."""
    return [
        f"{key} {value_in_words(ours[key])} instead of {value_in_words(theirs)}"
        for key, theirs in published.settings.items()
        if key in ours and not same(ours[key], theirs)
    ]


def orderings(results: Results, cited: list[Cited]) -> Table:
    pairs = neighbours(cited)
    data = pd.DataFrame([ordering_row(results, *pair) for pair in pairs])
    title = f"Orderings of published rows on the profile {results.profile}"
    return table_of(title, data, notes.paper_orderings(results, papers_of(cited)), "interval")


def neighbours(cited: list[Cited]) -> list[tuple[Cited, Cited]]:
    """In each table, every cited row and the next higher one; equal ones are no pair."""
    tables = dict.fromkeys(row.published.reference for row in cited)
    ascending = [
        sorted(
            (c for c in cited if c.published.reference == table), key=lambda c: c.published.value
        )
        for table in tables
    ]
    return [
        (higher, lower)
        for rows in ascending
        for lower, higher in pairwise(rows)
        if higher.published.value > lower.published.value
    ]


def ordering_row(results: Results, higher: Cited, lower: Cited) -> dict[str, Any]:
    difference = scores_of(results, higher) - scores_of(results, lower)
    ours = estimate(difference, *image_source(results, higher, lower))
    return {
        "paper": place(higher.published),
        "model": higher.name,
        "other": lower.name,
        "published_difference": higher.published.value - lower.published.value,
        "difference": ours.mean,
        "ci95_low": ours.ci95_low,
        "ci95_high": ours.ci95_high,
        "ordering": agreement(ours),
    }


def scores_of(results: Results, cited: Cited) -> "pd.Series[float]":
    """mIoU in percent by seed, of a CRF after its last iteration."""
    if cited.crf:
        scores = results.refined_scores()
    elif cited.inference is not None:
        scores = results.inference_scores()
        scores = scores[scores["inference"] == cited.inference]
    else:
        scores = results.scores()
    return scores[scores["model"] == cited.model].set_index("seed")["miou"]


def image_source(results: Results, higher: Cited, lower: Cited) -> list[Source]:
    """How their difference varies with the images; unknown where a CRF refines."""
    if len(results.seeds) == 1 or higher.crf or lower.crf:
        return []
    difference = resampled_of(results, higher) - resampled_of(results, lower)
    return list(over_images(difference.to_frame(), results.images).values())


def resampled_of(results: Results, cited: Cited) -> "pd.Series[float]":
    if cited.inference is None:
        return results.resampled[cited.model]
    return results.resampled_inferences[cited.inference, cited.model]


def agreement(ours: Estimate) -> str:
    """Whether the row that is the higher in the paper is so here."""
    if math.isnan(ours.ci95_low):
        return "undecided (one seed)"
    if ours.ci95_low <= 0 <= ours.ci95_high:
        return "undecided"
    return "agrees" if ours.mean > 0 else "disagrees"


def place(published: Published) -> str:
    return f"{published.paper.name}, {published.table}"


def papers_of(cited: list[Cited]) -> list[Paper]:
    return list({row.published.paper.arxiv: row.published.paper for row in cited}.values())


def table_of(title: str, data: pd.DataFrame, note: str, heading: str) -> Table:
    """Both ends of an interval in one cell, none where one seed has none."""
    text = formatted(data)
    if len(data):
        text["ci95_low"] = interval_text(text)
        text = text.drop(columns="ci95_high").rename(columns={"ci95_low": heading})
    return Table(title, data, text, pd.DataFrame(False, data.index, text.columns), note)
