"""Weights that training starts from: torchvision's for ImageNet, or a file of the user's."""

import hashlib
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import torch

from deeplab_bench.data.archives import DOWNLOADS, Archive, fetch
from deeplab_bench.errors import UserError
from deeplab_bench.models.backbone import BackboneName
from deeplab_bench.models.weights import imagenet_weights


class WeightsError(UserError):
    """Pretrained weights cannot be used; the message says why and what to do."""


def load_weights(weights: str, backbone: str) -> Any:
    """The state dict of a classification network, fetched first if it has to be.

    Args:
        weights: ``imagenet``, or the path of a state dict.

    Raises:
        DownloadError: torchvision's file cannot be had, or is not the published one.
        WeightsError: there is no such file, or it holds no state dict.
    """
    path = fetch(archive_of(backbone), DOWNLOADS) if weights == "imagenet" else Path(weights)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(
            f"training.weights: {path} is not there: give a file, 'imagenet' or 'none'"
        ) from None
    except Exception as error:  # torch.load raises what the damage leads to
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"training.weights: {path} cannot be read: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(
            f"training.weights: {path} holds no state dict: save one's tensors alone"
        )
    return state


def weights_sha256(weights: str, backbone: str) -> str | None:
    """The digest of the weights, of ImageNet's the part that torchvision publishes."""
    if weights == "none":
        return None
    if weights == "imagenet":
        return str(archive_of(backbone).digest).removeprefix("sha256:")
    path = Path(weights)
    if not path.is_file():
        raise WeightsError(
            f"training.weights: {path} is not there: give a file, 'imagenet' or 'none'"
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archive_of(backbone: str) -> Archive:
    """torchvision's file of a backbone, whose name ends with the start of its SHA-256."""
    url = imagenet_weights(cast(BackboneName, backbone)).url
    filename = Path(urlsplit(url).path).name
    digest = filename.removesuffix(".pth").rpartition("-")[2]
    return Archive(filename, urls=(url,), size_bytes=None, digest=f"sha256:{digest}")
