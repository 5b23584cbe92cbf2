"""Tests that the chain behind every cell of every table is found, and that broken links are named.

The tables' own values are the reference: for means, recorded values and differences they are
computed here from what the trace shows.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_paper import FILE, cite
from test_report import declare, edit, write_results

from deeplab_bench.data.packed import MANIFEST
from deeplab_bench.models import get_module_name
from deeplab_bench.report import comparisons, paper, receptive_field, speed_tables, tables
from deeplab_bench.report.cells import TraceError, find_cell, read_table
from deeplab_bench.report.commits import compute_code_at
from deeplab_bench.report.formats import DECIMALS
from deeplab_bench.report.links import list_links
from deeplab_bench.report.loading import load_results
from deeplab_bench.report.origins import (
    CORRECT,
    DIFFERENCE,
    GAIN,
    MEAN,
    SAME,
    SHARE,
    TABLES,
    Origin,
)
from deeplab_bench.report.trace import WIDTH, Trace, trace
from deeplab_bench.results.code_digest import ROOT, compute_code_sha256
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.table_keys import KEYS
from deeplab_bench.settings import published
from deeplab_bench.settings.inference import PLAIN, Inference
from deeplab_bench.settings.params import Params
from deeplab_bench.writing import write_json

TABLE_FOLDER = Path("results/quick/tables")
ACCURACY = TABLE_FOLDER / "accuracy.csv"
RUN = RunFiles("quick", "aspp", 1)
LOCK_TEXT = b"torch==2\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    published.read_published.cache_clear()


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def write_tables(params: Params) -> None:
    """Write the CSV files of a report, without its figures."""
    results = load_results(params, "quick")
    TABLE_FOLDER.mkdir(parents=True, exist_ok=True)
    for part in (tables, speed_tables, comparisons, paper, receptive_field):
        for name, text in part.render(results).items():
            if name.endswith(".csv"):
                (TABLE_FOLDER.parent / name).write_text(text)


def make_small() -> Params:
    params = declare()
    write_results(params)
    write_tables(params)
    return params


def make_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cited: str) -> Params:
    """Make every table: with another way of inference, and a row of a published table per model."""
    (tmp_path / "published.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(published, "PUBLISHED_FILE", tmp_path / "published.yaml")
    published.read_published.cache_clear()
    params = declare(crf=["aspp"], audit=["aspp"], hardware=["cpu", "gpu"])
    ways = {**params.inference, "os8": Inference(output_stride=8)}
    models = dict(params.models)
    for x, model in enumerate(params.run.models, start=1):
        models[model] = models[model] | {"published": cite(x, cited)}
    run = params.run.model_copy(update={"inference": (PLAIN, "os8")})
    params = params.model_copy(update={"run": run, "inference": ways, "models": models})
    write_results(params)
    for model, seed in product(run.models, run.seeds):
        files = RunFiles("quick", model, seed)
        radii = {"largest_px": [0, 4, 8], "correct": [1, 2 + seed, 5, 0], "total": [9, 8, 7, 0]}
        edit(files.evaluation(PLAIN), context_radius=radii)
        record = json.loads(files.evaluation(PLAIN).read_text())
        record["metrics"]["miou"] += 0.01 * (1 + seed)
        settings = record["settings"] | {"inference": ways["os8"].model_dump(mode="json")}
        write_json(files.evaluation("os8"), record | {"inference": "os8", "settings": settings})
        times = json.loads(files.evaluation_timing(PLAIN).read_text())
        write_json(files.evaluation_timing("os8"), times)
    write_tables(params)
    return params


def name_row(table: str, row: dict[str, str]) -> str:
    return "/".join(row[key] for key in KEYS[table] if key in row)


def read_values(params: Params, origin: Origin) -> list[list[Any]]:
    """Read the numbers that enter a cell: one list for each group of records."""
    lists = []
    for records in origin.records:
        contents = [
            json.loads(link.value_file.read_bytes())
            for link in list_links(params, "quick", records)
        ]
        lists.append([list(records.read(content).values()) for content in contents])
    return lists


def compute_expected(origin: Origin, lists: list[Any]) -> float | None:
    """Compute a cell from its values, where the computation is simple; None otherwise."""
    how = origin.how
    if how == CORRECT:
        return 100 * sum(correct / total for correct, total in lists[0]) / len(lists[0])
    if how in (SAME, SHARE):
        value = lists[0][-1][0]
        return (100 if how == SHARE else 1) * value if isinstance(value, float) else None
    if how not in (MEAN, GAIN, DIFFERENCE):
        return None
    columns = [pd.Series([values[0] for values in part], dtype=float) for part in lists]
    if how == MEAN:
        return float(100 * columns[0].mean())
    if len(columns) == 1:
        columns.append(pd.Series([values[-1] for values in lists[0]], dtype=float))
    return float(100 * (columns[0] - columns[1]).mean())


def read_rows(path: Path) -> list[dict[str, str]]:
    data = read_table(path)
    return [dict(zip(map(str, data), row, strict=True)) for row in data.to_numpy()]


@pytest.mark.parametrize("cited", ["deeplabv3.table5", "other.table1"])
def test_every_cell_comes_from_the_values_that_are_shown(
    cited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_full(tmp_path, monkeypatch, cited)
    assert {path.stem for path in TABLE_FOLDER.glob("*.csv")} == set(TABLES)
    checked = Counter[str]()
    for path in sorted(TABLE_FOLDER.glob("*.csv")):
        for row in read_rows(path):
            origins = TABLES[path.stem].find(row)
            assert set(row) - set(KEYS[path.stem]) <= set(origins), path
            for column in set(row) & set(origins):
                expected = compute_expected(origins[column], read_values(params, origins[column]))
                if expected is not None:
                    shown = f"{expected:.{DECIMALS.get(column, 2)}f}"
                    assert row[column] == shown.replace("nan", ""), (path, row, column)
                    checked[path.stem] += 1
    assert set(TABLES) - set(checked) == set()


def test_every_table_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = make_full(tmp_path, monkeypatch, "other.table1")
    for name in TABLES:
        path = TABLE_FOLDER / f"{name}.csv"
        row = read_rows(path)[-1]
        column = [column for column in TABLES[name].find(row) if column in row][-1]
        found = trace(params, path, name_row(name, row), column)
        assert "computed again from the records" in found.format(), name
        assert all("no known commit" in reason for reason in found.broken), found.broken


def commit_project(params: Params) -> str:
    """Commit code, lock file and results, and record the commit of the code in the results."""
    Path("requirements.lock").write_bytes(LOCK_TEXT)
    for name in ("deeplab_bench", "pipelines"):
        shutil.copytree(ROOT / name, name, ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "--quiet")
    git("add", "deeplab_bench", "pipelines", "requirements.lock")
    git("commit", "--quiet", "--message", "code")
    commit = git("rev-parse", "HEAD")
    source = {"commit": commit, "dirty": False, "lock_sha256": sha256(LOCK_TEXT).hexdigest()}
    for seed in params.run.seeds:
        timing = RunFiles("quick", "aspp", seed).evaluation_timing(PLAIN)
        edit(timing, sources={"train": source, "evaluate": source})
    git("add", "results")
    git("commit", "--quiet", "--message", "results")
    return commit


def test_a_whole_chain() -> None:
    params = make_small()
    commit = commit_project(params)
    found = trace(params, ACCURACY, "aspp", "miou_mean")
    text = found.format()
    assert not found.broken
    assert text.endswith("The chain is whole.\n")
    for part in (
        "accuracy.csv: aspp: miou_mean 72.00",
        "runs/evaluate/plain/aspp-2.json: metrics.miou 0.74",
        f"train: commit {commit[:12]}; it has the code above",
        f"sha256 {sha256(LOCK_TEXT).hexdigest()[:12]}, the same today",
        f"commit {git('rev-parse', 'HEAD')[:12]} holds results/quick/tables/accuracy.csv",
        "A & B CPU, threads 2",
        "none: training began with random weights",
    ):
        assert part in re.sub(r"\n[│├└─ ]+", " ", text), part
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_records_of_code_that_was_committed_with_them() -> None:
    """Find the code in the commit that holds the records: HEAD was an older one when they ran."""
    params = make_small()
    old = commit_project(params)
    module = Path("deeplab_bench/models/aspp.py")
    module.write_text(module.read_text() + "\nEDITED = 1\n")
    edited = compute_code_at(git("stash", "create"), "evaluate", get_module_name("aspp"))
    for seed in params.run.seeds:
        path = RunFiles("quick", "aspp", seed).evaluation(PLAIN)
        record = json.loads(path.read_text())
        record["provenance"]["code_sha256"]["evaluate"] = edited
        path.write_text(json.dumps(record))
    git("commit", "--quiet", "--all", "--message", "edited")
    lines = trace(params, ACCURACY, "aspp", "miou_mean").format()
    assert f"evaluate: commit {old[:12]}; commit {git('rev-parse', 'HEAD')[:12]} has" in lines


def test_the_digest_of_code_at_a_commit() -> None:
    params = make_small()
    commit = commit_project(params)
    module = get_module_name("aspp")
    assert compute_code_at(commit, "train", module) == compute_code_sha256("train", module)
    assert compute_code_at("0" * 40, "train", module) is None
    git("rm", "--quiet", "deeplab_bench/results/code_digest.py")
    git("commit", "--quiet", "--message", "as before there were digests")
    assert compute_code_at("HEAD", "train", module) is None


def broken_after(params: Params) -> list[str]:
    """Trace a cell and return what is broken, but for commits: most tests have no repository."""
    found: Trace = trace(params, ACCURACY, "aspp", "miou_mean")
    return [reason for reason in found.broken if "no known commit" not in reason]


class TestBroken:
    def test_a_table_that_is_older_than_the_records(self) -> None:
        params = make_small()
        assert broken_after(params) == []
        record = json.loads(RUN.evaluation(PLAIN).read_text())
        record["metrics"]["miou"] = 0.75
        RUN.evaluation(PLAIN).write_text(json.dumps(record))
        (reason,) = broken_after(params)
        assert "computed again from the records it is 73.00, the table has 72.00" in reason

    def test_a_missing_record(self) -> None:
        params = make_small()
        RUN.evaluation(PLAIN).unlink()
        reasons = broken_after(params)
        assert f"{RUN.evaluation(PLAIN)} is missing" in reasons
        assert any(reason.startswith("it cannot be computed again: ") for reason in reasons)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"provenance": 3}'])
    def test_a_damaged_record(self, content: str) -> None:
        params = make_small()
        RUN.evaluation(PLAIN).write_text(content)
        assert f"{RUN.evaluation(PLAIN)} has no such value" in broken_after(params)

    def test_a_missing_file_of_times(self) -> None:
        params = make_small()
        RUN.evaluation_timing(PLAIN).unlink()
        assert any(str(RUN.evaluation_timing(PLAIN)) in reason for reason in broken_after(params))

    @pytest.mark.parametrize(
        ("key", "value", "named"),
        [
            ("settings_sha256", "e" * 64, "aspp: sha256 "),
            ("code_sha256", {"train": "e" * 64}, "train with aspp: sha256 eeeeeeeeeeee (aspp-1)"),
            ("weights_sha256", "e" * 64, "sha256 eeeeeeeeeeee of aspp, today None"),
        ],
    )
    def test_other_digests(self, key: str, value: Any, named: str) -> None:
        params = make_small()
        record = json.loads(RUN.evaluation(PLAIN).read_text())
        record["provenance"][key] = value
        RUN.evaluation(PLAIN).write_text(json.dumps(record))
        assert any(reason.startswith(named) for reason in broken_after(params))

    def test_other_data(self) -> None:
        params = make_small()
        manifest = ProfileFiles("quick").data / MANIFEST
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
        named = f"{manifest}: sha256 data, here it is {sha256(b'{}').hexdigest()[:12]}"
        assert named in broken_after(params)

    def test_another_version_of_a_package(self) -> None:
        params = make_small()
        commit_project(params)
        Path("requirements.lock").write_bytes(LOCK_TEXT.replace(b"torch==2", b"torch==3"))
        (reason,) = broken_after(params)
        assert reason.startswith("requirements.lock of train, evaluate: sha256 ")
        assert reason.endswith("; missing or of other versions today: torch")

    def test_further_packages_break_nothing(self) -> None:
        params = make_small()
        commit_project(params)
        Path("requirements.lock").write_bytes(LOCK_TEXT + b"dvclive==3\n")
        assert broken_after(params) == []

    def test_a_lock_file_that_was_never_committed(self) -> None:
        params = make_small()
        commit = commit_project(params)
        source = {"commit": commit, "dirty": True, "lock_sha256": "0" * 64}
        timing = RunFiles("quick", "aspp", 0).evaluation_timing(PLAIN)
        edit(timing, sources={"train": source, "evaluate": source})
        (reason,) = [x for x in broken_after(params) if "requirements.lock" in x]
        assert reason.endswith("; no commit has it")

    def test_settings_of_other_code(self) -> None:
        params = make_small()
        path = ProfileFiles("quick").settings("evaluate", PLAIN, "aspp")
        path.parent.mkdir(parents=True)
        path.write_text('{"code_sha256": "other"}')
        assert f"{path} is of other code than the record" in broken_after(params)

    def test_no_repository_has_the_code(self) -> None:
        found = trace(make_small(), ACCURACY, "aspp", "miou_mean")
        assert [reason.partition(" ")[0] for reason in found.broken] == ["train", "evaluate"]
        assert found.format().endswith("The chain is broken in 2 places.\n")


def test_a_profile_that_params_yaml_does_not_run_is_traced_from_what_there_is() -> None:
    params = make_small()
    run = params.run.model_copy(update={"profiles": ("other",), "models": ("fcn",), "seeds": (7,)})
    assert broken_after(params.model_copy(update={"run": run})) == []


@pytest.mark.parametrize(
    ("table", "row", "column", "message"),
    [
        ("accuracy.csv", "aspp", "miou_mean", "is not results/<profile>/tables/<table>.csv"),
        (TABLE_FOLDER / "acuracy.csv", "aspp", "miou_mean", "nearest valid one is .*/accuracy.csv"),
        (ACCURACY, "asp", "miou_mean", "no row 'asp'; the nearest valid one is 'aspp'"),
        (ACCURACY, "aspp", "miou_maen", "no column 'miou_maen'; .* is 'miou_mean'"),
        (ACCURACY, "aspp", "model", "no column 'model'; the nearest"),
        (TABLE_FOLDER / "speed.csv", "aspp", "gflops", "2 rows have 'aspp': .* 'aspp/cpu/16'"),
    ],
)
def test_unknown_names_are_one_line(table: Any, row: str, column: str, message: str) -> None:
    params = make_small()
    with pytest.raises(TraceError, match=message) as error:
        trace(params, Path(table), row, column)
    assert "\n" not in str(error.value)


def test_other_forms_of_the_table_and_parts_of_a_rows_names() -> None:
    params = make_small()
    found = find_cell((TABLE_FOLDER / "speed.md").resolve(), "aspp/8", "gflops")
    assert found.keys == {"model": "aspp", "hardware": "cpu", "output_stride": "8"}
    assert "5.000" in trace(params, TABLE_FOLDER / "speed.csv", "aspp/8", "gflops").format()
