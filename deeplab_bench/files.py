"""Writing result files: readable in a diff, whole or not there."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Write JSON with an entry of the two outer levels a line.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(format_json(content) + "\n", encoding="utf-8")
    partial.replace(path)


def format_json(content: Any, levels: int = 2) -> str:
    if levels == 0 or not isinstance(content, dict) or not content:
        return json.dumps(content, allow_nan=False)
    indent = "  " * (3 - levels)
    entries = (
        f"{indent}{json.dumps(key)}: {format_json(value, levels - 1)}"
        for key, value in content.items()
    )
    return "{\n" + ",\n".join(entries) + "\n" + indent[2:] + "}"
