"""Command ``predict``: a trained model's classes of photographs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tqdm import tqdm

from deeplab_bench.data.pixels import DataError
from deeplab_bench.data.voc_layout import SUFFIXES
from deeplab_bench.errors import UserError
from deeplab_bench.prediction.files import write_predictions
from deeplab_bench.prediction.predictor import Predictor, load
from deeplab_bench.results.files import RunFiles
from deeplab_bench.settings.blocks import require_known
from deeplab_bench.settings.loading import load_params


class PredictionError(UserError):
    """Photographs or models that cannot be used together; the message says why."""


def main(
    *photographs: Annotated[str, "photographs, folders or patterns such as `*.jpg`"],
    model: Annotated[str, "trained models of params.yaml, as in `aspp,fcn`"] = "",
    checkpoint: Annotated[str, "checkpoints in place of models, as in `a.pt,b.pt`"] = "",
    profile: Annotated[str, "the profile of the models (default: the first that runs)"] = "",
    seed: Annotated[int, "the seed of their runs"] = 0,
    flip: Annotated[bool, "also use the mirror image"] = False,
    crf: Annotated[bool, "refine by the fully connected CRF, as DeepLabv2 does for VOC"] = False,
    out: Annotated[str, "the folder to write to"] = "predictions",
) -> int:
    """Return the exit status: 1 if a photograph is no image, or its pixels could be misread.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        CRFError: pydensecrf is not installed.
        ParamsError: params.yaml does not define a model or the profile.
        PredictionError: there is no photograph, or two of one name; a model is not trained; or the
            classes differ.
    """
    paths = find_photographs(photographs)
    checkpoints = find_checkpoints(model, checkpoint, profile, seed)
    predictors = {path.stem: load(path, flip=flip) for path in checkpoints}
    require_same_classes(predictors)
    status = 0
    for path in tqdm(paths, desc="predicting", unit="photograph"):
        try:
            for line in write_predictions(Path(out), path, predictors, crf):
                tqdm.write(line)
        except DataError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            status = 1
    return status


def find_photographs(given: Sequence[str]) -> list[Path]:
    """Find the files that paths, folders and patterns stand for.

    Raises:
        PredictionError: there is none, or two of them have one name.
    """
    found: dict[str, Path] = {}
    for text in given:
        for path in expand(text):
            other = found.setdefault(path.stem, path)
            if other != path:
                raise PredictionError(
                    f"{other} and {path} have one name: predict them into two folders (--out)"
                )
    if not found:
        raise PredictionError("no photograph is given: write its path, or a folder")
    return list(found.values())


def expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES]
    else:
        found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    if not found:
        raise PredictionError(f"{text}: there is no such file, and no image in such a folder")
    return found


def find_checkpoints(model: str, checkpoint: str, profile: str, seed: int) -> list[Path]:
    """Find the checkpoints that the options stand for.

    Raises:
        ParamsError: params.yaml does not define a model or the profile.
        PredictionError: not exactly one of the options is given, two files have one name, or a
            model is not trained.
    """
    if bool(model) == bool(checkpoint):
        raise PredictionError("give either --model or --checkpoint")
    if checkpoint:
        paths = [Path(name) for name in checkpoint.split(",")]
        if len({path.stem for path in paths}) < len(paths):
            raise PredictionError("--checkpoint: two files have one name: rename one of them")
        return paths
    params = load_params()
    chosen = params.pick_profile(profile)
    names = model.split(",")
    for name in names:
        require_known(name, params.networks, "--model")
    paths = [RunFiles(chosen, name, seed).checkpoint for name in names]
    for name, path in zip(names, paths, strict=True):
        if not path.is_file():
            run = params.run
            declared = chosen in run.profiles and name in run.models and seed in run.seeds
            first = "" if declared else "add it to `run` in params.yaml and "
            raise PredictionError(
                f"{path} is missing, since {name} is not trained here: "
                f"{first}run `dvc repro train@{chosen}-{path.stem}`"
            )
    return paths


def require_same_classes(predictors: dict[str, Predictor]) -> None:
    first, *others = predictors
    for other in others:
        if predictors[other].classes != predictors[first].classes:
            raise PredictionError(f"{first} and {other} have different classes: run each alone")
