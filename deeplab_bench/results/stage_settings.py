"""Settings of one stage: all that it depends on besides the files of the stages before it."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.settings.base import Settings, SettingsError
from deeplab_bench.writing import write_json

Schema = TypeVar("Schema", bound=Settings)


def write_settings(
    path: Path, stage: str, settings: Settings, architecture: str | None = None
) -> None:
    """Write the settings of a stage with the digest of its code and of its architecture's."""
    record = {
        "settings": settings.model_dump(mode="json", exclude_none=True),
        "architecture": architecture,
        "code_sha256": compute_code_sha256(stage, architecture),
    }
    write_json(path, record)


def read_settings(path: Path, stage: str, schema: type[Schema]) -> Schema:
    """Read what ``write_settings`` wrote.

    Raises:
        SettingsError: the file is missing, or the stage's code has changed since.
    """
    remedy = f"run `dvc repro`, or `deeplab-bench resolve` before {stage}"
    older = SettingsError(f"{path} is of older code of the stage {stage}: {remedy}")
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        settings = schema.model_validate_json(json.dumps(record["settings"]))
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing: {remedy}") from None
    except ValidationError:
        raise older from None
    if record.get("code_sha256") != compute_code_sha256(stage, record.get("architecture")):
        raise older
    return settings
