"""What the papers publish: ``results/published.yaml``, and the row of it that a model cites."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.errors import UserError, nearest

# Beside the code, not in the folder that it runs in: a citation is checked wherever params.yaml is.
PUBLISHED_FILE = Path(__file__).resolve().parents[2] / "results" / "published.yaml"
NAME = "results/published.yaml"

Setting = bool | int | float | str | tuple[int | float, ...]


class PublishedError(UserError):
    """A citation that fits no row, or several; the message names what is nearest."""


class Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Citation(Facts):
    """A row of a published table, by as many of its settings as tell it from the others.

    It stands beside the model's scores under ``inference``, if that is said.
    """

    table: str
    row: dict[str, Any]
    inference: str | None = None


class Paper(Facts):
    name: str
    title: str
    arxiv: str
    year: int


class Table(Facts):
    """``rows`` have the same keys, among them ``miou`` in percent; no two share their settings."""

    paper: str
    table: str
    split: Literal["val", "test"]
    metric: Literal["miou"]
    settings: dict[str, Setting] = {}
    note: str = ""
    rows: tuple[dict[str, Setting], ...]

    @model_validator(mode="after")
    def _rows_are_alike_but_distinct(self) -> "Table":
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
        return float(cast(float, self.rows[index]["miou"]))

    def settings_of(self, index: int) -> dict[str, Setting]:
        """All that the table says of a row but for its score."""
        row = self.settings | self.rows[index]
        del row["miou"]
        return row


class PublishedFile(Facts):
    """Settings of a row go before those of its table, these before its paper's protocol.

    The last five sections are facts for readers and tests; nothing is computed from them here.
    """

    papers: dict[str, Paper]
    protocols: dict[str, dict[str, Setting]]
    tables: dict[str, Table]
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
    """A published number: ``value`` in percent, ``cited`` the settings that name its row.

    ``settings`` are all that the paper says of the row, ``index`` its place in the table.
    """

    value: float
    paper: Paper
    reference: str
    table: str
    index: int
    cited: dict[str, Any]
    settings: dict[str, Setting]


def published_value(citation: Citation) -> Published:
    """The one row that a citation fits.

    Raises:
        PublishedError: it fits none, or several.
    """
    facts = published_file()
    if citation.table not in facts.tables:
        raise PublishedError(
            f"{citation.table!r} is not a table of {NAME}{nearest(citation.table, facts.tables)}"
        )
    table = facts.tables[citation.table]
    index = _row(table, citation)
    protocol = {"split": table.split} | facts.protocols[table.paper]
    return Published(
        value=table.miou(index),
        paper=facts.papers[table.paper],
        reference=citation.table,
        table=table.table,
        index=index,
        cited=citation.row,
        settings=protocol | table.settings_of(index),
    )


def replica_spread() -> float:
    """How far apart runs lie that should be equal, in percent: DeepLabv3's Table 11."""
    table = published_file().tables["deeplabv3.table11"]
    scores = [table.miou(index) for index in range(len(table.rows))]
    return round(max(scores) - min(scores), 2)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two settings are equal; a list is as good as a tuple, but 1 is not ``true``."""
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return list(ours) == list(theirs)
    return bool(ours == theirs)


def in_words(settings: Mapping[str, Any]) -> str:
    """``{"multi_grid": (1, 2, 4)}`` as ``multi_grid 1 2 4``."""
    return ", ".join(f"{key} {value_in_words(value)}" for key, value in settings.items())


def value_in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


@cache
def published_file() -> PublishedFile:
    """
    Raises:
        PublishedError: the file is missing or not what it should be.
    """
    try:
        content = YAML(typ="safe", pure=True).load(PUBLISHED_FILE.read_text(encoding="utf-8"))
        return PublishedFile.model_validate_json(json.dumps(content))
    except (OSError, YAMLError) as error:
        problem = " ".join(str(error).split())
        raise PublishedError(f"{NAME} cannot be read: {problem}: restore it from git") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its content"
        raise PublishedError(
            f"{NAME}: {key}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def _row(table: Table, citation: Citation) -> int:
    """The index of the row that has all the settings of the citation."""
    where, wanted = citation.table, citation.row
    rows = [table.settings_of(index) for index in range(len(table.rows))]
    for key in wanted:
        if key not in rows[0]:
            raise PublishedError(f"{where} has no column {key!r}{nearest(key, rows[0])}")
    agreeing = [sum(same(value, row[key]) for key, value in wanted.items()) for row in rows]
    fitting = [index for index, count in enumerate(agreeing) if count == len(wanted)]
    if not fitting:
        closest = rows[agreeing.index(max(agreeing))]
        close = in_words({key: closest[key] for key in wanted})
        raise PublishedError(f"{where} has no row of {in_words(wanted)}; the nearest has {close}")
    if len(fitting) > 1:
        apart = [k for k in rows[0] if any(rows[i][k] != rows[fitting[0]][k] for i in fitting)]
        raise PublishedError(
            f"{where} has {len(fitting)} rows of {in_words(wanted) or 'no setting'}: "
            f"say {' or '.join(apart)} too"
        )
    return fitting[0]
