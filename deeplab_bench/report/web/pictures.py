"""Pictures on the page: the given ones, and sliders that choose one of several."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.report.results import Results
from deeplab_bench.report.samples import read_crf_strips, read_given_strips, read_strips
from deeplab_bench.results.records import CRFRecord

MENDED, SPOILT = (0, 158, 115), (213, 94, 0)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slider:
    """Pictures, as data URIs by what they show, for each choice; ``start`` is the first shown."""

    name: str
    choices: dict[str, dict[str, str]]
    start: int = 0


def encode_given(results: Results) -> dict[str, str]:
    """Encode the images and their ground truth."""
    strips = read_given_strips(results.profile)
    return {"image": encode(strips["input"]), "ground truth": encode(strips["ground truth"])}


def list_colours(results: Results) -> dict[str, str]:
    """List the colour of each class, and of void if there is any."""
    truth = read_given_strips(results.profile)["ground truth"]
    names = dict(enumerate(results.runs[0].classes))
    if VOID in np.unique(np.asarray(truth)):
        names[VOID] = "void, not scored"
    palette = np.array(truth.getpalette()).reshape(-1, 3)
    return {name: f"rgb{tuple(palette[index].tolist())}" for index, name in names.items()}


def build_samples(results: Results) -> Slider:
    """Build a slider over the predictions of each model."""
    strips = read_strips(results)
    predicted = [name for name in strips if name not in read_given_strips(results.profile)]
    return Slider("model", {name: {"prediction": encode(strips[name])} for name in predicted})


def build_iterations(results: Results, run: CRFRecord) -> Slider:
    """Build a slider over iterations of the CRF: labels, what has changed, and beliefs."""
    strips = read_crf_strips(results, run)
    image, truth = strips["input"], np.asarray(strips["ground truth"])
    names = [f"iteration {index}" if index else "network" for index in run.pictured]
    before = np.asarray(strips[f"labels, {names[0]}"])
    choices = {}
    for name in names:
        labels = strips[f"labels, {name}"]
        mended, spoilt = find_changes(truth, before, np.asarray(labels))
        scored = np.count_nonzero(truth != VOID)
        counts = f"{mended.sum() / scored:.2%} mended, {spoilt.sum() / scored:.2%} spoilt"
        choices[name] = {
            "prediction": encode(labels),
            counts.replace("%", " %"): encode(colour_changes(image, mended, spoilt)),
            "belief of each image's main class": encode(strips[f"beliefs, {name}"]),
        }
    return Slider(run.model, choices, start=len(choices) - 1)


def find_changes(truth: Pixels, before: Pixels, after: Pixels) -> tuple[Mask, Mask]:
    """Find the scored pixels that have become right, and those that have become wrong."""
    scored = truth != VOID
    mended = scored & (before != truth) & (after == truth)
    spoilt = scored & (before == truth) & (after != truth)
    return mended, spoilt


def colour_changes(image: Image.Image, mended: Mask, spoilt: Mask) -> Image.Image:
    """Colour the changed pixels of an image, which is grey and pale elsewhere."""
    pale = 128 + np.asarray(image.convert("L").convert("RGB")) // 2
    pale[mended] = MENDED
    pale[spoilt] = SPOILT
    return Image.fromarray(pale.astype(np.uint8))


def encode(image: Image.Image) -> str:
    """Return a picture as the data URI of a PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return encode_png(buffer.getvalue())


def encode_png(content: bytes) -> str:
    return "data:image/png;base64," + b64encode(content).decode()
