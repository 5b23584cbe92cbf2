"""What a table shows and how it was measured, in sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping

from deeplab_bench.report.plausibility import MARK
from deeplab_bench.report.results import CRFRun, Environment, Results
from deeplab_bench.report.statistics import RESAMPLES
from deeplab_bench.settings.published import Paper, replica_spread


def accuracy(results: Results) -> str:
    trained = environments(timing.environment for timing in results.timings)
    return joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}: one confusion matrix of all "
        "images, each at its own size and at one scale.",
        classes(results),
        deviation(results),
        interval(results),
        ranks(results),
        sizes(results),
        best(results),
        f"Trained on {trained}.",
    )


def per_class(results: Results) -> str:
    return joined(
        f"IoU in percent on {images(results)}, mean of n = {seeds(results)}.",
        classes(results),
        best(results),
    )


def inference(results: Results) -> str:
    return joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}, of the same checkpoints as "
        "the accuracy table. Gain: over one pass at the training's output stride and scale 1, "
        "paired by seed. Atrous rates follow the output stride; probabilities are averaged over "
        "scales and mirror images.",
        f"Brackets: 95 % interval over {varied(results)}." if varied(results) else "",
        best(results),
    )


def speed(results: Results) -> str:
    passes = min(c.latency_ms.samples for s in results.speeds for c in s.output_strides)
    crf_machines = environments(timing.environment for timing in results.crf_timings)
    return joined(
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
    return joined(
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
    own = "the half of our Student's t interval at 95 % over seeds and " if several else ""
    return joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}; the difference is ours less "
        f"the published. Reproduced: it is at most {'the larger of ' if several else ''}{own}"
        f"{replica_spread():.2f}, the spread of the paper's own replicas (DeepLabv3, Table 11). "
        "Not comparable: a setting that the paper states is another here. The images are the "
        "paper's, so that the interval is over seeds alone.",
        "" if several else "One seed: there is no interval.",
        sources(papers),
    )


def paper_orderings(results: Results, papers: Iterable[Paper]) -> str:
    several = len(results.seeds) > 1
    return joined(
        f"Other data than the papers': orderings are compared, not values. mIoU of a model less "
        "that of the one next below it in the published table, in points; ours is the mean over "
        f"n = {seeds(results)}, each seed's models paired"
        + (f", with their 95 % interval over {varied(results)}" if several else "")
        + (", of a CRF over seeds alone." if several and results.params.run.crf else "."),
        "Undecided: the interval holds 0." if several else "One seed decides no ordering.",
        sources(papers),
    )


def sources(papers: Iterable[Paper]) -> str:
    return "; ".join(f"{p.name}: {p.title}, {p.year}, arXiv {p.arxiv}" for p in papers) + "."


def crf(results: Results) -> str:
    seconds = max(timing.seconds_per_image for timing in results.crf_timings)
    machines = environments(timing.environment for timing in results.crf_timings)
    several = len(results.seeds) > 1
    return joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}, after each iteration of mean "
        "field; 0 is the network alone. Beyond the network: the difference in points"
        + (", mean over seeds with its interval." if several else "."),
        deviation(results),
        interval_over_seeds(results),
        near_boundaries(results.crf_runs[0].distance_share),
        f"w1, sigma_alpha, sigma_beta, w2 and sigma_gamma: {parameters(results)}.",
        "Bold: the best of a model's, whether or not the difference is significant.",
        f"Up to {seconds:.3g} s per image in one process on {machines}.",
    )


def receptive_field(results: Results) -> str:
    first = results.fields[0]
    height, width = first.image_size
    return joined(
        "Theoretical: the side of the square of pixels that a position of the network's own map "
        "can depend on; it is the whole image where it grows with it, as under global pooling. "
        "Stride: that of the map. Seen: what of "
        f"{height}x{width} px the logit of the middle pixel can depend on. Effective: gradient of "
        "the highest logit at the middle pixel with respect to the image, in absolute value, "
        f"summed over colours, mean of n = {first.images} validation images, for seed "
        f"{first.seed}, before and after training, batch normalisation as in inference; the size "
        "is the square root of the number of pixels, the share theirs, that have "
        f"more than {100 * first.effective.threshold:.2f} % of the largest (Luo et al., "
        "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks, NIPS "
        "2016). Half: the side of the smallest square around the middle that has half of the "
        f"gradient; were it even over the image, {min(height, width) / 2**0.5:.0f} px. "
        "Figure: squares are centred on the pixel; colours are the root of the gradient, up "
        "to the largest of a map.",
        "Images of other sizes lie in the middle of the mean colour."
        if results.params.profile[results.profile].data.dataset != "shapes"
        else "",
    )


def parameters(results: Results) -> str:
    """Those of every run of the CRF, and where they are from."""
    first = results.crf_runs[0]
    if first.search is None:
        return f"{_values(first)}, as given"
    found = ", ".join(f"{r.model} (seed {r.seed}) {_values(r)}" for r in results.crf_runs)
    count = first.search.images
    return f"{found}; the first three are the best of a search on {count} training images"


def object_size(results: Results) -> str:
    return joined(
        f"mIoU in percent on {images(results)}, mean of n = {seeds(results)}.",
        brackets(results),
        sizes(results),
        best(results),
    )


def boundaries(results: Results) -> str:
    return joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}.",
        deviation(results),
        interval(results),
        near_boundaries(results.runs[0].boundaries.distance_share),
        best(results),
    )


def near_boundaries(distance_share: float) -> str:
    """What trimaps and boundary IoU are."""
    return (
        "Within so many px of the ground truth's boundaries, those with void included: mIoU of "
        "these pixels alone (DeepLabv2, Figure 10). Boundary IoU (Cheng et al., CVPR 2021): of "
        f"what in a class's mask lies within {100 * distance_share:g} % of the image's diagonal of "
        "its contour, mean over classes; counts are of the whole split, and where the ground truth "
        "is void the prediction counts as void, too."
    )


def context_radius(results: Results) -> str:
    scores, run = results.radius_scores(), results.runs[0]
    radii = run.context_radius
    if radii is None:
        return ""
    shown = scores.loc[(scores["model"] == run.model) & (scores["seed"] == run.seed), "pixels"]
    return joined(
        f"Accuracy of the pixels of objects and clutter in {images(results)} ({shown.sum()}), "
        f"n = {seeds(results)}, by context radius: r is that of the smallest square window, of "
        "2 r + 1 pixels a side and centred on the pixel, in which the scene differs from every "
        "other whose pixel is of another class. Ground is told by itself (r = 0; "
        f"{radii.total[0]} pixels) and not shown; {radii.total[-1]} pixels have a larger r than "
        f"{radii.largest_px[-1]}.",
    )


def protocol_audit(results: Results) -> str:
    """What each rule does and where it is seen."""
    height, width = results.audits[0].crop_size
    return joined(
        f"mIoU in percent on {images(results)}, n = {seeds(results)}, of the same checkpoints as "
        "the accuracy table, by rules that published code follows. Gain: over the protocol of that "
        "table, paired by seed.",
        brackets(results),
        f"resized_labels: images and labels are resized to the training's crop, {height}x{width} "
        "px, labels by their nearest pixel; seen where validation shares a transform of fixed "
        "size, and torchvision's reference script scores labels resized to a short side of 520.",
        "centre_crop: only the middle of each image, of that size, is seen and scored; seen where "
        "validation has the crops of training.",
        "mean_of_images: mIoU of each image alone, of the classes in it or in its prediction, then "
        "the mean; seen where a metric is averaged over batches.",
        "mean_of_images_absent_zero: the same, but a class in neither counts as 0; seen where NaN "
        "is replaced by 0 or the denominator has a small constant.",
        "absent_zero: the same of the whole split's classes.",
        "present_in_truth: classes that the ground truth does not show are left out, even if they "
        "are predicted; seen where the classes are taken from the labels.",
        "void_as_background: void pixels count as background; seen where labels are read with "
        "void as 0"
        + (
            "."
            if "background" in results.runs[0].classes
            else "; not applicable, as no class is called background."
        ),
        "void_as_wrong: what is predicted on void pixels enters the union of its class; seen where "
        "intersection and union are counted without a mask of valid pixels.",
    )


def brackets(results: Results) -> str:
    return "Brackets: Student's t interval at 95 % over seeds." if len(results.seeds) > 1 else ""


def comparisons(results: Results) -> str:
    pairs = len(results.compared)
    corrected = "the one pair" if pairs == 1 else f"all {pairs} pairs together, by Holm's method"
    return joined(
        f"mIoU of a model less the other's, in points, on {images(results)}, "
        f"n = {seeds(results)}: runs of the same seed on the same images.",
        interval(results),
        f"Interval and p are of each pair by itself, p (Holm) is of {corrected}. Higher: the "
        "latter is below 0.05. Undecided: it is not, which does not make the two equal.",
    )


def deviation(results: Results) -> str:
    several = len(results.seeds) > 1
    return "± is the standard deviation over seeds." if several else "One seed: it has no spread."


def interval(results: Results) -> str:
    """What the interval over seeds and images is, and what it lacks."""
    match varied(results):
        case "seeds and images":
            return (
                "The interval covers the randomness of training and the choice of images: "
                "Student's t at 95 % for the mean, whose variance is that of the mean of "
                f"{len(results.seeds)} seeds plus that over {RESAMPLES:,} resamples of the images, "
                "with Satterthwaite's degrees of freedom."
            )
        case "images":
            return (
                "One seed: the interval covers the choice of images alone, by Student's t at 95 % "
                f"on the variance over {RESAMPLES:,} resamples of them, not the randomness of "
                "training."
            )
        case "seeds":
            return f"One image: its choice is not covered. {interval_over_seeds(results)}"
    return "One seed and one image: there is no interval."


def varied(results: Results) -> str:
    """What an interval can be over."""
    several = {"seeds": len(results.seeds) > 1, "images": results.images > 1}
    return " and ".join(name for name, known in several.items() if known)


def interval_over_seeds(results: Results) -> str:
    count = len(results.seeds)
    if count == 1:
        return "There is no interval."
    return (
        f"The interval over seeds is Student's t at 95 % for their mean ({count - 1} degrees of "
        "freedom): it covers the randomness of training, not the choice of images."
    )


def ranks(results: Results) -> str:
    if len(results.models) == 1:
        return ""
    return (
        "Rank: by mean mIoU, in brackets all ranks that the comparisons of every two models leave "
        "open, at 95 % together."
    )


def implausible(found: Mapping[str, str]) -> str:
    """From the reasons by model."""
    if not found:
        return ""
    listed = "; ".join(f"{model} ({reasons})" for model, reasons in found.items())
    return f"{MARK} Implausible: {listed}. These runs are in the means all the same."


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


def joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
