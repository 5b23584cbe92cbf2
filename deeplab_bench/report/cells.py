"""Cells of the written tables, found by the names of their row and by their column."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from deeplab_bench.errors import UserError, suggest_nearest
from deeplab_bench.report.origins import TABLES
from deeplab_bench.results.files import RESULTS
from deeplab_bench.results.table_keys import KEYS

SEPARATOR = "/"  # between the names of a row


class TraceError(UserError):
    """There is no such cell. The message names the nearest one."""


class Cell(NamedTuple):
    """A cell of a CSV file: its table, the names of its row, its column, and the printed row."""

    path: Path
    profile: str
    table: str
    keys: Mapping[str, str]
    column: str
    row: Mapping[str, str]


def find_cell(table: Path, row: str, column: str) -> Cell:
    path = table.with_suffix(".csv")
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    names = path.parts
    if len(names) != 4 or (names[0], names[2]) != (RESULTS.name, "tables"):
        raise TraceError(f"{table} is not results/<profile>/tables/<table>.csv: give such a path")
    if not path.is_file():
        known = [str(p) for p in sorted(RESULTS.glob("*/tables/*.csv"))]
        raise TraceError(f"{path} does not exist{suggest_nearest(str(path), known)}")
    if path.stem not in TABLES:
        raise TraceError(f"{path}: `trace` knows no origin of this table, of {', '.join(TABLES)}")
    data = read_table(path)
    keys = [key for key in KEYS[path.stem] if key in data]
    chosen = dict(data.iloc[find_row(path, data[keys], row)])
    columns = TABLES[path.stem].find(chosen)
    if column not in columns or column not in data:
        known = [name for name in data if name in columns]
        raise TraceError(f"{path}: no column {column!r}{suggest_nearest(column, known)}")
    return Cell(path, names[1], path.stem, {key: chosen[key] for key in keys}, column, chosen)


def read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def find_row(path: Path, keys: pd.DataFrame, row: str) -> int:
    """Find the one row whose names include those of ``row``, in their order."""
    wanted = row.split(SEPARATOR)
    names = [list(names) for names in keys.to_numpy()]
    found = [index for index, each in enumerate(names) if is_part(wanted, each)]
    if len(found) == 1:
        return found[0]
    known = [SEPARATOR.join(each) for each in names]
    if not found:
        raise TraceError(f"{path}: no row {row!r}{suggest_nearest(row, known)}")
    some = ", ".join(repr(known[index]) for index in found[:3])
    raise TraceError(f"{path}: {len(found)} rows have {row!r}: give one of them, as {some}")


def is_part(wanted: Sequence[str], names: Iterable[str]) -> bool:
    """Return whether all of ``wanted`` are in ``names``, in this order."""
    rest = iter(names)
    return all(name in rest for name in wanted)
