"""The chain from a cell of a table back to what it was made from, checked link by link.

A link is broken if something is missing, or if what is here today would not give the cell: another
value, setting, code, data set, file of weights or lock file.
"""

import hashlib
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from deeplab_bench.data.packed import MANIFEST, compute_data_sha256
from deeplab_bench.errors import UserError
from deeplab_bench.models import get_module_name
from deeplab_bench.report.cells import Cell, TraceError, find_cell
from deeplab_bench.report.commits import compute_code_at, find_committed, find_holder, is_edited
from deeplab_bench.report.formats import format_cells
from deeplab_bench.report.links import Link, Made, list_links, read_link
from deeplab_bench.report.loading import declare, load_results
from deeplab_bench.report.origins import TABLES, Records
from deeplab_bench.report.phrases import COMMIT_DIGITS, describe_commit, describe_environments
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.provenance import compute_settings_sha256
from deeplab_bench.results.records import PretrainingRecord, RunRecord, read_record
from deeplab_bench.runtime.source import LOCK
from deeplab_bench.settings.experiment import PRETRAINED, Experiment
from deeplab_bench.settings.params import Params
from deeplab_bench.training.pretrained import compute_weights_sha256

WIDTH = 100
DIGITS = 12  # shown of a SHA-256
LONGEST_VALUE = 48
PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)  # a package of the lock file
TIMES = "not recorded: times do not depend on it"


class Code(NamedTuple):
    """The code of a stage with the module of an architecture."""

    stage: str
    module: str
    sha256: str


@dataclass
class Branch:
    """A line of the printed tree, with the lines below it."""

    text: str
    below: list["Branch"] = field(default_factory=list)


@dataclass
class Trace:
    """The tree of a cell, and the links that are broken."""

    tree: Branch
    broken: list[str] = field(default_factory=list)

    def add(self, title: str, lines: Iterable[str]) -> None:
        self.tree.below.append(Branch(title, [Branch(line) for line in lines]))

    def report_break(self, reason: str) -> str:
        """Note a broken link and return the line that says so."""
        if reason not in self.broken:
            self.broken.append(reason)
        return f"BROKEN: {reason}"

    def format(self) -> str:
        """Format the tree, and a last line that says whether the chain is whole."""
        places = "one place" if len(self.broken) == 1 else f"{len(self.broken)} places"
        end = f"The chain is broken in {places}." if self.broken else "The chain is whole."
        return "\n".join([self.tree.text, *format_branches(self.tree.below), end]) + "\n"


def trace(params: Params, table: Path, row: str, column: str) -> Trace:
    """Trace a cell of a table ``results/<profile>/tables/<name>.csv``.

    ``row`` has the names of the row, separated by ``/``: those that are needed to tell it.

    Raises:
        TraceError: there is no such table, row or column.
        ReportError: there are no results of the profile.
    """
    cell = find_cell(table, row, column)
    if (model := cell.keys.get("model")) in params.files_of_others:
        record = ProfileFiles(cell.profile).label_files(str(model))
        raise TraceError(f"{model} was not trained here; {record} has digests of its label files")
    origin = TABLES[cell.table].find(cell.row)[column]
    found = Trace(Branch(f"{cell.path}: {' / '.join(cell.keys.values())}: {column} {show(cell)}"))
    params = declare(params, cell.profile)
    found.add(f"computed: {origin.how}", [check_value(found, params, cell)])
    links = [
        (records, link)
        for records in origin.records
        for link in list_links(params, cell.profile, records)
    ]
    found.add("values", list_values(found, links))
    made = read_links(found, [link for _, link in links])
    runs = [each.record for each in made if isinstance(each.record, RunRecord)]
    if made:
        found.add("settings", check_settings(found, params, made))
        found.add("code", check_code(found, params, made))
        found.add("data", check_data(found, cell.profile, runs) if runs else [TIMES])
        found.add("weights", check_weights(found, params, runs) if runs else [TIMES])
        found.add("packages", check_lock(found, made))
        found.add("commit", check_commits(found, params, cell, made))
        found.add("machine", list_machines(made))
    return found


def show(cell: Cell) -> str:
    return cell.row[cell.column] or "(empty)"


def check_value(found: Trace, params: Params, cell: Cell) -> str:
    """Compute the cell again from the records, as the report does, and compare."""
    try:
        data = TABLES[cell.table].build(load_results(params, cell.profile))
    except UserError as error:
        return found.report_break(f"it cannot be computed again: {error}")
    text = format_cells(data)
    same = (text[list(cell.keys)] == pd.Series(cell.keys)).all(axis="columns")
    if not same.any() or cell.column not in text:
        return found.report_break("the report made now has no such cell: run `dvc repro`")
    again = text.loc[same, cell.column].iloc[0]
    if again != cell.row[cell.column]:
        return found.report_break(
            f"computed again from the records it is {again}, the table has {show(cell)}: "
            "the table is older than the records, or was edited"
        )
    return f"computed again from the records: {again or '(empty)'}, the same"


def list_values(found: Trace, links: Iterable[tuple[Records, Link]]) -> list[str]:
    """List the values that enter, with their files and their places in them."""
    lines = []
    for records, link in links:
        try:
            values = records.read(json.loads(link.value_file.read_bytes()))
        except FileNotFoundError:
            lines.append(found.report_break(f"{link.value_file} is missing"))
        except (KeyError, IndexError, TypeError, ValueError):
            lines.append(found.report_break(f"{link.value_file} has no such value"))
        else:
            shown = ", ".join(f"{place} {shorten(value)}" for place, value in values.items())
            lines.append(f"{link.value_file}: {shown}")
    return lines or ["none: the cell comes from settings or published tables alone"]


def shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"({len(value)} entries)"


def read_links(found: Trace, links: Iterable[Link]) -> list[Made]:
    """Read the records with the digests, each once; a file that cannot be read breaks the chain."""
    made = []
    for link in {link.record_file: link for link in links}.values():
        try:
            made.append(read_link(link))
        except UserError as error:
            found.report_break(str(error))
    return made


def check_settings(found: Trace, params: Params, made: Sequence[Made]) -> Iterable[str]:
    files = group((each.link.settings_file, each.codes.get(each.link.stage)) for each in made)
    for path, codes in files:
        if not path.is_file():
            yield f"{path}: not here"
        elif codes != [json.loads(path.read_bytes()).get("code_sha256")]:
            yield found.report_break(f"{path} is of other code than the record")
        else:
            yield f"{path}: of the record's code"
    for model, runs in group((each.link.model, each.record) for each in made):
        digests = {
            run.seed: run.provenance.settings_sha256 for run in runs if isinstance(run, RunRecord)
        }
        if not digests:
            yield f"{model}: times have no digest of their settings"
            continue
        listed = ", ".join(f"{d[:DIGITS]} (seed {seed})" for seed, d in digests.items())
        try:
            experiment = params.experiment(runs[0].profile, model)
        except UserError as error:
            yield found.report_break(f"settings of {model}: {error}")
            continue
        if digests == {seed: compute_settings_sha256(experiment, seed) for seed in digests}:
            yield f"{model}: sha256 {listed}, as params.yaml has them"
        else:
            yield found.report_break(f"{model}: sha256 {listed}, params.yaml has others")


def list_codes(params: Params, made: Sequence[Made]) -> list[tuple[Code, list[str]]]:
    """List the code that made the records, each with its runs."""
    return group(
        (Code(stage, get_module(params, each.link.model), digest), each.link.name)
        for each in made
        for stage, digest in each.codes.items()
    )


def get_module(params: Params, model: str) -> str:
    return get_module_name(str(params.models[model]["architecture"]))


def check_code(found: Trace, params: Params, made: Sequence[Made]) -> Iterable[str]:
    for code, names in list_codes(params, made):
        today = compute_code_sha256(code.stage, code.module)
        text = f"{code.stage} with {code.module.rpartition('.')[2]}: sha256 {code.sha256[:DIGITS]}"
        if code.sha256 == today:
            yield f"{text}, as today's code"
        else:
            yield found.report_break(
                f"{text} ({', '.join(names)}), today's code has {today[:DIGITS]}"
            )


def check_data(found: Trace, profile: str, runs: Sequence[RunRecord]) -> Iterable[str]:
    manifest = ProfileFiles(profile).data / MANIFEST
    for digest in dict.fromkeys(run.provenance.data_sha256 for run in runs):
        text = f"{manifest}: sha256 {digest[:DIGITS]}"
        if not manifest.is_file():
            yield f"{text}; not prepared here, so not compared"
        elif digest == (today := compute_data_sha256(manifest.parent)):
            yield f"{text}, the same here"
        else:
            yield found.report_break(f"{text}, here it is {today[:DIGITS]}")


def check_weights(found: Trace, params: Params, runs: Sequence[RunRecord]) -> Iterable[str]:
    for digest, models in group((run.provenance.weights_sha256, run.model) for run in runs):
        if digest is None:
            yield "none: training began with random weights"
            continue
        text = f"sha256 {digest[:DIGITS]} of {', '.join(models)}"
        try:
            experiment = params.experiment(runs[0].profile, models[0])
            today = find_weights_sha256(experiment)
        except UserError as error:
            yield found.report_break(f"{text}: {error}")
            continue
        if digest == today:
            yield f"{experiment.training.weights}: {text}, the same today"
        else:
            yield found.report_break(f"{text}, today {str(today)[:DIGITS]}")


def find_weights_sha256(experiment: Experiment) -> str | None:
    """Return the digest of today's weights; that of ``pretrain`` is in its record."""
    if experiment.training.weights != PRETRAINED:
        return compute_weights_sha256(experiment.weights, experiment.arguments.get("backbone", ""))
    record = read_record(ProfileFiles(experiment.profile).pretraining, PretrainingRecord)
    return None if record.result is None else record.result.weights_sha256


def check_lock(found: Trace, made: Sequence[Made]) -> Iterable[str]:
    """Require that the packages of then have the same versions in today's lock file.

    Packages that came in since do no harm.
    """
    lock = Path(LOCK)
    text_today = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    today = hashlib.sha256(text_today.encode()).hexdigest()
    digests = group(
        (source.lock_sha256, stage) for each in made for stage, source in each.sources.items()
    )
    for digest, stages in digests:
        text = f"{LOCK} of {', '.join(stages)}"
        if digest is None:
            yield f"{text}: not recorded"
            continue
        text += f": sha256 {digest[:DIGITS]}"
        if digest == today:
            yield f"{text}, the same today"
            continue
        then = find_committed(LOCK, digest)
        if then is None:
            yield found.report_break(f"{text}, today {today[:DIGITS]}; no commit has it")
        elif not text_today:
            yield found.report_break(f"{text}; today there is no such file")
        elif changed := sorted(dict(read_pins(then) - read_pins(text_today))):
            yield found.report_break(
                f"{text}; missing or of other versions today: {', '.join(changed)}"
            )
        else:
            yield f"{text}; all its packages have the same versions today"


def read_pins(lock: str) -> set[tuple[str, str]]:
    """Read the packages of a lock file with their versions."""
    return {(name, version) for name, version in PIN.findall(lock)}


def check_commits(found: Trace, params: Params, cell: Cell, made: Sequence[Made]) -> Iterable[str]:
    """Say at which commits the records were made; require one that has their code.

    This is the recorded commit, or else the one that holds the records: they are often made before
    the code is committed.
    """
    holders = {each.link.name: find_holder(each.link.record_file) for each in made}
    codes = list_codes(params, made)
    sources = group(
        ((stage, source), each.link.name) for each in made for stage, source in each.sources.items()
    )
    for (stage, source), names in sources:
        wanted = [
            code for code, runs in codes if code.stage == stage and not set(runs).isdisjoint(names)
        ]
        commits = dict.fromkeys([source.commit, *(holders[name] for name in names)])
        having = next((c for c in commits if c and all(is_code_of(c, w) for w in wanted)), None)
        said = describe_commit(source) if source.commit else "no commit recorded"
        if having is None:
            yield found.report_break(
                f"{stage} ({', '.join(names)}): {said}; no known commit has the code above"
            )
        else:
            which = "it" if having == source.commit else f"commit {having[:COMMIT_DIGITS]}"
            yield f"{stage}: {said}; {which} has the code above"
    yield describe_holder(cell.path)
    held = group((holders[each.link.name], each.link) for each in made)
    for commit, links in held:
        edited = [link.name for link in links if is_edited(link.record_file)]
        change = f"; changed since: {', '.join(edited)}" if commit and edited else ""
        named = ", ".join(link.name for link in links)
        yield f"{name_commit(commit)} holds the records of {named}{change}"


def is_code_of(commit: str, code: Code) -> bool:
    return compute_code_at(commit, code.stage, code.module) == code.sha256


def describe_holder(path: Path) -> str:
    commit = find_holder(path)
    change = "; it has changed since" if commit and is_edited(path) else ""
    return f"{name_commit(commit)} holds {path}{change}"


def name_commit(commit: str | None) -> str:
    return f"commit {commit[:COMMIT_DIGITS]}" if commit else "no commit"


def list_machines(made: Iterable[Made]) -> list[str]:
    times = [each for one in made for each in one.times]
    return list(dict.fromkeys(describe_environments([each.environment]) for each in times))


def group(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    """Collect the second members of pairs by the first, in their order, each once."""
    found: dict[Any, list[Any]] = {}
    for first, second in pairs:
        members = found.setdefault(first, [])
        if second not in members:
            members.append(second)
    return list(found.items())


def format_branches(branches: Sequence[Branch], indent: str = "") -> list[str]:
    """Format a tree with lines of at most ``WIDTH`` columns, unless a single path is longer."""
    lines = []
    for branch in branches:
        is_last = branch is branches[-1]
        start, rest = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        below = "│  " if branch.below else "   "
        lines += textwrap.wrap(
            branch.text,
            WIDTH,
            initial_indent=indent + start,
            subsequent_indent=indent + rest + below,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += format_branches(branch.below, indent + rest)
    return lines
