"""Which stages of a profile are due, told from their files; DVC is not asked.

So a profile that `run.profiles` does not name can be planned, too.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from deeplab_bench.data.packed import MANIFEST, data_sha256
from deeplab_bench.results.files import (
    RESULTS,
    audit_file,
    checkpoint_file,
    crf_file,
    data_folder,
    download_record,
    inference_file,
    receptive_field_file,
    run_file,
    speed_file,
)
from deeplab_bench.results.provenance import run_code_sha256, settings_sha256
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.resolve import records

Due = dict[str, list[bool]]


def due_stages(params: Params, profile: str, models: Sequence[str]) -> Due:
    """For every stage whether each of its runs is due: not made from what there is now."""

    @cache
    def code(module: str, model: str) -> dict[str, str]:
        architecture = params.experiment(profile, model).architecture
        return {"code_sha256": run_code_sha256(f"deeplab_bench.{module}", architecture)}

    trained, evaluated, inferred, refined, audited, seen = [], [], [], [], [], []
    for model, seed in [(model, seed) for model in models for seed in params.run.seeds]:
        now = provenance(params, profile, model, seed)
        training, evaluation, refinement = (
            now | code(module, model) for module in ("training", "evaluation", "crf_evaluation")
        )
        run = read(run_file(profile, model, seed))
        done = is_made_from(checkpoint_of(profile, model, seed), training)
        trained.append(done)
        evaluated.append(done and is_made_from(run, evaluation))
        for way in params.run.inference:
            other = read(inference_file(profile, way, model, seed))
            inferred.append(done and is_made_from(other, evaluation))
        if model in params.run.crf:
            after = read(crf_file(profile, model, seed))
            refined.append(done and is_made_from(after, refinement))
        if model in params.run.audit:
            rules = read(audit_file(profile, model, seed))
            audited.append(done and is_made_from(rules, now | code("protocol_audit", model)))
        if seed == params.run.seeds[0]:
            measured = read(receptive_field_file(profile, model))
            seen.append(done and is_made_from(measured, now | code("effective_field", model)))
    due = {
        "configure": [
            read(path) != record for path, record in records(params, profile, models).items()
        ],
        "download": [not download_record(profile).is_file()],
        "prepare": [not (data_folder(profile) / MANIFEST).is_file()],
        "train": [not done for done in trained],
        "evaluate": [not done for done in evaluated],
        "infer": [not done for done in inferred],
        "crf": [not done for done in refined],
        "audit": [not done for done in audited],
        "receptive_field": [not done for done in seen],
        "speed": [
            not code("speed", model).items() <= read(speed_file(profile, label, model)).items()
            for label in params.run.hardware
            for model in models
        ],
    }
    reported = (RESULTS / profile / "README.md").is_file()
    return due | {"report": [not reported or any(map(any, due.values()))]}


def provenance(params: Params, profile: str, model: str, seed: int) -> dict[str, str]:
    """What a run is made from, but for the code; no data yet have no digest."""
    folder = data_folder(profile)
    return {
        "settings_sha256": settings_sha256(params.experiment(profile, model), seed),
        "data_sha256": data_sha256(folder) if (folder / MANIFEST).is_file() else "",
    }


def is_made_from(record: dict[str, Any], now: dict[str, str]) -> bool:
    made_from = record.get("provenance", {})
    return all(made_from.get(key) == digest for key, digest in now.items())


def checkpoint_of(profile: str, model: str, seed: int) -> dict[str, Any]:
    """Its tensors stay on the disk."""
    path = checkpoint_file(profile, model, seed)
    return torch.load(path, "cpu", weights_only=True, mmap=True) if path.is_file() else {}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
