"""The verdict on a run that was made again: identical, within the tolerance, or different."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from deeplab_bench.results.files import RunFiles
from deeplab_bench.results.records import (
    CurveRecord,
    Environment,
    EvaluationRecord,
    FingerprintRecord,
    TimingRecord,
    ToleranceRecord,
    read_record,
)
from deeplab_bench.settings.experiment import PRETRAINED
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.verification.departure import Departure, find_departure

# A loss may change by this factor more than was measured: a change of rounding and a change of the
# computation are orders of magnitude apart.
LOSS_MARGIN = 10


class Verdict(StrEnum):
    IDENTICAL = "identical"
    TOLERATED = "within tolerance"
    DIFFERENT = "different"


@dataclass(frozen=True)
class RunResults:
    """The results of a run that two trainings have in common.

    ``evaluations`` has the content of the file of each way of inference. ``fingerprints`` and
    ``curve`` are None for results of older code, which kept none.
    """

    evaluations: dict[str, dict[str, Any]]
    fingerprints: FingerprintRecord | None
    environment: Environment
    curve: CurveRecord | None = None

    @property
    def miou(self) -> float:
        return self.evaluations[PLAIN]["metrics"]["miou"]

    @property
    def provenance(self) -> dict[str, Any]:
        return self.evaluations[PLAIN]["provenance"]

    @property
    def weights(self) -> str:
        """``training.weights`` of the run."""
        return self.evaluations[PLAIN]["settings"]["training"]["weights"]


@dataclass(frozen=True)
class Comparison:
    """A run's committed results beside those made here; ``here`` is None if none were made."""

    files: RunFiles
    verdict: Verdict
    committed: RunResults
    here: RunResults | None
    why: str


def read_results(root: Path, files: RunFiles, ways: Sequence[str]) -> RunResults:
    """Read the results of a run in the repository at ``root``.

    Raises:
        RecordError: a result is missing or malformed.
    """
    evaluations = {}
    for way in ways:
        path = root / files.evaluation(way)
        read_record(path, EvaluationRecord)
        evaluations[way] = json.loads(path.read_text(encoding="utf-8"))
    fingerprints, curve = root / files.fingerprints, root / files.curve
    return RunResults(
        evaluations,
        read_record(fingerprints, FingerprintRecord) if fingerprints.is_file() else None,
        read_record(root / files.evaluation_timing(PLAIN), TimingRecord).environment,
        read_record(curve, CurveRecord) if curve.is_file() else None,
    )


def compare(
    files: RunFiles,
    committed: RunResults,
    here: RunResults | None,
    tolerance: ToleranceRecord | None,
) -> Comparison:
    """Compare all results of a run. The digest of the code is no result."""
    if here is None:
        why = "the data differ from those of the committed results: nothing was trained"
        return Comparison(files, Verdict.DIFFERENT, committed, here, why)
    departure = None
    if committed.fingerprints and here.fingerprints:
        departure = find_departure(committed.fingerprints, here.fingerprints)
    changed = list_changed_keys(committed, here)
    if departure is None and not changed:
        return Comparison(files, Verdict.IDENTICAL, committed, here, "")
    tolerated = (
        departure is not None
        and tolerance is not None
        and is_measured(tolerance, files, committed)
        and is_tolerated(committed, here, departure, tolerance)
    )
    verdict = Verdict.TOLERATED if tolerated else Verdict.DIFFERENT
    return Comparison(files, verdict, committed, here, explain(committed, departure, changed))


def explain(committed: RunResults, departure: Departure | None, changed: Sequence[str]) -> str:
    if departure is not None:
        return str(departure)
    keys = ", ".join(dict.fromkeys(changed))
    if committed.fingerprints is None:
        return f"{keys}; no fingerprints are committed, which would tell the iteration"
    return f"evaluation: the weights are equal, but not {keys}"


def is_measured(tolerance: ToleranceRecord, files: RunFiles, committed: RunResults) -> bool:
    """Return whether the tolerance was measured with this run, under its settings of today."""
    measured = tolerance.runs.get(files.name)
    own = committed.provenance["settings_sha256"]
    return measured is not None and measured.settings_sha256 == own


def is_tolerated(
    committed: RunResults, here: RunResults, departure: Departure, tolerance: ToleranceRecord
) -> bool:
    """Return whether a difference is as small as that of another instruction set.

    The runs must have the same settings and data, and their mIoU may differ by no more than was
    measured. With the same initial weights, the first loss that differs must do so by a rounding.
    Other initial weights are tolerated if they come from the profile's own pretraining, which was
    made again here.
    """
    if (
        have_other(committed, here, "settings_sha256")
        or have_other(committed, here, "data_sha256")
        or abs(here.miou - committed.miou) > tolerance.miou
    ):
        return False
    if have_other(committed, here, "weights_sha256"):
        return committed.weights == PRETRAINED
    return (
        departure.last > 0
        and departure.loss_change is not None
        and tolerance.loss is not None
        and departure.loss_change <= LOSS_MARGIN * tolerance.loss
    )


def have_other(committed: RunResults, here: RunResults, key: str) -> bool:
    return committed.provenance[key] != here.provenance[key]


def list_changed_keys(committed: RunResults, here: RunResults) -> list[str]:
    """List the entries of the evaluations that differ, the digests of the code left out.

    ``validation curve`` is in the list if both have one, and these differ.
    """
    curves = [drop_provenance(each.curve) for each in (committed, here) if each.curve]
    differs = len(curves) == 2 and curves[0] != curves[1]
    return [
        key
        for way, one in committed.evaluations.items()
        for key, value in one.items()
        if drop_code(value) != drop_code(here.evaluations[way].get(key))
    ] + ["validation curve"] * differs


def drop_provenance(curve: CurveRecord) -> dict[str, Any]:
    return curve.model_dump(exclude={"provenance"})


def drop_code(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: entry for key, entry in value.items() if key != "code_sha256"}
    return value


def list_stale(comparison: Comparison) -> list[str]:
    """List what HEAD has changed since the committed results: settings, weights or code."""
    committed, here = comparison.committed, comparison.here
    return [
        key.removesuffix("_sha256")
        for key, digest in committed.provenance.items()
        if here is not None and key != "data_sha256" and here.provenance[key] != digest
    ]


def list_changed_machine(comparison: Comparison) -> list[str]:
    """List what differs between the machines and their software: committed, then here."""
    if comparison.here is None:
        return []
    one, other = comparison.committed.environment, comparison.here.environment
    return [
        f"{key} {one[key]}, here {other[key]}"
        for key in one
        if key in other and one[key] != other[key]
    ]
