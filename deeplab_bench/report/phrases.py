"""Phrases that say what results are of: images and seeds, intervals, machines, commits."""

from collections import Counter
from collections.abc import Iterable, Sequence

from deeplab_bench.report.commits import find_day
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import RESAMPLES
from deeplab_bench.results.records import SIZES, Environment, Source

CPU_KIND = ("microarchitecture", "instruction_set")
# The entries of an environment that its description does not list by name.
UNSAID = {"device", *CPU_KIND, "cpu_family", "cpu_model", "cpu_stepping", "microcode"}
COMMIT_DIGITS = 12


def describe_data(results: Results) -> str:
    """Describe the numbers of images and seeds, as the end of a sentence."""
    return f"on {count_images(results)}, n = {count_seeds(results)}"


def count_images(results: Results) -> str:
    return f"{results.images} {results.data.scored_split} images"


def count_curve_images(results: Results) -> str:
    """Say on how many images the validation curves are; all have the same."""
    return f"{results.curves[0].images} of {count_images(results)}"


def count_seeds(results: Results) -> str:
    return "1 seed" if len(results.seeds) == 1 else f"{len(results.seeds)} seeds"


def count_models(results: Results) -> str:
    return "one model" if len(results.models) == 1 else f"each of {len(results.models)} models"


def describe_models_of_others(results: Results) -> str:
    """Say in a sentence which models are known by their predictions alone, if some are."""
    if not results.label_files:
        return ""
    names = ", ".join(each.name for each in results.label_files)
    return f"Predictions of others, one set each, not trained under this protocol: {names}."


def describe_deviation(results: Results) -> str:
    return " (± standard deviation)" if len(results.seeds) > 1 else ""


def describe_scope(results: Results) -> str:
    """Return what the interval covers: ``seeds and images``, one of them, or nothing."""
    several = {"seeds": len(results.seeds) > 1, "images": results.group_count > 1}
    return " and ".join(name for name, known in several.items() if known)


def describe_interval(results: Results) -> str:
    match describe_scope(results):
        case "seeds and images":
            return f"95 % interval over seeds and images ({describe_resamples(results)})"
        case "images":
            resamples = describe_resamples(results)
            return f"95 % interval over images alone ({resamples}), as there is 1 seed"
        case "seeds":
            return f"95 % interval over seeds alone, as there is {one_group(results)}"
    return f"no interval, as there are 1 seed and {one_group(results)}"


def describe_resamples(results: Results) -> str:
    """Return the number of resamples, and what is drawn if it is not single images."""
    if not is_grouped(results):
        return f"{RESAMPLES:,} resamples"
    groups, images = results.data.group_words
    sizes = Counter(results.groups).values()
    low, high = min(sizes), max(sizes)
    size = f"{low}" if low == high else f"{low} {'or' if high - low == 1 else 'to'} {high}"
    return f"{RESAMPLES:,} resamples of {results.group_count} {groups} of {size} {images}"


def is_grouped(results: Results) -> bool:
    """Return whether some images are not independent."""
    return results.group_count < results.images


def one_group(results: Results) -> str:
    return "1 group of images" if is_grouped(results) else "1 image"


def explain_undecided(results: Results) -> str:
    """Say why no two models are tested; empty if they are."""
    groups, _ = results.data.group_words
    reasons = {
        "one seed": "one seed is too few",
        "few groups": f"{results.group_count} {groups} of images are too few",
    }
    return reasons.get(results.undecided_because, "")


def describe_interval_over_seeds(results: Results) -> str:
    return "95 % interval over seeds" if len(results.seeds) > 1 else "1 seed has no interval"


def describe_brackets(results: Results) -> str:
    return "; in brackets: 95 % interval over seeds" if len(results.seeds) > 1 else ""


def describe_sizes(results: Results) -> str:
    edges = results.runs[0].object_size.edges_px
    if len(edges) != 2:
        return ""
    small, medium, large = SIZES
    return f"size is √area: {small} ≤ {edges[0]:.0f} px, {medium} ≤ {edges[1]:.0f} px, else {large}"


def label_sizes(results: Results) -> list[str]:
    """Return the names of the sizes with their ranges."""
    edges = [f"{edge:.0f}" for edge in results.runs[0].object_size.edges_px]
    if len(edges) != 2:
        return list(SIZES)
    ranges = (f"up to {edges[0]}", f"{edges[0]} to {edges[1]}", f"over {edges[1]}")
    return [f"{size}: {span} px" for size, span in zip(SIZES, ranges, strict=True)]


def describe_absent_classes(results: Results) -> str:
    """Describe the classes that no mean includes; empty if there are none."""
    runs = len(results.runs)
    absent = Counter(name for run in results.runs for name in run.absent_classes)
    names = ", ".join(
        name if times == runs else f"{name} ({times} of {runs} runs)"
        for name, times in sorted(absent.items())
    )
    return f"Classes in neither ground truth nor prediction are left out: {names}." if names else ""


def describe_boundary_band(distance_share: float) -> str:
    return f"Boundary IoU: within {100 * distance_share:g} % of the image's diagonal"


def describe_environments(found: Iterable[Environment]) -> str:
    """Describe devices and versions; equal ones are described once."""
    return "; ".join(dict.fromkeys(map(_describe_environment, found)))


def _describe_environment(found: Environment) -> str:
    device = str(found.get("device", "an unnamed device"))
    kind = [str(found[key]) for key in CPU_KIND if found.get(key)]
    versions = [f"{key} {value}" for key, value in found.items() if key not in UNSAID and value]
    return ", ".join([f"{device} ({', '.join(kind)})" if kind else device, *versions])


def describe_commit(source: Source) -> str:
    if source.commit is None:
        return "an unknown commit"
    edits = " with uncommitted changes" if source.dirty else ""
    return f"commit {name_commit(source)}{edits}"


def list_commits(sources: Iterable[Source]) -> str:
    """List each commit once: those without changes, those with (``edited``), and unknown ones.

    Git is asked for the day of a commit whose record has none.
    """
    found = [add_day(source) for source in sources]
    edited = dict.fromkeys(name_commit(s) for s in found if s.commit and s.dirty)
    clean = dict.fromkeys(name_commit(s) for s in found if s.commit and not s.dirty)
    names = [name for name in clean if name not in edited]
    names += [f"{name} (edited)" for name in edited]
    parts = [
        f"{'commit' if len(names) == 1 else 'commits'} {join_words(names)}" if names else "",
        "an unknown commit" if any(s.commit is None for s in found) else "",
    ]
    return ", and ".join(filter(None, parts))


def add_day(source: Source) -> Source:
    if source.commit is None or source.date is not None:
        return source
    return source.model_copy(update={"date": find_day(source.commit)})


def name_commit(source: Source) -> str:
    """Return the first digits of a known commit, and its day if that is known."""
    date = f" of {source.date}" if source.date else ""
    return f"{str(source.commit)[:COMMIT_DIGITS]}{date}"


def join_words(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def join_sentences(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def make_sentence(*clauses: str) -> str:
    """Join the clauses that are not empty into a sentence."""
    text = "; ".join(filter(None, clauses))
    return f"{text[0].upper()}{text[1:]}." if text else ""
