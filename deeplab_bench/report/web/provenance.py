"""The tables of provenance: commits, machines and digests, as the records have them."""

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from deeplab_bench.report.commits import find_day
from deeplab_bench.report.formats import escape_markdown
from deeplab_bench.report.phrases import COMMIT_DIGITS, describe_environments
from deeplab_bench.report.results import LABEL_FILES, Results
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.results.records import Environment, SourcedRecord

STAGES = ("train", "evaluate", "crf", "speed", LABEL_FILES)
YES_OR_NO = {True: "yes", False: "no", None: "unknown"}
# What a machine is called where there is no room for its packages.
NAMED = ("device", "microarchitecture", "instruction_set")


def describe_provenance(results: Results) -> str:
    """Return the tables in Markdown, and the command that follows a cell."""
    path = f"{results.folder.as_posix()}/tables/accuracy.csv"
    return "\n\n".join(
        (
            "### Commits",
            format_rows(list_commits(results)),
            "### Machines and packages",
            format_rows(list_machines(results)),
            "### Digests",
            format_rows(list_digests(results)),
            f"The first {COMMIT_DIGITS} digits of each SHA-256. A command follows a cell back to "
            "its settings, code, data and machine, with the digests in full:",
            f"```sh\ndeeplab-bench trace {path} {results.models[0]} miou_mean\n```",
        )
    )


def list_commits(results: Results) -> pd.DataFrame:
    """List the sources that each stage was run from."""
    rows = [
        {
            "Stage": stage,
            "Commit": (source.commit or "unknown")[:COMMIT_DIGITS],
            "Date": source.date or (source.commit and find_day(source.commit)) or "",
            "Uncommitted changes": YES_OR_NO[source.dirty],
        }
        for stage in STAGES
        for source in results.find_sources([stage])
    ]
    return pd.DataFrame(rows)


def list_machines(results: Results) -> pd.DataFrame:
    """List the machines of each stage, with the packages that were installed."""
    records: dict[str, Sequence[SourcedRecord]] = {
        "train, evaluate": [*results.timings, *results.inference_timings],
        "crf": results.crf_timings,
        "speed": results.speeds,
    }
    rows = [
        {"Stage": stage, "Machine": machine}
        for stage, found in records.items()
        for machine in dict.fromkeys(describe_environments([r.environment]) for r in found)
    ]
    return pd.DataFrame(rows)


def list_digests(results: Results) -> pd.DataFrame:
    """List the digests of each model's results; those of several runs are joined."""
    rows = [
        {"Model": run.model, "of": of, "digest": digest[:COMMIT_DIGITS]}
        for run in results.records
        for of, digest in name_digests(run.provenance)
    ]
    rows += [
        {"Model": speed.model, "of": f"Code: {stage}", "digest": digest[:COMMIT_DIGITS]}
        for speed in results.speeds
        for stage, digest in speed.code_sha256.items()
    ]
    found = pd.DataFrame(rows).groupby(["Model", "of"], sort=False)["digest"]
    joined = found.agg(lambda digests: ", ".join(dict.fromkeys(digests))).unstack(fill_value="")
    return joined.reindex(results.models).reset_index()


def name_digests(provenance: Provenance) -> Iterator[tuple[str, str]]:
    yield "Settings of each seed", provenance.settings_sha256
    yield "Data", provenance.data_sha256
    yield "Weights", provenance.weights_sha256 or "none"
    for stage, digest in provenance.code_sha256.items():
        yield f"Code: {stage}", digest


def format_rows(rows: pd.DataFrame) -> str:
    return rows.map(escape_markdown).to_markdown(index=False, disable_numparse=True)


def shorten_machines(text: str, results: Results) -> str:
    """Leave out the packages of the machines that a caption names; the page lists them once."""
    for environment in list_environments(results):
        named: Environment = {key: environment[key] for key in NAMED if key in environment}
        full, short = (describe_environments([each]) for each in (environment, named))
        text = text.replace(full, short)
    return text


def list_environments(results: Results) -> Iterable[Environment]:
    records = (results.timings, results.inference_timings, results.crf_timings, results.speeds)
    return (record.environment for found in records for record in found)
