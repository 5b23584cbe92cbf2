"""Origins of the cells of all tables: how a column is computed, and from which records."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from deeplab_bench.report import comparisons, paper, receptive_field, speed_tables, tables
from deeplab_bench.report.formats import TRIMAPS
from deeplab_bench.report.results import Results
from deeplab_bench.report.summaries import collect_losses, collect_validation
from deeplab_bench.results.records import SIZES
from deeplab_bench.settings.inference import PLAIN

Place = tuple[str | int, ...]
Read = Callable[[Any], dict[str, Any]]  # from a record to the values that enter, by their place

MIOU: Place = ("metrics", "miou")
IMAGES: Place = ("images",)

# What older records lack.
OPTIONAL = {"second_phase", "start_loss", "trained_on_val", "training_images"}

SAME = "the recorded value"
SHARE = "the recorded share, in percent"
DIFFERENCE = "mean of `model` minus mean of `other`, in points"
MEAN = "mean over the seeds, in percent"
DEVIATION = "standard deviation over the seeds, in percent"
CORRECT = "correct pixels over all pixels of this radius, mean over the seeds, in percent"
OVER_SEEDS = "mean over the seeds ± Student's t, in percent (statistics.estimate)"
OVER_BOTH = (
    "mean over the seeds ± Student's t on the variance over seeds plus that over resamples of the "
    "images, in percent (statistics.estimate)"
)
POOLED = (
    "from the difference of two means on the same images; the variance of the seeds is pooled over "
    "all models, and Holm's correction is over all pairs (statistics.compare)"
)
GAIN = "mean over the seeds of the first value minus the second, in points"
GAIN_INTERVAL = f"{GAIN} ± Student's t (statistics.estimate)"


class Records(NamedTuple):
    """The records of a stage that enter a cell, and what is read from each.

    Without ``model`` or ``seed``, those of every one. ``crf_timing`` stands for the CRF's times.
    """

    stage: str
    model: str | None
    read: Read
    inference: str = PLAIN
    hardware: str = ""
    seed: int | None = None


class Origin(NamedTuple):
    """How a cell is computed, and from which records; none if it comes from settings alone."""

    how: str
    records: Sequence[Records]


class Traced(NamedTuple):
    """A table: its values made again, and its origins by column."""

    build: Callable[[Results], pd.DataFrame]
    find: Callable[[Mapping[str, str]], dict[str, Origin]]


def take(*places: Place) -> Read:
    """Read the values at these places of a record."""
    return lambda content: {".".join(map(str, place)): look_up(content, place) for place in places}


def look_up(content: Any, place: Place) -> Any:
    for key in place:
        content = content.get(key) if key in OPTIONAL else content[key]
    return content


def find_accuracy(row: Mapping[str, str]) -> dict[str, Origin]:
    def of(how: str, *places: Place) -> Origin:
        return Origin(how, [Records("evaluate", row["model"], take(*places))])

    strides = "the settings' output stride; those of two phases of training are joined"
    all_runs = [Records("evaluate", None, take(MIOU, IMAGES))]
    rank = "place of the mean mIoU among all models, 1 for the highest (statistics.rank_models)"
    ends = f"ranks that the comparisons of every two models do not exclude; p is {POOLED}"
    gflops = take(("output_strides", 0, "flops"))
    return {
        "architecture": of(SAME, ("architecture",)),
        "seeds": of("number of runs", ("seed",)),
        "params_m": of("number of parameters in millions, of the last seed", ("parameters",)),
        "output_stride": of(strides, ("settings", "arguments"), ("settings", "second_phase")),
        "eval_output_stride": of(
            "the output stride of the last phase of training",
            ("settings", "arguments"),
            ("settings", "second_phase"),
        ),
        "gflops": Origin("operations / 10^9", [Records("speed", row["model"], gflops)]),
        **find_miou(row),
        "rank": Origin(rank, all_runs),
        "rank_low": Origin(ends, all_runs),
        "rank_high": Origin(ends, all_runs),
        "pixel_accuracy_mean": of(MEAN, ("metrics", "pixel_accuracy")),
        **{
            f"miou_{size}": of(MEAN, ("object_size", "miou", index))
            for index, size in enumerate(SIZES)
        },
        "implausible": of("above the profile's `miou_ceiling`, not finite, or one class", MIOU),
        "bad_start": of(
            "the first loss, against the logarithm of the number of classes",
            ("training", "start_loss"),
        ),
        "unfinished": of(
            "low mIoU on training images, or a loss that was still falling",
            ("training_images",),
            ("training", "loss"),
        ),
        "beyond_crops": Origin(
            "the maps of atrous convolutions in crops and in an image, computed from the settings",
            [Records("speed", row["model"], take(("input_size",)))],
        ),
        "trained_on_val": of(SAME, ("trained_on_val",)),
        "outdated": of(
            "stages whose code of today has another digest", ("provenance", "code_sha256")
        ),
    }


def find_miou(row: Mapping[str, str], inference: str = PLAIN) -> dict[str, Origin]:
    """Find the origins of the mean mIoU, its deviation and its interval over seeds and images."""
    alone = [Records("evaluate", row["model"], take(MIOU), inference)]
    with_images = [Records("evaluate", row["model"], take(MIOU, IMAGES), inference)]
    return {
        "miou_mean": Origin(MEAN, alone),
        "miou_std": Origin(DEVIATION, alone),
        **dict.fromkeys(("ci95_low", "ci95_high"), Origin(OVER_BOTH, with_images)),
    }


def find_per_class(row: Mapping[str, str]) -> dict[str, Origin]:
    return {
        column: Origin(MEAN, [Records("evaluate", row["model"], take(("iou", column)))])
        for column in row
        if column != "model"
    }


def find_object_size(row: Mapping[str, str]) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for index, size in enumerate(SIZES):
        records = [Records("evaluate", row["model"], take(("object_size", "miou", index)))]
        found |= name_summary(f"miou_{size}", f"miou_{size}_std", f"miou_{size}_ci95_", records)
    return found


def name_summary(
    mean: str, deviation: str, ends: str, records: Sequence[Records]
) -> dict[str, Origin]:
    """Name the columns of a mean over seeds, its deviation and the ends of its interval."""
    return {
        mean: Origin(MEAN, records),
        deviation: Origin(DEVIATION, records),
        **dict.fromkeys((f"{ends}low", f"{ends}high"), Origin(OVER_SEEDS, records)),
    }


def find_boundaries(row: Mapping[str, str]) -> dict[str, Origin]:
    places = locate_boundaries("boundaries")
    near = {
        column: Origin(MEAN, [Records("evaluate", row["model"], take(place))])
        for column, place in places.items()
    }
    return find_miou(row) | (
        near
        | {
            "boundary_miou": Origin(
                MEAN, [Records("evaluate", row["model"], take(("boundaries", "boundary_miou")))]
            )
        }
    )


def locate_boundaries(*start: str) -> dict[str, Place]:
    bands: dict[str, Place] = {
        column: (*start, "trimap_miou", index) for index, column in enumerate(TRIMAPS)
    }
    return bands | {"boundary_miou": (*start, "boundary_miou")}


def find_context_radius(row: Mapping[str, str]) -> dict[str, Origin]:
    def read_at(radius: int) -> Read:
        def read(content: Any) -> dict[str, Any]:
            index = content["context_radius"]["largest_px"].index(radius)
            return take(*(("context_radius", key, index) for key in ("correct", "total")))(content)

        return read

    return {
        column: Origin(
            CORRECT, [Records("evaluate", row["model"], read_at(int(column.split("_")[1])))]
        )
        for column in row
        if column != "model"
    }


def find_comparisons(row: Mapping[str, str]) -> dict[str, Origin]:
    pair = [Records("evaluate", row[key], take(MIOU)) for key in ("model", "other")]
    pooled = Origin(POOLED, [Records("evaluate", None, take(MIOU, IMAGES))])
    others = dict.fromkeys(("ci95_low", "ci95_high", "p_value", "p_holm", "verdict"), pooled)
    return {
        "difference": Origin(DIFFERENCE, pair),
        **others,
    }


def find_inference(row: Mapping[str, str]) -> dict[str, Origin]:
    both = [
        Records("evaluate", row["model"], take(MIOU, IMAGES), inference)
        for inference in (row["inference"], PLAIN)
    ]
    settings = [
        Records("evaluate", row["model"], take(("settings", "inference")), row["inference"])
    ]
    interval = f"{GAIN}; {OVER_BOTH}"
    return find_miou(row, row["inference"]) | {
        "settings": Origin("the settings of the way of inference", settings),
        "gain": Origin(GAIN, both),
        **dict.fromkeys(("gain_low", "gain_high"), Origin(interval, both)),
    }


def find_crf(row: Mapping[str, str]) -> dict[str, Origin]:
    after: Place = ("iterations", row["iteration"])

    def of(*places: Place) -> list[Records]:
        return [Records("crf", row["model"], take(*places))]

    gain = of((*after, "miou"), ("iterations", "0", "miou"))
    near = locate_boundaries(*map(str, after))
    return {
        "seeds": Origin("number of runs", of(("seed",))),
        **name_summary("miou_mean", "miou_std", "ci95_", of((*after, "miou"))),
        "gain_mean": Origin(GAIN, gain),
        **dict.fromkeys(("gain_ci95_low", "gain_ci95_high"), Origin(GAIN_INTERVAL, gain)),
        **{column: Origin(MEAN, of(place)) for column, place in near.items()},
    }


def find_protocol_audit(row: Mapping[str, str]) -> dict[str, Origin]:
    variant = row["variant"]
    place: Place = ("protocol",) if variant == "protocol" else ("variants", variant)
    alone = [Records("audit", row["model"], take(place))]
    both = [Records("audit", row["model"], take(place, ("protocol",)))]
    return {
        "miou_mean": Origin(MEAN, alone),
        "gain": Origin(GAIN, both),
        **dict.fromkeys(("gain_low", "gain_high"), Origin(GAIN_INTERVAL, both)),
        "as_in": Origin("the source of the named code (tables.AS_IN)", []),
    }


def find_receptive_field(row: Mapping[str, str]) -> dict[str, Origin]:
    theory, before, after = ("theoretical",), ("effective", "before"), ("effective", "after")
    places: dict[str, tuple[str, Place]] = {
        "architecture": (SAME, ("architecture",)),
        "field_px": (SAME, (*theory, "size_px")),
        "field_stride_px": (SAME, (*theory, "stride_px")),
        "field_share": (SHARE, (*theory, "share")),
        "effective_before_px": (SAME, (*before, "size_px")),
        "effective_after_px": (SAME, (*after, "size_px")),
        "effective_share": (SHARE, (*after, "share")),
        "half_before_px": (SAME, (*before, "half_px")),
        "half_after_px": (SAME, (*after, "half_px")),
    }
    return {
        column: Origin(how, [Records("receptive_field", row["model"], take(place))])
        for column, (how, place) in places.items()
    }


def find_speed(row: Mapping[str, str]) -> dict[str, Origin]:
    def of(how: str, read: Read) -> Origin:
        return Origin(how, [Records("speed", row["model"], read, hardware=row["hardware"])])

    def at_stride(*place: str | int) -> Read:
        def read(content: Any) -> dict[str, Any]:
            strides = [str(cost["output_stride"] or "") for cost in content["output_strides"]]
            return take(("output_strides", strides.index(row["output_stride"]), *place))(content)

        return read

    relative = {"": "p50", "_p25": "p25", "_p75": "p75"}
    seconds = Records("crf_timing", row["model"], take(("seconds_per_image",)))
    return {
        "input": of(SAME, take(("input_size",))),
        "params_m": of("number of parameters in millions", at_stride("parameters")),
        "gflops": of("operations / 10^9", at_stride("flops")),
        **{f"latency_{p}_ms": of(SAME, at_stride("latency_ms", p)) for p in ("p50", "p90")},
        **{
            f"latency_relative{end}": of(SAME, at_stride("relative_latency", p))
            for end, p in relative.items()
        },
        "images_per_second": of("the highest of all batch sizes", take(("images_per_second",))),
        "batch_size": of("the batch size with the most images/s", take(("images_per_second",))),
        "peak_memory_mib": of(SAME, at_stride("peak_memory_mib")),
        "crf_seconds": Origin("mean over the seeds", [seconds] if row.get("crf_seconds") else []),
    }


def find_training_speed(row: Mapping[str, str]) -> dict[str, Origin]:
    quartiles = {"": "p50", "_p25": "p25", "_p75": "p75"}
    places: dict[str, Place] = {
        "crop": ("crop_size",),
        "batch_size": ("batch_size",),
        "precision": ("precision",),
        **{f"step_ms{end}": ("step_ms", p) for end, p in quartiles.items()},
        **{f"step_relative{end}": ("relative_step", p) for end, p in quartiles.items()},
        "images_per_second": ("images_per_second",),
        "peak_memory_mib": ("peak_memory_mib",),
    }
    return {
        column: Origin(
            SAME,
            [Records("speed", row["model"], take(("training", *place)), hardware=row["hardware"])],
        )
        for column, place in places.items()
    }


def find_training_curves(row: Mapping[str, str]) -> dict[str, Origin]:
    def read(content: Any) -> dict[str, Any]:
        index = content["training"]["iteration"].index(int(row["iteration"]))
        return take(("training", "loss", index))(content)

    return {"loss": Origin(SAME, [Records("evaluate", row["model"], read, seed=int(row["seed"]))])}


def find_validation_curves(row: Mapping[str, str]) -> dict[str, Origin]:
    def read(column: str) -> Read:
        def read_point(content: Any) -> dict[str, Any]:
            return take((column, content["iteration"].index(int(row["iteration"]))))(content)

        return read_point

    return {
        column: Origin(how, [Records("train", row["model"], read(column), seed=int(row["seed"]))])
        for column, how in (("loss", SAME), ("miou", SHARE))
    }


def find_paper(row: Mapping[str, str]) -> dict[str, Origin]:
    """Find the origins of a table that compares values (it has ``row``), or the order of rows."""
    cited = [read_cited(row[key]) for key in ("model", "other") if key in row]
    published = Origin("results/published.yaml", [])
    pooled = [*cited, Records("evaluate", None, take(MIOU, IMAGES))]
    if "other" not in row:
        verdict = "against the prediction interval of one new run, with all models' variance"
        interval = Origin(OVER_SEEDS, cited)
        return {
            "published": published,
            "miou_mean": Origin(MEAN, cited),
            "ci95_low": interval,
            "ci95_high": interval,
            "difference": Origin(f"{MEAN}, minus the published value", cited),
            "verdict": Origin(verdict, pooled),
            "reason": Origin("settings that differ from the paper's", cited),
        }
    interval = Origin(
        f"{GAIN} ± Student's t, variance of seeds pooled (paper.compare_pair)", pooled
    )
    return {
        "published_difference": published,
        "difference": Origin(GAIN, cited),
        **dict.fromkeys(("ci95_low", "ci95_high", "ordering"), interval),
    }


def read_cited(name: str) -> Records:
    """Find the records of a row's name: ``model``, ``model, crf``, ``model, way of inference``."""
    model, _, way = name.partition(", ")
    if way != "crf":
        return Records("evaluate", model, take(MIOU), way or PLAIN)

    def read(content: Any) -> dict[str, Any]:
        last = max(content["iterations"], key=int)
        return take(("iterations", last, "miou"))(content)

    return Records("crf", model, read)


TABLES = {
    "accuracy": Traced(tables.collect_accuracy, find_accuracy),
    "per_class": Traced(lambda r: tables.build_per_class(r).data, find_per_class),
    "object_size": Traced(lambda r: tables.build_object_size(r).data, find_object_size),
    "boundaries": Traced(lambda r: tables.build_boundaries(r).data, find_boundaries),
    "context_radius": Traced(lambda r: tables.build_context_radius(r).data, find_context_radius),
    "comparisons": Traced(lambda r: comparisons.build_comparisons(r).data, find_comparisons),
    "inference": Traced(lambda r: tables.build_inference(r).data, find_inference),
    "crf": Traced(tables.collect_crf, find_crf),
    "protocol_audit": Traced(lambda r: tables.build_protocol_audit(r).data, find_protocol_audit),
    "receptive_field": Traced(
        lambda r: receptive_field.build_receptive_field(r).data, find_receptive_field
    ),
    "speed": Traced(
        lambda r: speed_tables.build_speed(r).data,
        find_speed,
    ),
    "training_speed": Traced(
        lambda r: speed_tables.build_training_speed(r).data,
        find_training_speed,
    ),
    "paper": Traced(lambda r: paper.build_paper(r).data, find_paper),
    "training_curves": Traced(collect_losses, find_training_curves),
    "validation_curves": Traced(collect_validation, find_validation_curves),
}
