"""Properties that hold for any input: settings, archives, lists, crops, samplers and metrics."""

import io
import os
import tarfile
import tempfile
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ruamel.yaml import YAML
from test_faults import PARAMS, build_experiment

from deeplab_bench.data.archives import DownloadError, unpack
from deeplab_bench.data.augmentation import Positions, augment, draw
from deeplab_bench.data.pixels import VOID, DataError, Pixels
from deeplab_bench.data.voc_layout import read_image_names
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, iou
from deeplab_bench.settings.loading import parse_params
from deeplab_bench.settings.training import Training

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS = Path("params.yaml")


def list_places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else ()
    return [place, *(x for key, value in inner for x in list_places(value, (*place, key)))]


CONTENT = YAML(typ="safe").load(PARAMS)
PLACES = [place for place in list_places(CONTENT) if place]


class TestSettings:
    @QUICK
    @given(st.sampled_from(PLACES), VALUES)
    def test_any_value_at_any_place_is_taken_or_refused_in_one_line(
        self, place: tuple[Any, ...], value: Any
    ) -> None:
        content = YAML(typ="safe").load(PARAMS)
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        text = io.StringIO()
        YAML(typ="safe").dump(content, text)
        try:
            parse_params(text.getvalue(), PATHS)
        except UserError as error:
            assert "\n" not in str(error)
            assert str(error).startswith("params.yaml")

    @QUICK
    @given(st.text(max_size=40))
    def test_any_text_is_taken_or_refused_in_one_line(self, text: str) -> None:
        with pytest.raises(UserError) as caught:
            parse_params(text, PATHS)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system"])
    def test_no_code_is_run(self, tag: str, tmp_path: Path) -> None:
        made = tmp_path / "made"
        with pytest.raises(UserError):
            parse_params(PARAMS.replace("cpu", "") + f"x: {tag} ['touch {made}']\n", PATHS)
        assert not made.exists()


class TestStrangersFiles:
    @QUICK
    @given(
        st.lists(
            st.sampled_from(
                [
                    *("../out", "/out", "a/../../out", "a/./b", "..", ".", "", "a//b", "ok"),
                    *("C:\\out", "..\\out", "\\\\host\\out", "a\\..\\..\\out", "ok/x", "ok\0x"),
                ]
            )
            | st.text(max_size=12),
            min_size=1,
            max_size=4,
            unique=True,
        ),
        st.sampled_from(["zip", "tar", "tar.gz"]),
    )
    def test_no_archive_writes_outside_its_folder(self, names: list[str], kind: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            archive = root / f"x.{kind}"
            try:
                write_archive(archive, names)
            except (ValueError, UnicodeError, OSError):
                assume(False)  # the format has no such name
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(root)
                try:
                    unpack(archive, root / "in" / "side")
                except DownloadError as error:
                    assert "\n" not in str(error).replace(repr(names), "")
            found = {path.relative_to(root).parts[0] for path in root.rglob("*")}
            assert found <= {archive.name, "in"}
            inside = {path.name for path in (root / "in").glob("*")}
            assert inside <= {"side"}

    @pytest.mark.parametrize("target", ["../../out", "/etc", "/etc/passwd"])
    def test_links_out_of_the_folder_are_refused(self, target: str, tmp_path: Path) -> None:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            with tarfile.open(tmp_path / "x.tar", "w") as tar:
                link = tarfile.TarInfo("link")
                link.type, link.linkname = kind, target
                tar.addfile(link)
            with pytest.raises(DownloadError):
                unpack(tmp_path / "x.tar", tmp_path / "in" / "side")
            assert not list((tmp_path / "in").glob("side/*"))

    @QUICK
    @given(st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=3))
    def test_no_list_leads_out_of_its_folder(self, lines: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.txt"
            path.write_text("\n".join(lines), encoding="utf-8", errors="ignore")
            try:
                names = read_image_names(path, "list names")
            except DataError as error:
                assert str(error).startswith(str(path))
                return
            for name in names:
                image = os.path.normpath(Path(folder) / "JPEGImages" / f"{name}.jpg")
                assert Path(image).parent == Path(folder) / "JPEGImages"


def write_archive(path: Path, names: list[str]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"x")
        return
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))


def build_training(**changes: Any) -> Training:
    return build_experiment(**changes).training


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


class TestCrops:
    @QUICK
    @given(SIZES, SIZES, st.floats(0.3, 3), st.integers(0, 10**6), st.booleans())
    def test_labels_stay_classes_of_the_image(
        self, size: Any, crop_size: Any, scale: float, position: int, flip: bool
    ) -> None:
        training = build_training(
            crop_size=crop_size, random_scale=(scale, scale), horizontal_flip=flip
        )
        random = np.random.default_rng(position)
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        label = random.choice(np.array([0, 3, 7, VOID], dtype=np.uint8), size)
        _, crop = draw([size], training, 0, position)
        pixels, truth = augment(image, label, crop, training.crop_size)
        assert pixels.shape == (*training.crop_size, 3) and truth.shape == training.crop_size
        assert set(np.unique(truth)) <= {*np.unique(label), VOID}

    @QUICK
    @given(SIZES, SIZES, st.integers(0, 10**6))
    def test_image_and_label_stay_together(self, size: Any, crop_size: Any, position: int) -> None:
        """Let a grey image be its own label, at the scale 1."""
        training = build_training(crop_size=crop_size, random_scale=(1, 1), horizontal_flip=True)
        label = np.random.default_rng(position).integers(0, 255, size, dtype=np.uint8)
        _, crop = draw([size], training, 0, position)
        pixels, truth = augment(np.dstack([label] * 3), label, crop, training.crop_size)
        inside = truth != VOID
        assert inside.sum() == min(size[0], crop_size[0]) * min(size[1], crop_size[1])
        assert np.array_equal(pixels[inside][:, 0], truth[inside])


class TestSamplers:
    @QUICK
    @given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
    def test_processes_share_what_one_would_see(
        self, iterations: int, share: int, processes: int, first: int
    ) -> None:
        size = max(2, share * processes)
        assume(size % processes == 0)
        training = build_training(iterations=iterations, batch_size=size)
        whole = [*Positions(training, 0, 0, 1)]
        assert [*chain(*whole)] == list(range(iterations * size))
        first = min(first, iterations)
        parts = [[*Positions(training, first, rank, processes)] for rank in range(processes)]
        together = [[*chain(*batch)] for batch in zip(*parts, strict=True)]
        assert together == whole[first:]

    @QUICK
    @given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 99))
    def test_every_epoch_has_every_image_once(self, images: int, epoch: int, seed: int) -> None:
        training = build_training()
        places = range(epoch * images, (epoch + 1) * images)
        seen = [draw([(5, 5)] * images, training, seed, place)[0] for place in places]
        assert sorted(seen) == list(range(images))


LABELS = arrays.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, VOID]))
PREDICTIONS = arrays.arrays(np.uint8, (6, 7), elements=st.integers(0, 3))


class TestMetrics:
    @QUICK
    @given(LABELS, PREDICTIONS)
    def test_iou_is_that_of_sets(self, label: Pixels, prediction: Pixels) -> None:
        found = iou(confusion_matrix(label, prediction, 4))
        valid = label != VOID
        for index in range(4):
            truth, guess = (label == index) & valid, (prediction == index) & valid
            if (truth | guess).any():
                assert found[index] == (truth & guess).sum() / (truth | guess).sum()
            else:
                assert np.isnan(found[index])

    @QUICK
    @given(LABELS, PREDICTIONS, st.permutations(range(4)))
    def test_names_of_classes_do_not_matter(
        self, label: Pixels, prediction: Pixels, order: list[int]
    ) -> None:
        table = np.full(256, VOID, dtype=np.uint8)
        table[:4] = order
        renamed = iou(confusion_matrix(table[label], table[prediction], 4))
        assert np.array_equal(
            renamed[order], iou(confusion_matrix(label, prediction, 4)), equal_nan=True
        )

    @QUICK
    @given(LABELS, PREDICTIONS, PREDICTIONS)
    def test_what_is_predicted_on_void_does_not_matter(
        self, label: Pixels, prediction: Pixels, other: Pixels
    ) -> None:
        changed = np.where(label == VOID, other, prediction)
        one, two = (confusion_matrix(label, guess, 4) for guess in (changed, prediction))
        assert np.array_equal(one, two)
