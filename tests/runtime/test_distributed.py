"""Tests that two processes give the results of one."""

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import open_run, train_run
from PIL import Image
from torch import nn

from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.samples import tile
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.models import get_module_name
from deeplab_bench.results.code_digest import ROOT
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.stage_settings import write_settings
from deeplab_bench.runtime.distributed import SynchronisedBatchNorm, synchronise_batch_norm
from deeplab_bench.settings.experiment import Experiment, StageSettings
from deeplab_bench.settings.inference import EvaluationSettings, Inference
from deeplab_bench.settings.process import Process
from deeplab_bench.training.snapshots import Snapshots

pytestmark = pytest.mark.long(seconds=60)

STAGE = ("-m", "deeplab_bench")


def torchrun(folder: Path, *command: str, world_size: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={world_size}", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def balanced(experiment: Experiment) -> Experiment:
    """Set two crops per process; their numbers of valid pixels differ."""
    changes = {"batch_size": 4, "class_balancing": 0.5, "base_lr": 0.01}
    training = experiment.training.model_copy(update=changes)
    return experiment.model_copy(update={"training": training})


def write_stage_settings(folder: Path, experiment: Experiment) -> None:
    """Write the settings of training and evaluation into the project's folder."""
    module = get_module_name(experiment.architecture)
    plain = StageSettings(experiment=experiment)
    once = EvaluationSettings(experiment=experiment, inference=Inference())
    with contextlib.chdir(folder):
        files = ProfileFiles("toy")
        write_settings(files, "train", "plain", settings=plain, process=Process(), module=module)
        write_settings(
            files, "evaluate", "once", "plain", settings=once, process=Process(), module=module
        )


@pytest.fixture(scope="module")
def project(
    balanced: Experiment, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make a project folder in which two processes have trained and evaluated a network."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(data_folder, folder / "data/toy")
    write_stage_settings(folder, balanced)
    for command in (["train", "toy"], ["evaluate", "toy", "once"]):
        done = torchrun(folder, *STAGE, *command, "plain", "0")
        assert done.returncode == 0, done.stderr
    return folder


def load(checkpoint: Path) -> Any:
    return torch.load(checkpoint, weights_only=True)


def test_training_is_that_of_one_process(
    project: Path, balanced: Experiment, data_folder: Path, tmp_path: Path
) -> None:
    """Compare the losses, all weights and all statistics of batch normalisation."""
    train_run(balanced, 0, data_folder, tmp_path / "plain-0.pt")
    ours = load(project / "checkpoints/toy/plain-0.pt")
    alone = load(tmp_path / "plain-0.pt")
    assert ours["history"]["loss"] == pytest.approx(alone["history"]["loss"], rel=1e-4)
    assert ours["model"].keys() == alone["model"].keys()
    for name, value in alone["model"].items():
        torch.testing.assert_close(ours["model"][name], value, rtol=1e-3, atol=1e-4, msg=name)
    timing = json.loads((project / "checkpoints/toy/plain-0.timing.json").read_text())
    assert timing["environment"]["world_size"] == 2


def test_every_image_is_scored_once(
    project: Path, balanced: Experiment, data_folder: Path, val: Split
) -> None:
    files = RunFiles("toy", "plain", 0)
    checkpoint = open_run(balanced, 0, data_folder, project / files.checkpoint)
    expected, samples = evaluate(
        balanced, 0, Inference(), val, load_split(data_folder, "train"), checkpoint
    )
    found = json.loads((project / files.evaluation("once")).read_text())
    assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
    curve = json.loads((project / files.curve).read_text())
    assert curve["miou"] == [found["metrics"]["miou"]]  # of process 0, at the end, on all images
    with Image.open(project / files.samples("once")) as image:
        np.testing.assert_array_equal(np.asarray(image), tile(samples))


def test_other_stages_are_refused(project: Path) -> None:
    done = torchrun(project, *STAGE, "prepare", "toy")
    assert done.returncode != 0
    assert "prepare runs in one process: run it without torchrun" in done.stderr


RESUME = """\
import os
from pathlib import Path
import torch
from deeplab_bench.runtime import distributed
from deeplab_bench.training.snapshots import Snapshots
folder = Path(os.environ["RANK"])
with distributed.process_group():
    state = Snapshots(folder / "fcn-0.pt", {}).load(1, torch.device("cpu"))
    (folder / "resumed").write_text(f"{state['iteration']} {state['weight'].tolist()}")
"""


def test_all_machines_go_on_from_the_snapshot_of_process_0(tmp_path: Path) -> None:
    """Check folders of their own: one has a damaged snapshot, the other an older one alone."""
    for rank, iterations in ((0, (4, 6, 8)), (1, (2,))):
        snapshots = Snapshots(tmp_path / str(rank) / "fcn-0.pt", {})
        for iteration in iterations:
            weight = torch.full((2,), float(iteration))
            snapshots.save(1, iteration, {"iteration": iteration, "weight": weight})
    newest = max(tmp_path.glob("0/*.snapshot"))
    newest.write_bytes(newest.read_bytes()[:99])
    (tmp_path / "resume.py").write_text(RESUME, encoding="utf-8")
    done = torchrun(tmp_path, "resume.py")
    assert done.returncode == 0, done.stderr
    resumed = [(tmp_path / str(rank) / "resumed").read_text() for rank in (0, 1)]
    assert resumed == ["6 [6.0, 6.0]"] * 2


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Start a process group with this process only."""
    where = (tmp_path / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("precision", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)], ids=str
)
def test_synchronised_is_torchs_batch_normalisation(
    group: None, precision: torch.dtype, rtol: float
) -> None:
    random = torch.Generator().manual_seed(0)
    plain = nn.BatchNorm2d(4, momentum=0.3)
    nn.init.normal_(plain.weight, generator=random)
    nn.init.normal_(plain.bias, generator=random)
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(copy.deepcopy(plain)))
    before = list(layers.parameters())
    synchronise_batch_norm(layers)
    ours = next(module for module in layers.modules() if isinstance(module, SynchronisedBatchNorm))
    assert all(p is q for p, q in zip(layers.parameters(), before, strict=True))
    for training in (True, False):
        inputs = 5 + 3 * torch.randn(2, 4, 5, 6, generator=random)
        found = []
        for layer in (ours, plain):
            x = inputs.to(precision).requires_grad_()
            y = layer.train(training)(x)
            y.float().square().sum().backward()
            found.append([y, x.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=rtol, atol=1e-3)
