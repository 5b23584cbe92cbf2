"""Tests that ImageNet weights are the published files, and no others."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from deeplab_bench.data.archives import DOWNLOADS, Archive, DownloadError
from deeplab_bench.training import pretrained
from deeplab_bench.training.pretrained import (
    WeightsError,
    compute_weights_sha256,
    find_weights_archive,
    read_weights,
)

PUBLISHED = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "vgg16": "vgg16-397923af.pth",
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_the_archive_is_torchvision_s(backbone: str) -> None:
    archive, name = find_weights_archive(backbone), PUBLISHED[backbone]
    digest = name.removesuffix(".pth").partition("-")[2]
    url = f"https://download.pytorch.org/models/{name}"
    assert archive == Archive(name, (url,), size_bytes=None, digest=f"sha256:{digest}")
    assert compute_weights_sha256("imagenet", backbone) == digest


def test_another_file_under_its_name_is_refused() -> None:
    DOWNLOADS.mkdir(parents=True)
    (DOWNLOADS / PUBLISHED["resnet18"]).write_bytes(b"another")
    with pytest.raises(DownloadError, match=r"resnet18-f37072fd\.pth: the sha256 is .* f37072fd"):
        read_weights("imagenet", "resnet18")


def test_a_file_that_lies_there_is_used_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS.mkdir(parents=True)
    path = DOWNLOADS / PUBLISHED["resnet18"]
    state = resnet18().state_dict()
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    published = replace(find_weights_archive("resnet18"), urls=(), digest=f"sha256:{digest}")
    monkeypatch.setattr(pretrained, "find_weights_archive", lambda backbone: published)
    loaded = read_weights("imagenet", "resnet18")
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_efficientnet_lite0_is_installed_with_its_weights() -> None:
    """The start of the published digest is in the file's name, as in torchvision's names."""
    assert compute_weights_sha256("imagenet", "efficientnet_lite0") == (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    )
    assert read_weights("imagenet", "efficientnet_lite0")["_fc.weight"].shape == (1000, 1280)
    assert not DOWNLOADS.exists()


def test_any_backbone_takes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"x": torch.ones(2)}, path)
    for backbone in ("resnet18", "efficientnet_lite0"):
        assert read_weights(str(path), backbone)["x"].tolist() == [1, 1]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert compute_weights_sha256(str(path), backbone) == digest
        with pytest.raises(WeightsError, match=r"none\.pth does not exist: .*give a file"):
            read_weights("none.pth", backbone)


def test_from_scratch_there_is_no_digest() -> None:
    assert compute_weights_sha256("none", "resnet18") is None
