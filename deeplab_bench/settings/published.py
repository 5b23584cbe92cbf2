"""Published numbers: reads ``results/published.yaml``, and finds the rows that models cite."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.errors import UserError, describe_first_error, suggest_nearest

# Found from the code and not from the current folder, as params.yaml may lie elsewhere.
PUBLISHED_FILE = Path(__file__).resolve().parents[2] / "results" / "published.yaml"
NAME = "results/published.yaml"

Setting = bool | int | float | str | tuple[int | float, ...]


class PublishedError(UserError):
    """A citation that fits no row, or several; the message names the nearest one."""


class Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Citation(Facts):
    """A row of a published table."""

    table: str
    """A key of ``tables`` in ``results/published.yaml``."""
    row: dict[str, Any]
    """Settings of the row that no other row of the table has."""
    inference: str | None = None
    """The way of inference whose scores are compared with the row; without it, ``plain``."""


class Paper(Facts):
    """A paper; ``authors`` are as BibTeX has them, family names first."""

    name: str
    authors: str
    title: str
    arxiv: str
    year: int


class PublishedTable(Facts):
    """A published table: all rows have the same keys, and no two have the same settings.

    Each row has the key ``miou``, in percent. Tables of one ``series`` have one protocol, so that
    their paper compares rows of all of them. Without it, a table is a series of its own.
    """

    paper: str
    table: str
    split: Literal["val", "test"]
    metric: Literal["miou"]
    series: str | None = None
    settings: dict[str, Setting] = {}
    note: str = ""
    rows: tuple[dict[str, Setting], ...]

    @model_validator(mode="after")
    def _rows_are_alike_but_distinct(self) -> "PublishedTable":
        for index, row in enumerate(self.rows):
            if row.keys() != self.rows[0].keys():
                raise ValueError(f"row {index} has other keys than the first")
            score = row.get("miou")
            if not isinstance(score, int | float) or not 0 <= score <= 100:
                raise ValueError(f"row {index} has the miou {score!r}, not a percentage")
            if any(row | {"miou": 0} == other | {"miou": 0} for other in self.rows[:index]):
                raise ValueError(f"row {index} has the settings of one before it")
        return self

    def miou(self, index: int) -> float:
        """Return the score of a row, in percent."""
        return float(cast(float, self.rows[index]["miou"]))

    def settings_of(self, index: int) -> dict[str, Setting]:
        """Return all settings of a row, without its score."""
        row = self.settings | self.rows[index]
        del row["miou"]
        return row


class PublishedFile(Facts):
    """The content of ``results/published.yaml``.

    A setting of a row replaces that of its table, which replaces that of its paper's protocol. The
    last five sections are facts for readers and tests; nothing is computed from them here.
    """

    papers: dict[str, Paper]
    protocols: dict[str, dict[str, Setting]]
    tables: dict[str, PublishedTable]
    facts: dict[str, Any]
    receptive_field: dict[str, Any]
    data: dict[str, Any]
    reproductions: dict[str, Any]
    disagreements: tuple[dict[str, Any], ...]

    @model_validator(mode="after")
    def _tables_are_of_known_papers(self) -> "PublishedFile":
        for key, table in self.tables.items():
            if not key.startswith(f"{table.paper}.") or table.paper not in self.papers:
                raise ValueError(f"tables.{key} is of the paper {table.paper!r}")
        if self.protocols.keys() != self.papers.keys():
            raise ValueError("papers and protocols have other keys")
        return self


@dataclass(frozen=True)
class Published:
    """A published number: ``value`` is in percent, ``cited`` are the settings that name its row.

    ``settings`` are all settings that the paper gives for the row; ``index`` counts the table's
    rows from 0.
    """

    value: float
    paper: Paper
    reference: str
    series: str
    table: str
    index: int
    cited: dict[str, Any]
    settings: dict[str, Setting]


def find_published(citation: Citation) -> Published:
    """Find the one row that a citation fits.

    Raises:
        PublishedError: the citation fits no row, or several rows.
    """
    facts = read_published()
    if citation.table not in facts.tables:
        suggestion = suggest_nearest(citation.table, facts.tables)
        raise PublishedError(f"{citation.table!r} is not a table of {NAME}{suggestion}")
    table = facts.tables[citation.table]
    index = _row(table, citation)
    protocol = {"split": table.split} | facts.protocols[table.paper]
    return Published(
        value=table.miou(index),
        paper=facts.papers[table.paper],
        reference=citation.table,
        series=table.series or citation.table,
        table=table.table,
        index=index,
        cited=citation.row,
        settings=protocol | table.settings_of(index),
    )


def is_same(ours: Any, theirs: Any) -> bool:
    """Tell whether two settings are equal; a list may equal a tuple, but 1 is not ``true``."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return list(ours) == list(theirs)
    return bool(ours == theirs)


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Write settings as text: ``{"multi_grid": (1, 2, 4)}`` as ``multi_grid 1 2 4``."""
    return ", ".join(f"{key} {describe_value(value)}" for key, value in settings.items())


def describe_value(value: Any) -> str:
    """Write the value of a setting as text: ``(1, 2, 4)`` as ``1 2 4``."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


@cache
def read_published() -> PublishedFile:
    """Read and check ``results/published.yaml``, once.

    Raises:
        PublishedError: the file is missing or has a mistake.
    """
    try:
        content = YAML(typ="safe", pure=True).load(PUBLISHED_FILE.read_text(encoding="utf-8"))
        return PublishedFile.model_validate_json(json.dumps(content))
    except (OSError, YAMLError) as error:
        problem = " ".join(str(error).split())
        raise PublishedError(f"{NAME} cannot be read: {problem}: restore it from git") from None
    except ValidationError as error:
        raise PublishedError(f"{NAME}: {describe_first_error(error)}") from None


def _row(table: PublishedTable, citation: Citation) -> int:
    """Find the index of the row that has all settings of the citation."""
    where, wanted = citation.table, citation.row
    rows = [table.settings_of(index) for index in range(len(table.rows))]
    for key in wanted:
        if key not in rows[0]:
            raise PublishedError(f"{where} has no column {key!r}{suggest_nearest(key, rows[0])}")
    agreeing = [sum(is_same(value, row[key]) for key, value in wanted.items()) for row in rows]
    fitting = [index for index, count in enumerate(agreeing) if count == len(wanted)]
    if not fitting:
        closest = rows[agreeing.index(max(agreeing))]
        close = describe_settings({key: closest[key] for key in wanted})
        raise PublishedError(
            f"{where} has no row of {describe_settings(wanted)}; the nearest has {close}"
        )
    if len(fitting) > 1:
        apart = [k for k in rows[0] if any(rows[i][k] != rows[fitting[0]][k] for i in fitting)]
        raise PublishedError(
            f"{where} has {len(fitting)} rows of {describe_settings(wanted) or 'no setting'}: "
            f"say {' or '.join(apart)} too"
        )
    return fitting[0]
