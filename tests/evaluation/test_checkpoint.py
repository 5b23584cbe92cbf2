"""Tests that a checkpoint is opened only if everything it was made from is unchanged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import open_run
from torch import nn

from deeplab_bench.data.packed import MANIFEST
from deeplab_bench.data.pixels import DataError
from deeplab_bench.evaluation.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from deeplab_bench.results import provenance
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.settings.experiment import Experiment, Phase
from deeplab_bench.writing import write_tensors


def refused(experiment: Experiment, seed: int, data_folder: Path, path: Path) -> str:
    """Return the message of the refusal."""
    with pytest.raises(CheckpointError) as caught:
        open_run(experiment, seed, data_folder, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_holds_what_training_wrote(
    checkpoint: Checkpoint, checkpoint_file: Path, experiment: Experiment, data_folder: Path
) -> None:
    state = torch.load(checkpoint_file, map_location="cpu", weights_only=True)
    assert checkpoint.weights.keys() == state["model"].keys()
    for name, value in state["model"].items():
        assert torch.equal(checkpoint.weights[name], value)
    assert checkpoint.classes == state["classes"]
    assert checkpoint.history == state["history"]
    assert checkpoint.provenance == derive_provenance(experiment, 0, data_folder)
    assert checkpoint.provenance.model_dump() == state["provenance"]


class TestRefusal:
    def test_missing(self, experiment: Experiment, data_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        message = refused(experiment, 0, data_folder, path)
        assert message == f"{path} is missing: run `dvc repro`"

    @pytest.mark.parametrize(
        ("what", "seed"),
        [("settings", 0), ("settings", 1), ("code", 0), ("data", 0), ("weights", 0)],
        ids=["settings", "seed", "code", "data", "weights"],
    )
    def test_of_another_run(
        self,
        what: str,
        seed: int,
        experiment: Experiment,
        data_folder: Path,
        checkpoint_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / f"plain-{seed}.pt"
        shutil.copy(checkpoint_file, path)
        if what == "settings" and seed == 0:
            arguments = experiment.arguments | {"output_stride": 8}
            experiment = experiment.model_copy(update={"arguments": arguments})
        elif what in ("code", "weights"):
            name = {"code": "compute_code_sha256", "weights": "compute_weights_sha256"}[what]
            monkeypatch.setattr(provenance, name, lambda *_: "another")
        elif what == "data":
            other = shutil.copytree(data_folder, tmp_path / "toy")
            content = json.loads((other / MANIFEST).read_text())
            content["splits"]["val"]["sha256"] = "another"
            (other / MANIFEST).write_text(json.dumps(content))
            data_folder = other
        message = refused(experiment, seed, data_folder, path)
        assert f"{path} was trained with other {what} than now" in message
        run = f"train@{tmp_path.name}-plain-{seed}"
        assert message.endswith(f"run `dvc repro --single-item --force {run}`")

    def test_of_a_version_that_stored_another_provenance(
        self, experiment: Experiment, data_folder: Path, checkpoint_file: Path, tmp_path: Path
    ) -> None:
        """Check a checkpoint with one digest of all code, and no digest of the weights."""
        state = torch.load(checkpoint_file, map_location="cpu", weights_only=True)
        del state["provenance"]["weights_sha256"]
        state["provenance"]["code_sha256"] = "digest"
        write_tensors(tmp_path / "x.pt", state)
        message = refused(experiment, 0, data_folder, tmp_path / "x.pt")
        assert "x.pt was trained with other code than" in message

    @pytest.mark.parametrize("change", ["cut short", "empty", "text", "of something else"])
    def test_damaged(
        self,
        change: str,
        experiment: Experiment,
        data_folder: Path,
        checkpoint_file: Path,
        tmp_path: Path,
    ) -> None:
        path, content = tmp_path / "x.pt", checkpoint_file.read_bytes()
        path.write_bytes({"cut short": content[:5000], "text": b"no tensors"}.get(change, b""))
        if change == "of something else":
            write_tensors(path, {"model": {}})
        message = refused(experiment, 0, data_folder, path)
        assert message.startswith(f"{path} is damaged or no checkpoint of a run: run `dvc repro")

    def test_data_not_prepared(
        self, experiment: Experiment, checkpoint_file: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match="dvc repro prepare@nothing"):
            open_run(experiment, 0, tmp_path / "nothing", checkpoint_file)


class TestReadingAlone:
    def test_holds_its_settings(
        self, checkpoint: Checkpoint, checkpoint_file: Path, experiment: Experiment
    ) -> None:
        read = read_checkpoint(checkpoint_file)
        assert read.experiment == checkpoint.experiment == experiment
        assert (read.classes, read.provenance) == (checkpoint.classes, checkpoint.provenance)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("gone.pt", "is missing: give the path of a checkpoint"),
            ("text.pt", "is damaged or no checkpoint of a run: give a checkpoint that the stage"),
            ("other.pt", "is of another version of deeplab-bench: use that version"),
        ],
    )
    def test_refusal(self, name: str, said: str, checkpoint_file: Path, tmp_path: Path) -> None:
        (tmp_path / "text.pt").write_text("no tensors")
        state = torch.load(checkpoint_file, map_location="cpu", weights_only=True)
        state["experiment"]["training"]["learning_rate"] = 0.1
        write_tensors(tmp_path / "other.pt", state)
        with pytest.raises(CheckpointError, match=f"{name} {said}"):
            read_checkpoint(tmp_path / name)


class TestModel:
    def dilations(self, model: nn.Module) -> set[int]:
        return {m.dilation[0] for m in model.modules() if isinstance(m, nn.Conv2d)}

    def test_has_the_weights_and_the_training_s_stride(self, checkpoint: Checkpoint) -> None:
        model = checkpoint.build_model()
        for name, value in model.state_dict().items():
            assert torch.equal(value, checkpoint.weights[name])
        assert self.dilations(model) == {1, 2}

    def test_has_the_stride_of_inference(self, checkpoint: Checkpoint) -> None:
        model = checkpoint.build_model(8)
        assert self.dilations(model) == {1, 2, 4}

    def test_has_the_stride_of_the_last_phase(
        self, checkpoint: Checkpoint, experiment: Experiment
    ) -> None:
        arguments = experiment.arguments | {"output_stride": 8}
        then = Phase(arguments=arguments, training=experiment.training)
        changed = experiment.model_copy(update={"second_phase": then})
        model = replace(checkpoint, experiment=changed).build_model()
        assert self.dilations(model) == {1, 2, 4}
