"""Two versions of the committed results: which rows changed, by how much, and what changed them."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from deeplab_bench.errors import UserError
from deeplab_bench.results.files import RESULTS, ProfileFiles
from deeplab_bench.results.table_keys import KEYS
from deeplab_bench.runtime.source import ask_git, run_git
from deeplab_bench.settings.inference import PLAIN

COLUMNS = ("Model", "mIoU before (%)", "mIoU after (%)", "Change (points)", "Verdict", "Cause")
MOST_SETTINGS = 3  # that are named as a cause
# Further tables, and the columns that name a row.
FURTHER = {name: list(KEYS[name]) for name in ("per_class", "boundaries", "crf", "speed")}


class VersionError(UserError):
    """A version has no results to compare; the message says what to do."""


@dataclass(frozen=True)
class Version:
    """The committed results of a profile at a revision.

    ``table`` has the accuracy, by model; ``further`` has the cells of other tables as they are
    printed; ``runs`` has the records by ``model-seed``.
    """

    table: pd.DataFrame
    further: Mapping[str, pd.DataFrame]
    runs: Mapping[str, Mapping[str, Any]]

    def row(self, model: str) -> dict[Any, Any]:
        return self.table.loc[model].to_dict()


def list_profiles(revision: str) -> list[str]:
    """List the profiles with committed results at a revision.

    Raises:
        GitError: git is not installed, or this is no repository.
        VersionError: there is no such revision.
    """
    run_git("rev-parse", "--git-dir")
    if ask_git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        raise VersionError(f"{revision} is not known here: give a tag, a branch or a commit")
    names = run_git("ls-tree", "-r", "--name-only", revision, f"{RESULTS}/").splitlines()
    return [Path(name).parts[1] for name in names if name.endswith("/tables/accuracy.csv")]


def read_version(revision: str, profile: str) -> Version:
    """Read the committed results of a profile at a revision.

    Raises:
        GitError: git is not installed, or this is no repository.
        VersionError: there is no such revision, or it has no results of the profile.
    """
    files = ProfileFiles(profile)
    if profile not in list_profiles(revision):
        raise VersionError(f"{revision} has no results of {profile}")
    folder = files.folder / "tables"
    table = pd.read_csv(StringIO(show(revision, folder / "accuracy.csv")))
    names = run_git("ls-tree", "--name-only", revision, f"{folder}/").splitlines()
    further = {
        name: pd.read_csv(StringIO(show(revision, path)), dtype=str, keep_default_na=False)
        for name in FURTHER
        if (path := folder / f"{name}.csv").as_posix() in names
    }
    folder = files.folder / "runs" / "evaluate" / PLAIN
    paths = run_git("ls-tree", "--name-only", revision, f"{folder}/").splitlines()
    runs = {Path(path).stem: json.loads(show(revision, Path(path))) for path in paths}
    return Version(table.set_index("model"), further, runs)


def compare_versions(before: Version, after: Version) -> pd.DataFrame:
    """Return a row for each model of either version, with ``COLUMNS``."""
    models = dict.fromkeys([*after.table.index, *before.table.index])
    return pd.DataFrame([compare_model(before, after, model) for model in models], columns=COLUMNS)


def number_causes(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put the number of its cause into each row; return the causes, too, each once."""
    causes = list(dict.fromkeys(cause for cause in rows["Cause"] if cause))
    numbers = [str(causes.index(cause) + 1) if cause else "" for cause in rows["Cause"]]
    return rows.assign(Cause=numbers), causes


def compare_further(before: Version, after: Version) -> dict[str, pd.DataFrame]:
    """Return the changes in the further tables that both versions have, if there are any."""
    changes = {
        name: compare_tables(before.further[name], after.further[name], keys)
        for name, keys in FURTHER.items()
        if name in before.further and name in after.further
    }
    return {name: table for name, table in changes.items() if not table.empty}


def compare_tables(before: pd.DataFrame, after: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the rows and columns of both tables that changed beyond rounding.

    ``keys`` are the columns that name a row. A cell is ``before → after``, or empty if it is equal.
    """
    old, new = before.set_index(keys).align(after.set_index(keys), join="inner")
    changed = pd.DataFrame(
        {column: list(map(describe_change, old[column], new[column])) for column in old},
        index=old.index,
    )
    is_shown = changed != ""
    return changed.loc[is_shown.any(axis="columns"), is_shown.any()].reset_index()


def describe_change(before: str, after: str) -> str:
    """Describe how a printed value changed; empty if numbers differ by at most one last digit."""
    try:
        digits = -int(Decimal(after).as_tuple().exponent)
        most = Decimal(1).scaleb(-digits) if digits else 0  # integers are not rounded
        is_equal = abs(Decimal(before) - Decimal(after)) <= most
    except InvalidOperation:  # a text, or an empty cell
        is_equal = before == after
    return "" if is_equal else f"{before or 'none'} → {after or 'none'}"


def compare_model(before: Version, after: Version, model: str) -> tuple[str, ...]:
    """Compare a model: the change, whether it is beyond the intervals, and what caused it.

    It is beyond them if it is larger than the root of the sum of the squares of their halves: the
    two versions are taken for independent. Versions on the same images are not, so that smaller
    changes may be real as well.
    """
    if model not in before.table.index:
        return (model, "", describe(after, model), "", "new", "")
    if model not in after.table.index:
        return (model, describe(before, model), "", "", "gone", "")
    old, new = before.row(model), after.row(model)
    change = new["miou_mean"] - old["miou_mean"]
    margin = math.hypot(half(old), half(new))
    causes = list(find_causes(before, after, model))
    if not change:
        verdict = "same"
    elif math.isnan(margin):
        verdict = "no interval"
    else:
        verdict = "beyond the intervals" if abs(change) > margin else "within the intervals"
    texts = describe(before, model), describe(after, model)
    return (model, *texts, f"{change:+.2f}", verdict, "; ".join(causes))


def describe(version: Version, model: str) -> str:
    row = version.row(model)
    if math.isnan(half(row)):
        return f"{row['miou_mean']:.2f}"
    return f"{row['miou_mean']:.2f} ({row['ci95_low']:.2f} to {row['ci95_high']:.2f})"


def half(row: Mapping[Any, Any]) -> float:
    """Return half of the width of the interval; NaN if there is none."""
    return float(row["ci95_high"] - row["ci95_low"]) / 2


def find_causes(before: Version, after: Version, model: str) -> Iterator[str]:
    """Name what a model was made from that is not the same in both versions."""
    old, new = (
        {name: run for name, run in version.runs.items() if run["model"] == model}
        for version in (before, after)
    )
    if not (old or new):
        return  # label files of others
    if not (old and new):
        yield "unknown: one version has its records elsewhere"
        return
    if old.keys() != new.keys():
        yield "seeds"
    first, last = next(iter(old.values())), next(iter(new.values()))
    settings = list_differences(first["settings"], last["settings"])
    if settings:
        more = f" and {len(settings) - MOST_SETTINGS} more" if len(settings) > MOST_SETTINGS else ""
        yield f"settings ({', '.join(settings[:MOST_SETTINGS])}{more})"
    made, makes = first["provenance"], last["provenance"]
    for key, what in (("data_sha256", "data"), ("weights_sha256", "pretrained weights")):
        if made.get(key) != makes.get(key):
            yield what
    stages = list_differences(made.get("code_sha256"), makes.get("code_sha256"))
    if stages:
        yield f"code ({', '.join(stage.partition(':')[0] for stage in stages)})"


def list_differences(before: Any, after: Any, name: str = "") -> list[str]:
    """List the keys of nested mappings whose values differ, as ``key: before -> after``."""
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        return [] if before == after else [f"{name or 'all'}: {before} -> {after}"]
    return [
        difference
        for key in dict.fromkeys([*before, *after])
        for difference in list_differences(before.get(key), after.get(key), str(key))
    ]


def show(revision: str, path: Path) -> str:
    return run_git("show", f"{revision}:{path.as_posix()}")
