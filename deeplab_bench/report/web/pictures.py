"""Pictures on the page, each under a slider that chooses one of several."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.report.results import Results
from deeplab_bench.report.samples import read_crf_strips, read_given_strips, read_strips
from deeplab_bench.results.records import CRFRecord

MENDED, SPOILT = (0, 158, 115), (213, 94, 0)


@dataclass(frozen=True)
class Slider:
    """Pictures, as data URIs by what they show: ``shared`` ones, and some for each choice."""

    name: str
    shared: dict[str, str]
    choices: dict[str, dict[str, str]]


def build_samples(results: Results) -> Slider:
    """Build a slider over the ground truth and the predictions of each model."""
    strips = read_strips(results)
    images = encode(strips.pop("input"))
    choices = {name: {"classes": encode(strip)} for name, strip in strips.items()}
    return Slider("model", {"image": images}, choices)


def build_iterations(results: Results, run: CRFRecord) -> Slider:
    """Build a slider over iterations of the CRF: labels, beliefs, and what has changed."""
    given = read_given_strips(results.profile)
    strips = read_crf_strips(results, run)
    truth = np.asarray(given["ground truth"])
    names = [f"iteration {index}" if index else "network" for index in run.pictured]
    before = np.asarray(strips[f"labels, {names[0]}"])
    choices = {}
    for name in names:
        labels = strips[f"labels, {name}"]
        changes = compare(truth, before, np.asarray(labels))
        choices[name] = {
            "classes": encode(labels),
            "belief of each image's main class": encode(strips[f"beliefs, {name}"]),
            "mended (green), spoilt (orange)": encode(Image.fromarray(changes)),
        }
    shared = {"image": encode(given["input"]), "ground truth": encode(given["ground truth"])}
    return Slider(run.model, shared, choices)


def compare(truth: Pixels, before: Pixels, after: Pixels) -> Pixels:
    """Colour the pixels that have become right or wrong; (H, W, 3), others are grey."""
    changes = np.full((*truth.shape, 3), 210, dtype=np.uint8)
    scored = truth != VOID
    changes[scored & (before != truth) & (after == truth)] = MENDED
    changes[scored & (before == truth) & (after != truth)] = SPOILT
    return changes


def encode(image: Image.Image) -> str:
    """Return a picture as the data URI of a PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return encode_png(buffer.getvalue())


def encode_png(content: bytes) -> str:
    return "data:image/png;base64," + b64encode(content).decode()
