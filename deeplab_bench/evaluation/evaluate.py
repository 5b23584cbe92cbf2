"""Evaluation of one trained model at the original resolution of every image."""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.samples import SAMPLES, tile
from deeplab_bench.data.voc_layout import Pixels, write_label
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.measures.registry import MEASURES
from deeplab_bench.evaluation.predict import predict
from deeplab_bench.models import build_model, count_parameters
from deeplab_bench.results.provenance import run_code_sha256
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import make_deterministic
from deeplab_bench.settings.schema import Experiment, Inference
from deeplab_bench.training.train import training_provenance, training_timing


class EvaluationError(UserError):
    """A checkpoint cannot be evaluated; the message says why and what to do."""


def evaluate(
    experiment: Experiment, seed: int, data_folder: Path, checkpoint: Path, samples: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a run and its timing, ready for JSON; sample predictions go to ``samples``.

    Nothing in the result varies between two identical runs.

    Raises:
        EvaluationError: the checkpoint was made from other settings, code or data.
        TrainingError: its timing is missing.
    """
    state = load_checkpoint(experiment, seed, data_folder, checkpoint)
    timing = training_timing(checkpoint)
    started = time.monotonic()
    result, shown = score_checkpoint(experiment, seed, data_folder, state, Inference())
    seconds = time.monotonic() - started
    if distributed.rank() == 0:
        samples.parent.mkdir(parents=True, exist_ok=True)
        write_label(samples, tile(shown))
    return result, timing | {"evaluation_seconds": round(seconds, 2)}


def evaluate_inference(
    experiment: Experiment,
    seed: int,
    data_folder: Path,
    checkpoint: Path,
    name: str,
    inference: Inference,
) -> dict[str, Any]:
    """The result of a run under another way of inference, ready for JSON.

    Raises:
        EvaluationError: the checkpoint was made from other settings, code or data.
    """
    state = load_checkpoint(experiment, seed, data_folder, checkpoint)
    result, _ = score_checkpoint(experiment, seed, data_folder, state, inference)
    return {"inference": name} | result


def score_checkpoint(
    experiment: Experiment,
    seed: int,
    data_folder: Path,
    state: Mapping[str, Any],
    inference: Inference,
) -> tuple[dict[str, Any], list[Pixels]]:
    """Score the validation split; return the result and the predictions of the first images.

    If there are several processes, each of them predicts a share of the images.
    """
    split = load_split(data_folder, "val")
    make_deterministic(seed)
    model = trained_model(experiment, state, inference)
    title = f"evaluating {experiment.model} ({experiment.profile}, seed {seed})"
    share = range(distributed.rank(), len(split), distributed.processes())
    shown: dict[int, Pixels] = {}
    predictions = keep_first(predict(model, split, share, title, inference), SAMPLES, shown)
    records = measure_predictions(split, predictions)
    images = records.pop("images")  # by far the longest entry: it stands last in the file
    firsts = {index: image for part in distributed.gathered(shown) for index, image in part.items()}
    settings = experiment.model_dump(mode="json", include={"arguments", "training", "then"})
    result = {
        **run_record(experiment, seed, state, __name__),
        "architecture": experiment.architecture,
        "settings": settings | {"inference": inference.model_dump(mode="json")},
        "parameters": count_parameters(model),
        "classes": split.classes,
        **records,
        "training": state["history"],
        "images": images,
    }
    return result, [firsts[index] for index in sorted(firsts)]


def run_record(
    experiment: Experiment, seed: int, state: Mapping[str, Any], module: str
) -> dict[str, Any]:
    """What every result says of the run that it is of, for ``module`` that made it."""
    code = {"code_sha256": run_code_sha256(module, experiment.architecture)}
    return {
        "profile": experiment.profile,
        "model": experiment.model,
        "seed": seed,
        "provenance": state["provenance"] | code,
    }


def load_checkpoint(experiment: Experiment, seed: int, data_folder: Path, path: Path) -> Any:
    """A checkpoint, once its provenance is what it should be."""
    if not path.is_file():
        raise EvaluationError(f"{path} is missing: run `dvc repro`")
    state = torch.load(path, map_location="cpu", weights_only=True)
    for what, digest in training_provenance(experiment, seed, data_folder).items():
        if state["provenance"][what] != digest:
            raise EvaluationError(
                f"{path} was trained with other {what.removesuffix('_sha256')} than there are now: "
                f"run `dvc repro --force train@{experiment.profile}-{experiment.model}-{seed}`"
            )
    return state


def trained_model(experiment: Experiment, state: Any, inference: Inference) -> nn.Module:
    """The model of a checkpoint that ``load_checkpoint`` has read, as it is used."""
    arguments = experiment.arguments_for(inference)
    model = build_model(experiment.architecture, arguments, num_classes=len(state["classes"]))
    model.load_state_dict(state["model"])
    return model


def keep_first(
    predictions: Iterable[tuple[int, Pixels]], count: int, kept: dict[int, Pixels]
) -> Iterator[tuple[int, Pixels]]:
    """Pass all predictions on, and copy those of the first ``count`` images to ``kept``."""
    for index, prediction in predictions:
        if index < count:
            kept[index] = prediction
        yield index, prediction


def measure_predictions(split: Split, predictions: Iterable[tuple[int, Pixels]]) -> dict[str, Any]:
    """Compute all measures of a split from pairs (index of an image, its prediction).

    If there are several processes, each of them passes the predictions of its share of the images.
    """
    measures = [measure(split) for measure in MEASURES]
    for index, prediction in predictions:
        label = split.label(index)
        for measure in measures:
            measure.update(index, label, prediction)
    records: dict[str, Any] = {}
    for measure in measures:
        measure.merge(distributed.total)
        records |= measure.record()
    return records
