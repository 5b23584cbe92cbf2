"""Writing files: whole or not there, results readable in a diff, no more than the disk holds."""

import json
import shutil
from pathlib import Path
from typing import Any


def lack_of_room(folder: Path, needed_bytes: int) -> str | None:
    """What is amiss if the disk of ``folder`` has no room for so much more."""
    free = shutil.disk_usage(folder).free
    lack = f"the disk is full: {needed_bytes} more bytes are needed, {free} are free"
    return lack if free < needed_bytes else None


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
