"""What a table shows and how it was measured, in sentences."""

from collections import Counter
from collections.abc import Iterable

from deeplab_bench.published import Paper, replica_spread
from deeplab_bench.report.results import CRFRun, Environment, Results


def accuracy(results: Results) -> str:
    trained = environments(timing.environment for timing in results.timings)
    return _joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}: one confusion matrix of all "
        "images, each at its own size and at one scale.",
        classes(results),
        spread(results),
        sizes(results),
        best(results),
        f"Trained on {trained}.",
    )


def per_class(results: Results) -> str:
    return _joined(
        f"IoU in percent on {images(results)}, mean of n = {seeds(results)}.",
        classes(results),
        best(results),
    )


def inference(results: Results) -> str:
    return _joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}, of the same checkpoints as "
        "the accuracy table. Gain: over one pass at the training's output stride and scale 1, "
        "paired by seed. Atrous rates follow the output stride; probabilities are averaged over "
        "scales and mirror images.",
        "Brackets: Student's t interval at 95 % over seeds." if len(results.seeds) > 1 else "",
        best(results),
    )


def speed(results: Results) -> str:
    passes = min(c.latency_ms.samples for s in results.speeds for c in s.output_strides)
    crf_machines = environments(timing.environment for timing in results.crf_timings)
    return _joined(
        "A model's first row is at the output stride of its training, the others are of the same "
        "network at other ones. Latency: the forward pass of one image, float32, from the "
        "normalised image in the device's memory to the logits at its size; median (p50), 90th and "
        f"99th percentile of at least {passes} passes after warming up, over images in turn. "
        f"Latency (reference): {reference()} over the same image, pass by pass. Images/s: the most "
        "of batches doubled in size until that is no faster, time or memory is short. Reading, "
        "copying and normalising images and the arg max of the logits are not timed. GFLOPs: one "
        "image, a multiply-add as two, convolutions and matrix products alone. Peak memory: of one "
        "image, of torch's allocator on a GPU, of the whole process on a CPU.",
        f"CRF: beyond the network, an image in one process on {crf_machines}."
        if results.crf_runs
        else "",
        best(results),
        *machines(results),
    )


def training_speed(results: Results) -> str:
    steps = min(s.training.step_ms.samples for s in results.speeds if s.training)
    return _joined(
        "Step: a batch of crops in the host's memory copied and normalised, forward pass, loss, "
        "backward pass and the optimiser's step, in the training's precision; median [quartiles] "
        "of "
        f"at least {steps} steps after warming up, over made-up batches in turn. Reading and "
        f"augmenting images is not timed. Step (reference): {reference()} over as many crops, "
        "step by step. On a CPU a batch has no more than about a million pixels. Peak memory: as "
        "above, of a step.",
        best(results),
        *machines(results),
    )


def reference() -> str:
    return (
        "the ratio, median [quartiles], to the forward pass of a fixed network, FCN-32s on "
        "torchvision's ResNet-18 in float32,"
    )


def machines(results: Results) -> Iterable[str]:
    for name in results.params.run.hardware:
        found = environments(s.environment for s in results.speeds if s.hardware == name)
        yield f"{name} is {found}."


def paper_values(results: Results, papers: Iterable[Paper]) -> str:
    several = len(results.seeds) > 1
    own = "the half of our 95 % interval over seeds and " if several else ""
    return _joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}; the difference is ours less "
        f"the published. Reproduced: it is at most {'the larger of ' if several else ''}{own}"
        f"{replica_spread():.2f}, the spread of the paper's own replicas (DeepLabv3, Table 11). "
        "Not comparable: a setting that the paper states is another here.",
        "" if several else "One seed: there is no interval.",
        sources(papers),
    )


def paper_orderings(results: Results, papers: Iterable[Paper]) -> str:
    several = len(results.seeds) > 1
    return _joined(
        f"Other data than the papers': orderings are compared, not values. mIoU of a model less "
        "that of the one next below it in the published table, in points; ours is the mean over "
        f"n = {seeds(results)}, each seed's models paired"
        + (", with Student's t at 95 %." if several else "."),
        "Undecided: the interval holds 0." if several else "One seed decides no ordering.",
        sources(papers),
    )


def sources(papers: Iterable[Paper]) -> str:
    return "; ".join(f"{p.name}: {p.title}, {p.year}, arXiv {p.arxiv}" for p in papers) + "."


def crf(results: Results) -> str:
    seconds = max(timing.seconds_per_image for timing in results.crf_timings)
    machines = environments(timing.environment for timing in results.crf_timings)
    several = len(results.seeds) > 1
    return _joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}, after each iteration of mean "
        "field; 0 is the network alone. Beyond the network: the difference in points"
        + (", mean over seeds with its 95 % interval." if several else "."),
        spread(results),
        "Within so many px of the ground truth's boundaries, those with void included: mIoU of "
        "these pixels alone.",
        f"w1, sigma_alpha, sigma_beta, w2 and sigma_gamma: {parameters(results)}.",
        "Bold: the best of a model's, whether or not the difference is significant.",
        f"Up to {seconds:.3g} s per image in one process on {machines}.",
    )


def parameters(results: Results) -> str:
    """Those of every run of the CRF, and where they are from."""
    first = results.crf_runs[0]
    if first.search is None:
        return f"{_values(first)}, as given"
    found = ", ".join(f"{r.model} (seed {r.seed}) {_values(r)}" for r in results.crf_runs)
    count = first.search.images
    return f"{found}; the first three are the best of a search on {count} training images"


def spread(results: Results) -> str:
    count = len(results.seeds)
    if count == 1:
        return "One seed: there is neither a standard deviation nor an interval."
    return (
        "± is the standard deviation over seeds, the interval Student's t at 95 % for their mean "
        f"({count - 1} degrees of freedom): it covers the randomness of training, not the choice "
        "of images."
    )


def sizes(results: Results) -> str:
    edges = results.runs[0].object_size.edges_px
    if len(edges) != 2:
        return ""
    return (
        "Small, medium, large: mIoU of the pixels nearest to objects whose area has a square root "
        f"of up to {edges[0]:.0f} px, up to {edges[1]:.0f} px, and more, a third of the objects "
        "each; scraps of less than a two-thousandth of the image are none."
    )


def classes(results: Results) -> str:
    """Which classes the means leave out."""
    runs, count = len(results.runs), len(results.runs[0].classes)
    absent = Counter(name for run in results.runs for name in run.absent_classes)
    if not absent:
        return f"All {count} classes count."
    names = ", ".join(
        name if times == runs else f"{name} ({times} of {runs} runs)"
        for name, times in sorted(absent.items())
    )
    return f"Of {count} classes those in neither ground truth nor prediction are left out: {names}."


def best(results: Results) -> str:
    several = len(results.models) > 1
    return "Bold: the best, whether or not the difference is significant." if several else ""


def images(results: Results) -> str:
    return f"{len(results.runs[0].images)} validation images"


def seeds(results: Results) -> str:
    return "1 seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"


def environments(found: Iterable[Environment]) -> str:
    """Each different one once."""
    return "; ".join(dict.fromkeys(map(_environment, found)))


def _values(run: CRFRun) -> str:
    names = ("w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma")
    return "/".join(f"{run.parameters[name]:g}" for name in names)


def _environment(found: Environment) -> str:
    versions = [f"{key} {value}" for key, value in found.items() if key != "device" and value]
    return ", ".join([str(found.get("device", "an unnamed device")), *versions])


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
