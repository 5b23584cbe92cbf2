"""How long runs have taken, to tell how long the others will take."""

import json
from collections.abc import Iterator
from pathlib import Path

from deeplab_bench.writing import write_json

FILE = Path("logs") / "durations.json"


class Durations:
    """The seconds of runs, by name, of this sweep and of earlier ones in this folder."""

    def __init__(self, file: Path = FILE) -> None:
        self.file = file
        self.seconds: dict[str, float] = {}
        self.alike: dict[str, tuple[float, int]] = {}  # the sum of the seconds, and their number
        try:
            earlier = json.loads(file.read_bytes())
        except (OSError, ValueError):
            earlier = {}
        for name, seconds in earlier.items():
            self.add(name, seconds)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(seconds, 1)
        for kind in list_kinds(name):
            total, count = self.alike.get(kind, (0.0, 0))
            self.alike[kind] = total + seconds, count + 1

    def expect(self, name: str) -> float | None:
        """Expect the seconds of a run: its own, or those of the runs that are most like it."""
        if name in self.seconds:
            return self.seconds[name]
        known = (self.alike[kind] for kind in list_kinds(name) if kind in self.alike)
        return next((total / count for total, count in known), None)

    def save(self) -> None:
        write_json(self.file, self.seconds)


def list_kinds(name: str) -> Iterator[str]:
    """Yield what a run has in common with others, the most first: all but its seed, and so on."""
    while "-" in name:
        name = name.rpartition("-")[0]
        yield name
