"""Tests of the stages after the training: what they check, and what they write."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import open_run
from PIL import Image

from deeplab_bench.data.packed import MANIFEST, Split, compute_data_sha256, load_split
from deeplab_bench.data.pixels import DataError, build_voc_palette
from deeplab_bench.data.samples import tile
from deeplab_bench.evaluation.checkpoint import Checkpoint, CheckpointError
from deeplab_bench.evaluation.crf import evaluate as crf_evaluation
from deeplab_bench.evaluation.crf.refinement import refine_image
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import compute_settings_sha256, derive_provenance
from deeplab_bench.results.records import (
    AuditRecord,
    CRFRecord,
    CRFTimingRecord,
    EvaluationRecord,
    ReceptiveFieldRecord,
    RunRecord,
    TimingRecord,
    read_record,
)
from deeplab_bench.results.stage_settings import read_settings, write_settings
from deeplab_bench.settings.base import SettingsError
from deeplab_bench.settings.crf import CRF, CRFSettings
from deeplab_bench.settings.experiment import Experiment, Phase, StageSettings
from deeplab_bench.settings.inference import PLAIN, EvaluationSettings, Inference
from deeplab_bench.settings.process import Process
from deeplab_bench.training.train import read_timing
from deeplab_bench.writing import write_tensors
from pipelines import audit, crf, receptive_field, train
from pipelines import evaluate as evaluation

PROFILE = ProfileFiles("toy")
RUN = RunFiles("toy", "plain", 0)
OS8 = "os8"
FCN = "deeplab_bench.models.fcn"
WAYS = {PLAIN: Inference(), OS8: Inference(output_stride=8)}
REFINEMENT = CRF(
    w1=2.0, sigma_alpha=8.0, sigma_beta=12.0, w2=1.0, sigma_gamma=2.0, iterations=(0, 1, 3)
)


class Stage(NamedTuple):
    """A stage's script, its first arguments, its record and its pictures."""

    main: Callable[..., None]
    names: tuple[str, ...]
    record: Path
    schema: type[RunRecord]
    pictures: list[Path]

    def run(self, seed: int = 0) -> Any:
        """Run the stage and return the JSON of its record."""
        self.main("toy", *self.names, "plain", seed)
        read_record(self.record, self.schema)
        return json.loads(self.record.read_text())


CASES = {
    "evaluate": Stage(
        evaluation.main, (PLAIN,), RUN.evaluation(PLAIN), EvaluationRecord, [RUN.samples(PLAIN)]
    ),
    "crf": Stage(crf.main, (), RUN.crf, CRFRecord, list(RUN.crf_samples.values())),
    "audit": Stage(audit.main, (), RUN.audit, AuditRecord, []),
    "receptive_field": Stage(
        receptive_field.main,
        (),
        PROFILE.receptive_field("plain"),
        ReceptiveFieldRecord,
        [PROFILE.receptive_field_maps("plain")],
    ),
}
each_stage = pytest.mark.parametrize("stage", CASES)


def settings_file(stage: str) -> Path:
    return PROFILE.settings(stage, *CASES[stage].names, "plain")


@pytest.fixture(autouse=True)
def _project(
    experiment: Experiment,
    data_folder: Path,
    checkpoint_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Make a folder with data, settings and a checkpoint; the CRF runs in this process."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_folder, PROFILE.data)
    shutil.copytree(checkpoint_file.parent, RUN.checkpoint.parent)
    plain = StageSettings(experiment=experiment)
    for stage in ("train", "audit", "receptive_field"):
        write_settings(PROFILE, stage, "plain", settings=plain, process=Process(), module=FCN)
    for name, inference in WAYS.items():
        of_way = EvaluationSettings(experiment=experiment, inference=inference)
        write_settings(
            PROFILE, "evaluate", name, "plain", settings=of_way, process=Process(), module=FCN
        )
    of_crf = CRFSettings(experiment=experiment, crf=REFINEMENT)
    write_settings(PROFILE, "crf", "plain", settings=of_crf, process=Process(), module=FCN)
    monkeypatch.setattr(
        crf_evaluation, "refine_images", lambda tasks, workers: map(refine_image, tasks)
    )


def results() -> dict[Path, bytes]:
    """Return all files that are equal in two identical runs."""
    folders = (PROFILE.folder / "runs", PROFILE.folder / "samples")
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths}


@each_stage
class TestEveryStage:
    def test_says_what_the_record_is_of(self, stage: str, experiment: Experiment) -> None:
        record = CASES[stage].run()
        assert list(record)[:5] == ["profile", "model", "seed", "provenance", "trained_on_val"]
        assert record["trained_on_val"] is False
        assert [record[key] for key in ("profile", "model", "seed")] == ["toy", "plain", 0]
        assert record["provenance"] == {
            "settings_sha256": compute_settings_sha256(experiment, 0),
            "data_sha256": compute_data_sha256(PROFILE.data),
            "weights_sha256": None,
            "code_sha256": {
                "train": compute_code_sha256("train", FCN),
                stage: compute_code_sha256(stage, FCN),
            },
        }

    def test_says_if_a_phase_was_trained_on_val(self, stage: str, experiment: Experiment) -> None:
        """Check it with a split that shares a single image with val."""
        manifest = json.loads((PROFILE.data / MANIFEST).read_text())
        names = manifest["splits"]["train"]["names"]
        manifest["splits"]["more"] = {"names": [*names, manifest["splits"]["val"]["names"][-1]]}
        (PROFILE.data / MANIFEST).write_text(json.dumps(manifest))
        for split, expected in (("train", False), ("more", True)):
            second = Phase(
                arguments=experiment.arguments, training=experiment.training, train_split=split
            )
            other = experiment.model_copy(update={"second_phase": second})
            settings = json.loads(settings_file(stage).read_text())
            settings["settings"]["experiment"] = other.model_dump(mode="json")
            settings_file(stage).write_text(json.dumps(settings))
            state = torch.load(RUN.checkpoint, weights_only=True)
            state["provenance"] = derive_provenance(other, 0, PROFILE.data).model_dump()
            write_tensors(RUN.checkpoint, state)
            assert CASES[stage].run()["trained_on_val"] is expected

    def test_pictures_lie_beside_the_record(self, stage: str) -> None:
        CASES[stage].run()
        assert set(results()) == {CASES[stage].record, *CASES[stage].pictures}
        for path in CASES[stage].pictures:
            with Image.open(path) as image:
                assert image.format == "PNG" and image.width > 48

    def test_two_runs_write_the_same_bytes(self, stage: str) -> None:
        """Draw random numbers before the second run."""
        CASES[stage].run()
        first = results()
        shutil.rmtree(PROFILE.folder / "runs")
        shutil.rmtree(PROFILE.folder / "samples", ignore_errors=True)
        torch.manual_seed(7)
        np.random.seed(7)
        CASES[stage].run()
        assert results() == first

    def refused(self, stage: str, error: type[Exception], seed: int = 0) -> str:
        with pytest.raises(error) as caught:
            CASES[stage].run(seed)
        assert "\n" not in str(caught.value)
        assert not results()
        return str(caught.value)

    REMEDY = "run `dvc repro`, or `deeplab-bench resolve toy` before"

    def test_settings_of_older_code_are_refused(self, stage: str) -> None:
        path = settings_file(stage)
        content = json.loads(path.read_text()) | {"code_sha256": "another"}
        path.write_text(json.dumps(content))
        message = self.refused(stage, SettingsError)
        assert message == f"{path} is of older code of the stage {stage}: {self.REMEDY} {stage}"

    @pytest.mark.parametrize("change", ["no digest", "unknown setting", "cut short", "a list"])
    def test_damaged_settings_are_refused(self, stage: str, change: str) -> None:
        path = settings_file(stage)
        content = json.loads(path.read_text())
        if change == "no digest":
            del content["code_sha256"]
        content["settings"] |= {"of_older_code": 1} if change == "unknown setting" else {}
        text = json.dumps([content] if change == "a list" else content)
        path.write_text(text[: len(text) // 2] if change == "cut short" else text)
        message = self.refused(stage, SettingsError)
        assert message == f"{path} is damaged or of older code: {self.REMEDY} {stage}"

    def test_missing_settings_are_named(self, stage: str) -> None:
        settings_file(stage).unlink()
        message = self.refused(stage, SettingsError)
        assert message.startswith(f"{settings_file(stage)} is missing: check the names")

    def test_missing_checkpoint_is_named(self, stage: str) -> None:
        RUN.checkpoint.unlink()
        message = self.refused(stage, CheckpointError)
        assert message == f"{RUN.checkpoint} is missing: run `dvc repro`"

    def test_missing_data_are_named(self, stage: str) -> None:
        shutil.rmtree(PROFILE.data)
        assert "dvc repro prepare@toy" in self.refused(stage, DataError)

    def test_checkpoint_of_another_run_is_refused(self, stage: str) -> None:
        path = RUN.checkpoint.with_name("plain-1.pt")
        RUN.checkpoint.rename(path)
        message = self.refused(stage, CheckpointError, seed=1)
        assert message == (
            f"{path} was trained with other settings than now: run "
            "`dvc repro --single-item --force train@toy-plain-1`"
        )


class TestEvaluate:
    def test_record_is_the_evaluation(
        self, experiment: Experiment, checkpoint: Checkpoint, val: Split
    ) -> None:
        record = CASES["evaluate"].run()
        result, samples = evaluate(
            experiment, 0, Inference(), val, load_split(PROFILE.data, "train"), checkpoint
        )
        expected = json.loads(json.dumps({"inference": PLAIN} | result))
        assert dict(list(record.items())[5:]) == expected
        with Image.open(RUN.samples(PLAIN)) as image:
            np.testing.assert_array_equal(np.asarray(image), tile(samples))
            palette = image.getpalette()
        assert palette is not None
        assert bytes(palette) == build_voc_palette()[: len(palette)]

    def test_ways_of_inference_have_their_own_files(self) -> None:
        plain = CASES["evaluate"].run()
        evaluation.main("toy", OS8, "plain", 0)
        other = json.loads(RUN.evaluation(OS8).read_text())
        assert [record["inference"] for record in (plain, other)] == [PLAIN, OS8]
        strides = [record["settings"]["inference"]["output_stride"] for record in (plain, other)]
        assert strides == [None, 8]
        assert json.loads(RUN.evaluation(PLAIN).read_text()) == plain
        assert RUN.samples(PLAIN).read_bytes() != RUN.samples(OS8).read_bytes()

    def test_times_are_kept_apart(self) -> None:
        record = CASES["evaluate"].run()
        timing = read_record(RUN.evaluation_timing(PLAIN), TimingRecord).model_dump()
        assert set(timing) == {"training_seconds", "evaluation_seconds", "environment", "sources"}
        assert list(timing["sources"]) == ["train", "evaluate"]
        assert not set(timing) & set(record)
        assert timing["training_seconds"] == read_timing(RUN.checkpoint)["training_seconds"]


def test_crf_times_are_kept_apart() -> None:
    record = CASES["crf"].run()
    timing = read_record(RUN.crf_timing, CRFTimingRecord).model_dump()
    assert timing["seconds_per_image"] > 0
    assert not set(timing) & set(record)


def test_the_stage_of_training_makes_the_checkpoint_that_the_others_take(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplab_bench.training.train.count_default_workers", lambda device: 0)
    shutil.rmtree(RUN.checkpoint.parent)
    train.main("toy", "plain", 0)
    provenance = open_run(experiment, 0, PROFILE.data, RUN.checkpoint).provenance
    assert provenance.code_sha256 == {"train": compute_code_sha256("train", FCN)}
    for stage in CASES.values():
        assert stage.run()["provenance"]["code_sha256"]["train"] == provenance.code_sha256["train"]


def test_settings_are_read_as_they_were_written(experiment: Experiment) -> None:
    settings = CRFSettings(experiment=experiment, crf=REFINEMENT)
    write_settings(PROFILE, "crf", "x", settings=settings, process=Process(), module=FCN)
    assert read_settings(PROFILE, "crf", "x", schema=CRFSettings) == settings
