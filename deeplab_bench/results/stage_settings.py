"""The settings file of a stage. The stage depends on it and on the results of earlier stages."""

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.runtime.pins import find_missing_pin
from deeplab_bench.settings.base import Settings, SettingsError
from deeplab_bench.settings.process import Process
from deeplab_bench.writing import write_json

Schema = TypeVar("Schema", bound=Settings)


class StageFile(BaseModel):
    """The content of a file of settings.

    ``process`` is how the stage's process computes. ``module`` is imported by its name, if there is
    one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, JsonValue]
    process: Process
    module: str | None
    code_sha256: str


def write_settings(
    files: ProfileFiles,
    stage: str,
    *names: str,
    settings: Settings,
    process: Process,
    module: str | None = None,
) -> None:
    """Write the settings of a stage with the digest of its code.

    ``names`` are the way of inference, if the stage has one, and the model. ``module`` is the
    architecture's or the data set's, which the stage imports by its name.
    """
    content = StageFile(
        settings=settings.model_dump(mode="json", exclude_none=True),
        process=process,
        module=module,
        code_sha256=compute_code_sha256(stage, module),
    )
    write_json(files.settings(stage, *names), content.model_dump())


def read_settings(files: ProfileFiles, stage: str, *names: str, schema: type[Schema]) -> Schema:
    """Read the settings that ``write_settings`` wrote.

    Raises:
        SettingsError: the file is missing or damaged, the stage's code has changed since, or this
            process does not compute as the file says.
    """
    path = files.settings(stage, *names)
    remedy = f"run `dvc repro`, or `deeplab-bench resolve {files.profile}` before {stage}"
    try:
        content = StageFile.model_validate_json(path.read_bytes())
        settings = schema.model_validate_json(json.dumps(content.settings))
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing: check the names, then {remedy}") from None
    except ValidationError:
        raise SettingsError(f"{path} is damaged or of older code: {remedy}") from None
    if content.code_sha256 != compute_code_sha256(stage, content.module):
        raise SettingsError(f"{path} is of older code of the stage {stage}: {remedy}")
    process = content.process
    missing = find_missing_pin(process.determinism, process.threads)
    if process.determinism == "portable" and missing:
        raise SettingsError(
            f"{stage} needs {missing} from the start of its process, as {path} says determinism "
            f"portable: run `dvc repro` or `deeplab-bench {stage}`, which set it"
        )
    return settings
