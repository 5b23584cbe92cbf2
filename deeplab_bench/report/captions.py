"""Captions of tables and figures: short, with links to the terms they need.

The terms are defined once, in ``docs/glossary.md``. A caption repeats only numbers that depend on
the data.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deeplab_bench.report.phrases import (
    count_curve_images,
    count_images,
    count_models,
    count_seeds,
    describe_absent_classes,
    describe_boundary_band,
    describe_brackets,
    describe_data,
    describe_deviation,
    describe_environments,
    describe_interval,
    describe_interval_over_seeds,
    describe_models_of_others,
    describe_resamples,
    describe_scope,
    describe_sizes,
    explain_undecided,
    is_grouped,
    join_sentences,
    list_commits,
    make_sentence,
)
from deeplab_bench.report.results import LABEL_FILES, Results
from deeplab_bench.results.records import CRFRecord
from deeplab_bench.settings.published import Paper

GLOSSARY = "docs/glossary.md"
# The stages whose values a table shows. Those without a record of times have no record of their
# commit: that of their checkpoints stands for it.
STAGES = {
    **dict.fromkeys(("per_class", "object_size", "boundaries"), ("train", "evaluate", LABEL_FILES)),
    **dict.fromkeys(("comparisons", "context_radius", "inference"), ("train", "evaluate")),
    "accuracy": ("train", "evaluate", "speed", LABEL_FILES),
    "paper": ("train", "evaluate", "crf"),
    "crf": ("train", "crf"),
    "speed": ("speed", "crf"),
    "training_speed": ("speed",),
    "protocol_audit": ("train", LABEL_FILES),
    "receptive_field": ("train",),
    "label_files": ("train", "evaluate", LABEL_FILES),
}


class Caption(NamedTuple):
    """A text, and the headings of the glossary that explain its terms.

    ``short`` takes the text's place in LaTeX, where tables have fewer columns.
    """

    text: str
    terms: tuple[str, ...] = ()
    short: str = ""

    @property
    def on_paper(self) -> tuple[str, str]:
        """The first sentence and the others, for LaTeX, where there are no links."""
        first, _, others = (self.short or self.text).partition(". ")
        return f"{first.removesuffix('.')}.", others

    def add(self, *sentences: str) -> "Caption":
        """Add sentences at the end."""
        short = join_sentences(self.short, *sentences) if self.short else ""
        return Caption(join_sentences(self.text, *sentences), self.terms, short)

    def format_markdown(self, root: str) -> str:
        """Return the caption with links; ``root`` leads to the repository's root: ``../../``."""
        if not self.terms:
            return self.text
        links = (f"[{term}]({root}{GLOSSARY}#{make_anchor(term)})" for term in self.terms)
        return f"{self.text}\n\nTerms: {', '.join(links)}."


def make_anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def describe_accuracy(results: Results) -> Caption:
    several = len(results.models) > 1
    ranks = (
        "in brackets: ranks not excluded by the pairwise tests (Holm, about 95 % jointly)"
        if several and not results.undecided_because
        else ""
    )
    gflops = (
        f"GFLOPs are of one image of {'x'.join(map(str, results.speeds[0].input_size))} px"
        if results.speeds
        else ""
    )
    first = (
        f"mIoU in percent {describe_data(results)}{describe_deviation(results)}; "
        f"{describe_interval(results)}."
    )
    last = join_sentences(
        describe_absent_classes(results),
        describe_models_of_others(results),
        f"Trained on {describe_environments(timing.environment for timing in results.timings)}.",
    )
    warning = results.data.warn()
    second = make_sentence(ranks, describe_sizes(results), gflops, warning)
    text = join_sentences(first, second, last)
    short = join_sentences(first, make_sentence(ranks, warning), last)
    order = (*(("Rank",) if several else ()), *list_bold(results))
    costs = ("Output stride", "GFLOPs") if results.speeds else ("Output stride",)
    terms = ("mIoU", *costs, *list_interval(results), *order, "Pixel accuracy", "Object size")
    return Caption(text, terms, short)


def describe_per_class(results: Results) -> Caption:
    text = join_sentences(
        f"IoU of each class in percent {describe_data(results)}, mean over seeds.",
        describe_absent_classes(results),
        describe_models_of_others(results),
    )
    return Caption(text, ("mIoU", *list_bold(results)))


def describe_inference(results: Results) -> Caption:
    scope = describe_scope(results)
    brackets = f"; in brackets: 95 % interval over {scope}" if scope else ""
    text = join_sentences(
        f"mIoU in percent by way of inference {describe_data(results)}, of the checkpoints of the "
        f"accuracy table{brackets}.",
        "Gain: points more than one pass at the training's output stride and scale 1.",
    )
    return Caption(text, ("Way of inference", "Gain", *list_interval(results), *list_bold(results)))


def describe_speed(results: Results) -> Caption:
    passes = min(c.latency_ms.samples for s in results.speeds for c in s.output_strides)
    crf_machines = describe_environments(timing.environment for timing in results.crf_timings)
    text = join_sentences(
        f"Cost of one image, n ≥ {passes} timed forward passes of {count_models(results)}.",
        "The first row of a model is at the output stride of its training, the others at other "
        "output strides.",
        *describe_hardware(results),
        f"CRF: one process on {crf_machines}." if results.crf_runs else "",
    )
    crf = ("Fully connected CRF",) if results.crf_runs else ()
    terms = ("Latency", "Reference network", "Throughput", "GFLOPs", "Peak memory", *crf)
    return Caption(text, terms + list_bold(results))


def describe_training_speed(results: Results) -> Caption:
    steps = min(s.training.step_ms.samples for s in results.speeds if s.training)
    text = join_sentences(
        f"Cost of one training step: median [quartiles], n ≥ {steps} timed steps of "
        f"{count_models(results)}.",
        describe_smaller_batches(results),
        *describe_hardware(results),
    )
    terms = ("Training step", "Reference network", "Throughput", "Peak memory")
    return Caption(text, terms + list_bold(results))


def describe_smaller_batches(results: Results) -> str:
    """Say in a sentence that training has larger batches than those that are timed, if it has."""
    timed = {s.model: s.training.batch_size for s in results.speeds if s.training is not None}
    phases = {m: results.params.experiment(results.profile, m).phases[0] for m in timed}
    larger = {
        phase.training.batch_size
        for model, phase in phases.items()
        if phase.training.batch_size > timed[model]
    }
    if not larger:
        return ""
    crops = " or ".join(map(str, sorted(larger)))
    return f"On a CPU a timed batch has at most about a million pixels; training has {crops} crops."


def describe_paper_values(results: Results, papers: Iterable[Paper]) -> Caption:
    text = join_sentences(
        f"mIoU in percent {describe_data(results)}; difference: our mean minus the published "
        "value.",
        f"Reproduced: within {results.prediction_margin:.2f} points, the 95 % prediction interval "
        "of one new run; the variance of the seeds is pooled over all models."
        if len(results.seeds) > 1
        else "One seed gives no verdict.",
        cite_papers(papers),
    )
    return Caption(text, ("Reproduced", "Not comparable", "Interval over seeds"))


def describe_paper_orderings(
    results: Results, papers: Iterable[Paper], orderings: Sequence[str]
) -> Caption:
    scope = describe_scope(results)
    if len(results.seeds) == 1:
        interval = "one seed decides no ordering"
    else:
        crf = ", with a CRF over seeds alone" if results.params.run.crf else ""
        interval = f"95 % interval over {scope}{crf}"
    text = join_sentences(
        f"Neighbouring published rows: difference of mIoU in points "
        f"{describe_data(results)}, paired by seed; {interval}.",
        "The data are not the papers', so only the order is compared, not the values: "
        f"{count_orderings(orderings)}.",
        cite_papers(papers),
    )
    return Caption(text, ("Ordering", "Paired", *list_interval(results)))


def count_orderings(orderings: Sequence[str]) -> str:
    """Count the published orderings that agree with ours, contradict them, and neither."""
    agreed, contradicted = orderings.count("agrees"), orderings.count("disagrees")
    undecided = len(orderings) - agreed - contradicted
    return (
        f"of the published orderings, {agreed} of {len(orderings)} agreed, "
        f"{contradicted} contradicted, {undecided} undecided"
    )


def describe_crf(results: Results) -> Caption:
    seconds = max(timing.seconds_per_image for timing in results.crf_timings)
    machines = describe_environments(timing.environment for timing in results.crf_timings)
    text = join_sentences(
        f"mIoU in percent {describe_data(results)}{describe_deviation(results)}, after each "
        "iteration of the fully connected CRF; 0 is the network alone; "
        f"{describe_interval_over_seeds(results)}.",
        f"{describe_boundary_band(results.crf_runs[0].distance_share)}; w1/sigma_alpha/sigma_beta/"
        f"w2/sigma_gamma: {describe_parameters(results)}.",
        f"Up to {seconds:.3g} s per image in one process on {machines}.",
    )
    terms = ("Fully connected CRF", "CRF parameters", "Gain", "Interval over seeds")
    return Caption(text, (*terms, "Trimap", "Boundary IoU", *list_bold(results)))


def describe_receptive_field(results: Results) -> Caption:
    first = results.fields[0]
    height, width = first.image_size
    text = join_sentences(
        f"Receptive field of the middle pixel of {height}x{width} px, theoretical and effective "
        f"(n = {first.images} {results.data.scored_split} images, seed {first.seed}), before and "
        "after training.",
        f"Effective: pixels whose gradient is more than {100 * first.effective.threshold:.2f} % of "
        "the largest; half: the square with half of the gradient, "
        f"{min(height, width) / 2**0.5:.0f} px if it were even.",
    )
    terms = ("Theoretical receptive field", "Effective receptive field", "Half of the gradient")
    return Caption(text, terms)


def describe_object_size(results: Results) -> Caption:
    text = join_sentences(
        f"mIoU in percent by object size {describe_data(results)}{describe_brackets(results)}.",
        make_sentence(describe_sizes(results)),
        describe_models_of_others(results),
    )
    return Caption(text, ("Object size", "Interval over seeds", *list_bold(results)))


def describe_boundaries(results: Results) -> Caption:
    text = join_sentences(
        f"mIoU in percent {describe_data(results)}{describe_deviation(results)}, of all pixels and "
        f"within some px of a boundary; {describe_interval(results)}.",
        f"{describe_boundary_band(results.runs[0].boundaries.distance_share)}.",
        describe_models_of_others(results),
    )
    return Caption(text, ("Trimap", "Boundary IoU", *list_interval(results), *list_bold(results)))


def describe_context_radius(results: Results) -> Caption:
    scores, run = results.radius_scores(), results.runs[0]
    radii = run.context_radius
    assert radii is not None
    shown = scores.loc[(scores["model"] == run.model) & (scores["seed"] == run.seed), "pixels"]
    text = join_sentences(
        f"Accuracy of the {shown.sum()} pixels of objects and clutter {describe_data(results)}, by "
        "context radius r in percent, mean over seeds.",
        f"Not shown: the ground (r = 0; {radii.total[0]} pixels) and {radii.total[-1]} pixels with "
        f"r over {radii.largest_px[-1]}.",
    )
    return Caption(text, ("Context radius", "Effective receptive field", *list_bold(results)))


def describe_learning_curves(results: Results) -> Caption | None:
    """Describe the validation in the figure of the training; return None if there is none."""
    if not results.curves:
        return None
    text = join_sentences(
        f"While a network is trained, it is validated on {count_curve_images(results)}, evenly "
        "picked; at the end, on all of them.",
        "Nothing is chosen by these curves.",
    )
    return Caption(text, ("Learning curves",))


def describe_atrous() -> Caption:
    text = join_sentences(
        "Left: a 3x3 kernel at three atrous rates (DeepLabv3, Figure 1).",
        "Right: the share of positions at which so many of its weights fall on the feature map, "
        "not on padding (DeepLabv3, Figure 4).",
    )
    return Caption(text, ("Atrous convolution",))


def describe_protocol_audit(results: Results) -> Caption:
    crops = {"x".join(map(str, each.crop_size)) for each in results.audits}
    text = join_sentences(
        "Rescores each checkpoint with the scoring variants found in published code: mIoU in "
        f"percent {describe_data(results)}, gain in points{describe_brackets(results)}.",
        f"The training's crop, which two variants use, is {min(crops)} px." if crops else "",
        describe_models_of_others(results),
    )
    return Caption(text, ("Scoring variants", "Gain", "Interval over seeds"))


def describe_comparisons(results: Results) -> Caption:
    pairs = len(results.compared)
    together = "the one pair" if pairs == 1 else f"all {pairs} pairs together"
    first = (
        f"Difference of mIoU in points between two models {describe_data(results)}, on the same "
        f"images; {describe_interval(results)}."
    )
    pooled = "the variance of the seeds is pooled over all models" if len(results.seeds) > 1 else ""
    if undecided := explain_undecided(results):
        tests = shown_on_paper = f"no p and no verdict, because {undecided}"
    else:
        tests = f"interval and p are for one pair, p (Holm) is for {together}"
        shown_on_paper = f"the interval is for one pair, p (Holm) is for {together}"
    text, short = (
        join_sentences(first, make_sentence(each, pooled)) for each in (tests, shown_on_paper)
    )
    return Caption(text, ("Pooled", *list_interval(results), "p", "Higher and undecided"), short)


def describe_label_files(results: Results) -> Caption:
    scopes = {
        f"images ({describe_resamples(results)})": results.group_count > 1,
        f"the {count_seeds(results)} of our model, pooled over all our models": len(results.seeds)
        > 1,
    }
    covered = " and ".join(scope for scope, known in scopes.items() if known)
    left_out = "the other network" if len(results.seeds) > 1 else "both networks"
    text = join_sentences(
        "mIoU of the label files minus the mean of our model in points, on the same "
        f"{count_images(results)}.",
        f"95 % interval over {covered}, for one pair; it leaves out the seeds of {left_out}."
        if covered
        else "No interval: one seed and one group of images.",
        describe_models_of_others(results),
    )
    return Caption(text, ("Pooled", *list_interval(results)))


def describe_hardware(results: Results) -> Iterable[str]:
    """Yield a sentence for each label of the column ``Hardware``."""
    for name in results.params.run.hardware:
        found = describe_environments(s.environment for s in results.speeds if s.hardware == name)
        yield f"{name}: {found}."


def describe_parameters(results: Results) -> str:
    """Describe the CRF's parameters of every run, and how they were found."""
    first = results.crf_runs[0]
    if first.search is None:
        return f"{_format_parameters(first)}, as given"
    found = ", ".join(
        f"{r.model} (seed {r.seed}) {_format_parameters(r)}" for r in results.crf_runs
    )
    return f"{found}, the first three searched on {first.search.images} training images"


def cite_papers(papers: Iterable[Paper]) -> str:
    return "; ".join(f"{p.name}: {p.title}, {p.year}, arXiv {p.arxiv}" for p in papers) + "."


def list_interval(results: Results) -> tuple[str, ...]:
    """Return the terms of an interval over seeds and images."""
    return ("Interval", "Groups of images") if is_grouped(results) else ("Interval",)


def list_bold(results: Results) -> tuple[str, ...]:
    """Return the term ``Bold`` if the table has bold cells."""
    return ("Bold",) if len(results.models) + len(results.label_files) > 1 else ()


def describe_commits(table: str, results: Results) -> str:
    """Name the commits at which the values of a table were made."""
    stages = STAGES[table]
    verb = "Trained" if set(stages) <= {"train", LABEL_FILES} else "Made"
    return f"{verb} at {list_commits(results.find_sources(stages))}."


def _format_parameters(run: CRFRecord) -> str:
    names = ("w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma")
    return "/".join(f"{run.parameters[name]:g}" for name in names)
