"""The command ``submit``: an archive as VOC's evaluation server takes it, from a tiny network."""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SCHEDULE
from PIL import Image
from ruamel.yaml import YAML
from small_networks import randomise_batch_norm
from small_splits import split_of

from deeplab_bench.data import voc2012
from deeplab_bench.data.packed import Split
from deeplab_bench.data.packing import pack
from deeplab_bench.data.pixels import DataError, Pixels, build_voc_palette, write_label
from deeplab_bench.data.voc2012 import PUBLISHED, UnlabelledImages
from deeplab_bench.data.voc_labels import CLASSES
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation import submission
from deeplab_bench.evaluation.checkpoint import CheckpointError, open_checkpoint
from deeplab_bench.evaluation.crf import CRFParameters, iterate_mean_field
from deeplab_bench.evaluation.crf.processes import map_in_processes
from deeplab_bench.evaluation.crf.search import Candidate
from deeplab_bench.evaluation.predict import predict, predict_probabilities
from deeplab_bench.evaluation.submission import SubmissionError, check_archive, pack_labels
from deeplab_bench.models import build_model
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.settings.base import SettingsError
from deeplab_bench.settings.inference import Inference
from deeplab_bench.settings.loading import load_params
from deeplab_bench.writing import write_tensors
from pipelines import submit

PREFIX = "results/VOC2012/Segmentation/comp6_test_cls/"
SIZES = {  # of the test images, (height, width); in the list's order, which is not the alphabet's
    "2011_002": (40, 56),
    "2008_000006": (37, 50),
    "2012_1": (50, 33),
    "2009_7": (33, 47),
}
NAMES = sorted(SIZES)
MANY = Inference(output_stride=8, scales=(0.75, 1.25), flip=True)
CRF = {"w1": 4, "sigma_alpha": 9, "sigma_beta": 9, "w2": 3, "sigma_gamma": 3}
PROFILE = {
    "data": {"dataset": "voc2012", "train_split": "train"},
    "model": {"backbone": "resnet18", "width": 0.25, "output_stride": 16},
    "training": SCHEDULE,
    "crf": CRF | {"iterations": [0, 1, 3]},
}
PARAMS = {
    "run": {
        "profiles": ["voc2012"],
        "models": ["fcn"],
        "seeds": [0],
        "hardware": [],
        "inference": ["plain"],
        "crf": [],
        "audit": [],
        "label_files": [],
    },
    "profile": {
        "voc2012": PROFILE,
        "other": {key: value for key, value in PROFILE.items() if key != "crf"},
    },
    "inference": {"plain": {}, "many": MANY.model_dump(mode="json", exclude_none=True)},
    "models": {"fcn": {"architecture": "fcn"}},
}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with settings, data and a checkpoint; the CRF runs here, as processes are slow."""
    monkeypatch.chdir(tmp_path)
    counts = {**PUBLISHED.counts, "test": len(SIZES)}
    monkeypatch.setattr(voc2012, "PUBLISHED", replace(PUBLISHED, counts=counts))
    monkeypatch.setattr(
        submission, "map_in_processes", lambda function, items, workers: map(function, items)
    )
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(PARAMS, file)
    train("voc2012", list(CLASSES))


def train(profile: str, classes: list[str]) -> None:
    """Write the data and an untrained network, its logits shifted to equal means of all classes."""
    folder, source = ProfileFiles(profile).data, VocFolder(Path("source"))
    for sub in ("JPEGImages", "SegmentationClass"):
        (source.root / sub).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 32), (200, 40, 60)).save(source.root / "JPEGImages" / "a.png")
    write_label(source.label_path("a"), np.eye(32, 40, dtype=np.uint8))
    pack(source, {"train": ["a"], "val": ["a"]}, classes, folder)
    experiment = load_params().experiment(profile, "fcn")
    torch.manual_seed(0)
    model = build_model("fcn", experiment.arguments, num_classes=len(classes))
    randomise_batch_norm(model).eval()
    noise = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        model.get_parameter("classifier.1.bias").sub_(
            model(model.colours.normalise(noise)).mean(dim=(0, 2, 3))
        )
    content = {
        "model": model.state_dict(),
        "classes": classes,
        "experiment": experiment.model_dump(mode="json"),
        "history": {},
        "provenance": derive_provenance(experiment, 0, folder).model_dump(),
    }
    write_tensors(RunFiles(profile, "fcn", 0).checkpoint, content)


@pytest.fixture
def images(tmp_path: Path) -> VocFolder:
    """VOC's test images as they are extracted, random ones of several sizes."""
    voc = VocFolder(tmp_path / "VOCdevkit" / "VOC2012")
    for folder in (voc.root / "JPEGImages", voc.listing("test").parent):
        folder.mkdir(parents=True)
    voc.listing("test").write_text("".join(f"{name}\n" for name in SIZES))
    random = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(voc.root / "JPEGImages" / f"{name}.jpg")
    return voc


def submitted(images: VocFolder, inference: str = "plain", crf: bool = False) -> Path:
    submit.main("fcn", images=str(images.root.parent), inference=inference, crf=crf)
    return RunFiles("voc2012", "fcn", 0).submission(inference, crf)


def read_archive(path: Path) -> Iterator[tuple[str, Pixels]]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            with Image.open(file) as image:
                assert (image.format, image.mode) == ("PNG", "P")
                palette = image.getpalette()
                assert palette is not None
                assert bytes(palette) == build_voc_palette()[: len(palette)]
                yield member.name, np.asarray(image)


def packed_images(images: VocFolder) -> Split:
    """The same images as the evaluation reads those of val."""
    pairs = []
    for name in NAMES:
        with Image.open(images.root / "JPEGImages" / f"{name}.jpg") as image:
            pairs.append((np.asarray(image), np.zeros(SIZES[name], dtype=np.uint8)))
    return split_of(pairs)


def trained_network(inference: Inference) -> Segmenter:
    experiment = load_params().experiment("voc2012", "fcn")
    expected = derive_provenance(experiment, 0, ProfileFiles("voc2012").data)
    checkpoint = open_checkpoint(RunFiles("voc2012", "fcn", 0).checkpoint, expected)
    return checkpoint.build_model(inference.output_stride)


# What is in the archive


@pytest.mark.parametrize(("way", "inference"), [("plain", Inference()), ("many", MANY)])
def test_the_archive_has_the_predictions_of_every_image(
    images: VocFolder, way: str, inference: Inference
) -> None:
    found = dict(read_archive(submitted(images, way)))
    assert list(found) == [f"{PREFIX}{name}.png" for name in NAMES]
    split = packed_images(images)
    model = trained_network(inference)
    expected = dict(predict(model, split, range(len(split)), "test", inference))
    for index, labels in enumerate(found.values()):
        assert labels.shape == SIZES[NAMES[index]]
        np.testing.assert_array_equal(labels, expected[index])
    values = np.unique(np.concatenate([labels.ravel() for labels in found.values()]))
    assert len(values) > 2 and values.max() < len(CLASSES)


def test_the_crf_refines_the_predictions(
    images: VocFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refine in worker processes, as the command does."""
    monkeypatch.setattr(submission, "map_in_processes", map_in_processes)
    plain, refined = (dict(read_archive(submitted(images, crf=crf))) for crf in (False, True))
    split = packed_images(images)
    outputs = predict_probabilities(
        trained_network(Inference()), split, range(len(split)), "test", Inference()
    )
    for index, probabilities in enumerate(outputs):
        parameters = CRFParameters(**CRF)
        _, (_, beliefs) = iterate_mean_field(
            probabilities.numpy(), split.image(index), parameters, (1, 3)
        )
        labels = refined[f"{PREFIX}{NAMES[index]}.png"]
        np.testing.assert_array_equal(labels, beliefs.argmax(axis=0))
    assert any((plain[name] != refined[name]).any() for name in plain)


def test_the_parameters_of_the_crf_may_be_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best candidate counts; the training images are those of the run."""
    best, other = (CRFParameters(**CRF | {"w1": w1}) for w1 in (9, 2))
    candidates = [Candidate(best, 0.5), Candidate(other, 0.4)]

    def search(model: object, train: Split, *_: object) -> list[Candidate]:
        assert train.names == ["a"]
        return candidates

    monkeypatch.setattr(submission, "search_parameters", search)
    model, settings = trained_network(Inference()), load_params().crf("voc2012")
    folder = ProfileFiles("voc2012").data
    assert submission.find_parameters(model, settings, folder, "x") == best
    candidates.clear()
    assert submission.find_parameters(model, settings, folder, "x") == CRFParameters(**CRF)


def test_the_same_checkpoint_gives_the_same_bytes(images: VocFolder) -> None:
    first = submitted(images).read_bytes()
    for path in (images.root / "JPEGImages").iterdir():
        os.utime(path, (1, 1))
    submit.main("fcn", images=str(images.root))
    path = RunFiles("voc2012", "fcn", 0).submission("plain", False)
    assert path.read_bytes() == first
    with tarfile.open(path) as archive:
        for member in archive:
            about = (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode)
            assert about == (0, 0, 0, "", "", 0o644)
            assert member.isfile()
    assert first[4:8] == bytes(4)  # the time in gzip's header


def test_the_user_is_told_where_it_goes(
    images: VocFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = submitted(images)
    shown = capsys.readouterr()
    assert f"{path}: upload it at http://host.robots.ox.ac.uk:8080" in shown.out
    assert f"{len(SIZES)}/{len(SIZES)}" in shown.err


def test_a_way_of_its_own_has_a_file_of_its_own(images: VocFolder) -> None:
    paths = [submitted(images), submitted(images, "many"), submitted(images, crf=True)]
    assert [path.name for path in paths] == [
        "fcn-0-plain.tar.gz",
        "fcn-0-many.tar.gz",
        "fcn-0-plain-crf.tar.gz",
    ]


# What is refused before any work


def refused(error: type[UserError], *arguments: str, **options: object) -> str:
    with pytest.raises(error) as caught:
        submit.main(*(arguments or ("fcn",)), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not Path("submissions").exists()
    return str(caught.value)


@pytest.fixture
def _no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("predicted")

    monkeypatch.setattr(submission, "compute_probabilities", fail)


@pytest.mark.usefixtures("_no_prediction")
class TestRefused:
    def test_without_images_it_says_where_to_get_them(self) -> None:
        message = refused(DataError)
        assert "log in at http://host.robots.ox.ac.uk:8080, download VOC2012test.tar" in message

    def test_a_folder_without_the_list(self, images: VocFolder) -> None:
        images.listing("test").unlink()
        message = refused(DataError, images=str(images.root))
        assert message.startswith(f"{images.listing('test')} is missing: log in at")

    def test_another_number_of_images(self, images: VocFolder) -> None:
        images.listing("test").write_text("2009_7\n")
        message = refused(DataError, images=str(images.root))
        assert message.startswith(f"{images.listing('test')} has 1 images instead of 4: ")

    @pytest.mark.parametrize("damage", ["missing", "cut"])
    def test_an_image_that_is_not_whole(self, images: VocFolder, damage: str) -> None:
        path = images.root / "JPEGImages" / "2009_7.jpg"
        content = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        message = refused(DataError, images=str(images.root))
        remedy = {"missing": "add the missing files", "cut": "replace the damaged files"}[damage]
        assert message == f"{images.root}: {remedy}: 1 found: {path}"

    def test_a_run_that_is_not_trained(self, images: VocFolder) -> None:
        message = refused(CheckpointError, "fcn", images=str(images.root), seed=7)
        assert message.startswith("checkpoints/voc2012/fcn-7.pt is missing")

    def test_another_data_set(self, images: VocFolder) -> None:
        train("other", ["background", *CLASSES[:0:-1]])
        message = refused(SubmissionError, "fcn", images=str(images.root), profile="other")
        assert "the classes of fcn under the profile other are not those of VOC" in message

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"profile": "voc"}, "--profile: 'voc'"),
            ({"model": "fnc"}, "MODEL: 'fnc'"),
            ({"inference": "mny"}, "--inference: 'mny'"),
            ({"profile": "other", "crf": True}, "profile.other.crf is missing"),
        ],
    )
    def test_names_that_are_not_defined(
        self, images: VocFolder, arguments: dict[str, object], named: str
    ) -> None:
        given = {"model": "fcn", "images": str(images.root)} | arguments
        message = refused(SettingsError, str(given.pop("model")), **given)
        assert message.startswith(named)


# What is read back


@pytest.mark.parametrize(
    ("name", "label", "problem"),
    [
        ("2009_7", np.full((33, 47), 255, dtype=np.uint8), "it has 255, which are no classes"),
        ("2009_7", np.full((33, 47), 21, dtype=np.uint8), "it has 21, which are no classes"),
        ("2009_7", np.zeros((47, 33), dtype=np.uint8), "it is of (33, 47) pixels, its image of"),
        ("2009_8", np.zeros((33, 47), dtype=np.uint8), "1 files, which are not one for each of 1"),
    ],
)
def test_predictions_that_the_server_cannot_score(
    images: VocFolder, name: str, label: Pixels, problem: str
) -> None:
    with pytest.raises(SubmissionError, match=re.escape(problem)):
        check_archive(pack_labels([(name, label)]), UnlabelledImages(images, ["2009_7"]))


def test_labels_in_other_colours_are_refused(
    images: VocFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode_grey(label: Pixels) -> bytes:
        content = io.BytesIO()
        Image.fromarray(label).save(content, "PNG")
        return content.getvalue()

    monkeypatch.setattr(submission, "encode_label", encode_grey)
    content = pack_labels([("2009_7", np.zeros((33, 47), dtype=np.uint8))])
    with pytest.raises(SubmissionError, match="no palette image in VOC's colours"):
        check_archive(content, UnlabelledImages(images, ["2009_7"]))
