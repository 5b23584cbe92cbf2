"""Tests of the verdict on two sets of results of one run."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from deeplab_bench.results.files import RunFiles
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.results.records import (
    CurveRecord,
    Fingerprint,
    FingerprintRecord,
    RunDifference,
    ToleranceRecord,
)
from deeplab_bench.verification.verdict import (
    RunResults,
    Verdict,
    compare,
    list_changed_machine,
    list_stale,
)

RUN = RunFiles("toy", "plain", 0)
PROVENANCE = {
    "settings_sha256": "s",
    "data_sha256": "d",
    "weights_sha256": None,
    "code_sha256": {"train": "t", "evaluate": "e"},
}
TOLERANCE = ToleranceRecord(
    profile="toy",
    instruction_sets=("AVX2", "AVX512"),
    environment={},
    runs={
        "plain-0": RunDifference(settings_sha256="s", loss=1e-7, miou=-0.03),
        "plain-1": RunDifference(settings_sha256="s", loss=2e-7, miou=0.01),
    },
)


def make_results(
    miou: float = 0.4,
    loss: float = 1.5,
    first: str = "aaaa",
    weights: str = "imagenet",
    **provenance: Any,
) -> RunResults:
    """Make the results of a training of one iteration, with one layer without statistics."""
    of_run = PROVENANCE | provenance
    digest = "bbbb" if loss == 1.5 else "cccc"
    points = {
        0: Fingerprint(weights=first, parameters=first, statistics=""),
        1: Fingerprint(weights=digest, parameters=digest, statistics=""),
    }
    fingerprints = FingerprintRecord(
        profile="toy",
        model="plain",
        seed=0,
        provenance=Provenance(**of_run),
        layers={"classifier": "Conv2d 1x1"},
        statistics=(),
        losses={1: loss},
        points=points,
    )
    evaluation = {
        "metrics": {"miou": miou},
        "classes": ["a"],
        "settings": {"training": {"weights": weights}},
        "provenance": of_run,
    }
    return RunResults({"plain": evaluation}, fingerprints, {"threads": 2, "torch": "2"})


def judge(
    here: RunResults | None, tolerance: ToleranceRecord | None = TOLERANCE
) -> tuple[Verdict, str]:
    comparison = compare(RUN, make_results(), here, tolerance)
    return comparison.verdict, comparison.why


def test_equal_results_are_identical() -> None:
    assert judge(make_results()) == (Verdict.IDENTICAL, "")


def test_the_digest_of_the_code_is_no_result() -> None:
    here = make_results(code_sha256={"train": "other"})
    assert judge(here) == (Verdict.IDENTICAL, "")
    assert list_stale(compare(RUN, make_results(), here, None)) == ["code"]


def test_other_data_are_different() -> None:
    verdict, why = judge(None)
    assert verdict == Verdict.DIFFERENT
    assert why == "the data differ from those of the committed results: nothing was trained"


@pytest.mark.parametrize("miou", [0.371, 0.4, 0.429])
def test_a_rounding_is_tolerated(miou: float) -> None:
    """Check losses apart by less than ten times 2e-7, and scores by less than 0.03."""
    verdict, why = judge(make_results(miou, 1.5 * (1 + 1e-6)))
    assert verdict == Verdict.TOLERATED
    assert why == "iteration 1: forward pass, seen in the loss; loss off by 1.0e-06"


@pytest.mark.parametrize(
    "here",
    [
        pytest.param(make_results(0.431, 1.5 * (1 + 1e-6)), id="score"),
        pytest.param(make_results(0.41, 1.5 * (1 + 1e-5)), id="loss"),
        pytest.param(make_results(0.41, 1.5 * (1 + 1e-6), settings_sha256="x"), id="settings"),
        pytest.param(make_results(0.41, 1.5 * (1 + 1e-6), weights_sha256="x"), id="pretrained"),
        pytest.param(make_results(0.41, 1.5 * (1 + 1e-6), first="abab"), id="initial weights"),
        pytest.param(make_results(0.41), id="evaluation alone"),
    ],
)
def test_more_than_a_rounding_is_different(here: RunResults) -> None:
    assert judge(here)[0] == Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("miou", "expected"), [(0.429, Verdict.TOLERATED), (0.431, Verdict.DIFFERENT)]
)
def test_the_score_alone_decides_after_another_pretraining(miou: float, expected: Verdict) -> None:
    committed = make_results(weights="pretrained")
    here = make_results(miou, 1.6, first="abab", weights="pretrained", weights_sha256="x")
    assert compare(RUN, committed, here, TOLERANCE).verdict == expected


def test_no_loss_is_tolerated_if_all_measured_runs_had_another_pretraining() -> None:
    runs = {"plain-0": RunDifference(settings_sha256="s", loss=None, miou=0.03)}
    tolerance = TOLERANCE.model_copy(update={"runs": runs})
    assert judge(make_results(0.41, 1.5 * (1 + 1e-9)), tolerance)[0] == Verdict.DIFFERENT


def test_nothing_is_tolerated_that_was_not_measured() -> None:
    here = make_results(0.4, 1.5 * (1 + 1e-6))
    assert judge(here, None)[0] == Verdict.DIFFERENT
    of_another_run = TOLERANCE.model_copy(update={"runs": {"plain-1": TOLERANCE.runs["plain-1"]}})
    assert judge(here, of_another_run)[0] == Verdict.DIFFERENT


def test_a_tolerance_of_older_settings_does_not_count() -> None:
    older = RunDifference(settings_sha256="older", loss=1e-7, miou=-0.03)
    tolerance = TOLERANCE.model_copy(update={"runs": TOLERANCE.runs | {"plain-0": older}})
    assert judge(make_results(0.4, 1.5 * (1 + 1e-6)), tolerance)[0] == Verdict.DIFFERENT


def test_other_scores_of_equal_weights_are_named() -> None:
    _, why = judge(make_results(0.41))
    assert why == "evaluation: the weights are equal, but not metrics"


def test_scores_alone_decide_without_fingerprints() -> None:
    committed = make_results()
    blind = RunResults(committed.evaluations, None, {})
    assert compare(RUN, blind, make_results(), None).verdict == Verdict.IDENTICAL
    comparison = compare(RUN, blind, make_results(0.41), TOLERANCE)
    assert comparison.verdict == Verdict.DIFFERENT
    assert comparison.why.startswith("metrics; no fingerprints are committed")


@pytest.mark.parametrize(("miou", "code", "named"), [(0.3, "x", ""), (0.31, "t", " curve")])
def test_another_validation_curve_is_named(miou: float, code: str, named: str) -> None:
    """Check also that the digest of the code is no part of it, and that older results have none."""
    provenance = Provenance.model_validate(PROVENANCE)
    curves = [
        CurveRecord(
            profile="toy",
            model="plain",
            seed=0,
            provenance=provenance.model_copy(update={"code_sha256": {"train": of}}),
            images=4,
            iteration=(20,),
            loss=(None,),
            miou=(value,),
        )
        for value, of in ((0.3, "t"), (miou, code))
    ]
    committed, here = (replace(make_results(), curve=curve) for curve in curves)
    why = "evaluation: the weights are equal, but not validation" + named
    assert compare(RUN, committed, here, TOLERANCE).why == (why if named else "")
    assert compare(RUN, make_results(), here, TOLERANCE).verdict == Verdict.IDENTICAL


def test_other_machines_are_named() -> None:
    here = copy.deepcopy(make_results())
    here.environment.update(threads=1, new=3)
    comparison = compare(RUN, make_results(), here, None)
    assert list_changed_machine(comparison) == ["threads 2, here 1"]
