"""Tests of ``verify`` in a repository of its own with a tiny profile."""

import re
from pathlib import Path
from typing import Any

import pytest
from miniature import Repository

from deeplab_bench.errors import UserError
from deeplab_bench.results.files import RunFiles, get_tolerance_file
from deeplab_bench.results.records import ToleranceRecord, read_record
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params_file import PARAMS_FILE
from deeplab_bench.verification.verdict import read_results
from pipelines import verify
from pipelines.reruns import clone_head
from studies import instruction_sets

pytestmark = pytest.mark.long(seconds=40)

MAKE = """\
from pipelines import download, evaluate, prepare, resolve, train
for stage in (resolve, download, prepare):
    stage.main("miniature")
for model in ("fcn", "aspp"):
    train.main("miniature", model, 0)
    evaluate.main("miniature", "plain", model, 0)
"""

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make a repository with committed results."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.python("-c", MAKE)
    repository.commit()
    return repository


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of a dependency of DVC
def test_identical_then_different(
    committed: Repository,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Check a fresh commit, and one whose learning rate is not that of its results."""
    monkeypatch.chdir(committed.root)
    before = committed.run("git", "status", "--porcelain", "--ignored").stdout
    assert verify.main(models="aspp") == 0
    out, err = capfd.readouterr()
    assert re.search(r"^miniature aspp 0  +identical  +[\d.]+  +[\d.]+$", out, re.M)
    assert "All runs are identical" in out
    assert re.findall(r"Running (\w+)@", err) == [
        *("resolve", "download", "prepare", "pretrain", "train", "evaluate")
    ]
    assert committed.run("git", "status", "--porcelain", "--ignored").stdout == before

    committed.edit("base_lr: 0.05", "base_lr: 0.06")
    committed.commit()
    committed.edit("base_lr: 0.06", "base_lr: 0.05")
    assert verify.main("miniature", models="aspp") == 1
    out, _ = capfd.readouterr()
    assert re.search(r"^miniature aspp 0  +different ", out, re.M)
    assert "miniature aspp 0: iteration 1: backward pass or optimiser, first seen in class" in out
    text = " ".join(out.split())
    assert "No tolerance is measured for miniature" in text
    assert "made with other settings than HEAD has" in text
    assert "without the changes to params.yaml" in text


@pytest.mark.parametrize(
    ("profiles", "options", "message"),
    [
        (["minature"], {}, "PROFILES: 'minature' is not defined"),
        ([], {"models": "asp"}, "--models: 'asp' is not defined; the nearest valid one is 'aspp'"),
        ([], {"seed": 3}, "results/miniature/runs/evaluate/plain/aspp-3.json is missing"),
    ],
)
def test_mistakes_are_told_before_any_work(
    profiles: list[str],
    options: dict[str, Any],
    message: str,
    committed: Repository,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(committed.root)
    with pytest.raises(UserError, match=message) as caught:
        verify.main(*profiles, **options)
    assert "\n" not in str(caught.value)
    assert "Running" not in capfd.readouterr().err


@pytest.mark.parametrize("profile", ["quick", "camvid", "voc_animals"])
def test_the_default_models_of_a_profile_have_committed_results(profile: str) -> None:
    """Check a profile with a ``run`` of its own, too."""
    params = load_params(ROOT / PARAMS_FILE)
    models = verify.choose_models(params.for_profile(profile), profile)
    for model in models:
        assert read_results(ROOT, RunFiles(profile, model, 0), ("plain",))
    assert "aspp" in models


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"`git clone .*` failed: fatal: "):
        verify.main()


def test_downloads_are_linked_and_records_are_not(
    committed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that a stage of the clone cannot overwrite a record that is here."""
    monkeypatch.chdir(committed.root)
    archive = committed.root / "data" / "downloads" / "x.tar"
    archive.write_bytes(b"x")
    with clone_head() as clone:
        linked = clone / "data" / "downloads"
        assert [path.name for path in linked.iterdir()] == ["x.tar"]
        assert (linked / "x.tar").read_bytes() == b"x"
    assert archive.is_file()
    archive.unlink()


def test_the_tolerance_is_measured(committed: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the study with made-up results of another instruction set."""
    monkeypatch.chdir(committed.root)
    committed.edit("models: [fcn, aspp]", "models: [fcn]")
    committed.commit()
    run = RunFiles("miniature", "fcn", 0)
    here = read_results(committed.root, run, ["plain"])
    monkeypatch.setattr(instruction_sets, "rerun", lambda *_: {run: here})
    with pytest.raises(UserError, match=r"the runs are all of .*: set ATEN_CPU_CAPABILITY"):
        instruction_sets.measure("miniature")

    here.environment["instruction_set"] = "OTHER"
    here.evaluations["plain"]["metrics"]["miou"] -= 0.02
    assert here.fingerprints is not None
    here.fingerprints.losses[2] = (here.fingerprints.losses[2] or 0) * (1 + 1e-6)
    instruction_sets.measure("miniature")
    record = read_record(get_tolerance_file("miniature"), ToleranceRecord)
    assert record.miou == pytest.approx(0.02)
    assert record.loss == pytest.approx(1e-6, rel=0.2)
    assert "OTHER" in record.instruction_sets and list(record.runs) == ["fcn-0"]
