"""Atomic writing of files. A file is written completely or not at all."""

import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def describe_lack_of_room(folder: Path, needed_bytes: int) -> str | None:
    """Describe the lack of space if the disk of ``folder`` has less than ``needed_bytes`` free."""
    free = shutil.disk_usage(folder).free
    lack = f"the disk is full: {needed_bytes} more bytes are needed, {free} are free"
    return lack if free < needed_bytes else None


def write_json(path: Path, content: Any) -> None:
    """Write JSON with one line for each entry of the two outer levels, so that diffs are readable.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent.
    """
    write_bytes(path, (format_json(content) + "\n").encode())


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors with ``torch.save``. The bytes do not depend on the file's name."""
    import torch  # only here, since most callers of this module do not need torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a temporary file and rename it, so that no partial file has this name.

    The bytes are on the disk before they have the name, so that this holds after a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
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
