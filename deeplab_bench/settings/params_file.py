"""The file params.yaml as text and as YAML. Nothing here needs torch."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.settings.blocks import ParamsError

PARAMS_FILE = Path("params.yaml")


def read_params_file(path: Path) -> str:
    """Read the text of a parameter file.

    Raises:
        ParamsError: the file is missing or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from None


def parse_yaml(text: str, path: Path) -> Any:
    """Parse the text of a parameter file.

    Raises:
        ParamsError: it is not YAML; the message begins with ``path``.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
