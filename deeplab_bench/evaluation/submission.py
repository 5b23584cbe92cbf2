"""Predictions of Pascal VOC's test images, packed as VOC's evaluation server takes them.

The development kit of VOC 2012 (Section 5.3) asks for a palette PNG of class indices for each
image, in a folder named after the competition. comp6 allows training data beside VOC's own, such as
SBD's labels and ImageNet's weights; comp5 does not.
"""

import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from deeplab_bench.data.packed import load_split
from deeplab_bench.data.pixels import Pixels, build_voc_palette, encode_label
from deeplab_bench.data.voc2012 import UnlabelledImages, open_test_images
from deeplab_bench.data.voc_labels import CLASSES
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.crf import CRFParameters, require_pydensecrf
from deeplab_bench.evaluation.crf.evaluate import choose_parameters, search_parameters
from deeplab_bench.evaluation.crf.processes import count_available_cpus, map_in_processes
from deeplab_bench.evaluation.crf.refinement import label_image
from deeplab_bench.evaluation.predict import compute_probabilities, pick_most_probable
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.runtime.device import make_deterministic, prepare_model
from deeplab_bench.settings.crf import CRF
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference
from deeplab_bench.writing import write_bytes

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


class SubmissionError(UserError):
    """Predictions that VOC's evaluation server cannot score; the message says why."""


def write_submission(
    path: Path,
    experiment: Experiment,
    seed: int,
    inference: Inference,
    crf: CRF | None,
    checkpoint: Checkpoint,
    test_root: str,
    data_folder: Path,
) -> None:
    """Predict VOC's test images, refine them by the CRF if asked to, and write the archive.

    ``test_root`` is the folder of the test images, see ``open_test_images``. ``data_folder`` has
    the training images, on which the CRF's parameters may be searched. The same checkpoint gives
    the same bytes.

    Raises:
        CRFError: pydensecrf is not installed.
        DataError: the test images are not there.
        SettingsError: the architecture cannot be used with this inference.
        SubmissionError: the checkpoint has other classes, or the archive is not as it should be.
        WorkerError: a worker process was killed.
    """
    if checkpoint.classes != list(CLASSES):
        raise SubmissionError(
            f"the classes of {experiment.model} under the profile {experiment.profile} are not "
            f"those of VOC: give a profile whose data have them, as voc2012"
        )
    make_deterministic(seed)
    model = checkpoint.build_model(inference.output_stride)
    title = f"{experiment.model} ({experiment.profile}, seed {seed})"
    if crf is not None:
        require_pydensecrf()
    images = open_test_images(test_root)
    outputs = predict_images(model, images, inference, title)
    labels: Iterator[Pixels]
    if crf is None:
        labels = (pick_most_probable(probabilities[None])[0] for _, probabilities in outputs)
    else:
        parameters = find_parameters(model, crf, data_folder, title)
        labels = refine_by_crf(outputs, parameters, crf.iterations[-1])
    content = pack_labels(zip(images.names, labels, strict=True))
    check_archive(content, images)
    write_bytes(path, content)


def predict_images(
    model: Segmenter, images: UnlabelledImages, inference: Inference, title: str
) -> Iterator[tuple[Pixels, Tensor]]:
    """Yield every image (H, W, 3) with its class probabilities (C, H, W)."""
    model = prepare_model(model)
    for index in tqdm(range(len(images.names)), desc=f"predicting with {title}", unit="image"):
        image = images.image(index)
        yield image, compute_probabilities(model, image[None], inference)[0]


def find_parameters(
    model: Segmenter, settings: CRF, data_folder: Path, title: str
) -> CRFParameters:
    """Find the CRF's parameters as its stage does: as given, or searched."""
    train, workers = load_split(data_folder, "train"), count_available_cpus()
    tried = search_parameters(model, train, settings, workers, f"CRF on {title}")
    return choose_parameters(tried, settings)


def refine_by_crf(
    outputs: Iterable[tuple[Pixels, Tensor]], parameters: CRFParameters, iterations: int
) -> Iterator[Pixels]:
    """Yield the class indices (H, W) after so many iterations of the CRF."""
    pairs = ((probabilities.cpu().numpy(), image) for image, probabilities in outputs)
    label = partial(label_image, parameters=parameters, iterations=iterations)
    return map_in_processes(label, pairs, count_available_cpus())


def pack_labels(labels: Iterable[tuple[str, Pixels]]) -> bytes:
    """Pack labels (H, W) by their images' names as a tar.gz; the same labels give the same bytes.

    A member's time and owner are 0, and its name is the server's.
    """
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as compressed,
        tarfile.open(mode="w", fileobj=compressed, format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, label in labels:
            content = encode_label(label)
            member = tarfile.TarInfo(f"{FOLDER}/{name}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def check_archive(content: bytes, images: UnlabelledImages) -> None:
    """Read an archive back and compare it with what the server asks for.

    Raises:
        SubmissionError: an image has no prediction, or one of another size, palette or class.
    """
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        expected = [f"{FOLDER}/{name}.png" for name in images.names]
        if [member.name for member in members] != expected:
            found = f"the archive has {len(members)} files"
            raise SubmissionError(f"{found}, which are not one for each of {len(expected)} images")
        for member, name in zip(members, images.names, strict=True):
            file = archive.extractfile(member)
            assert file is not None
            with Image.open(file) as label, Image.open(images.folder.image_path(name)) as image:
                problems = list(find_problems(label, image.size))
            if problems:
                raise SubmissionError(f"{member.name}: {'; '.join(problems)}")


def find_problems(label: Image.Image, size: Sequence[int]) -> Iterator[str]:
    """Yield what is wrong with a label for an image of this (width, height)."""
    if label.size != tuple(size):
        yield f"it is of {label.size} pixels, its image of {size}"
    palette = bytes(label.getpalette() or ())
    if label.mode != "P" or palette != build_voc_palette()[: len(palette)]:
        yield "it is no palette image in VOC's colours"
    outside = [value for value in np.unique(np.asarray(label)) if value >= len(CLASSES)]
    if outside:
        yield f"it has {', '.join(map(str, outside))}, which are no classes"
