"""What runs cost: as measured in this folder, or as `deeplab-bench plan` has computed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from deeplab_bench.writing import write_json

MEASURED = Path("logs") / "run_costs.json"
PLANNED = Path("logs") / "planned_costs.json"


@validated(frozen=True)
class RunCost:
    """The time of a run, and the most memory that its processes had at once; None if unknown."""

    seconds: float
    memory_mib: int | None = None


FILE = TypeAdapter(dict[str, RunCost])


@dataclass
class Alike:
    """What is known of runs that have something in common."""

    seconds: float = 0.0
    runs: int = 0
    memory_mib: int | None = None

    def add(self, cost: RunCost) -> None:
        self.seconds += cost.seconds
        self.runs += 1
        if cost.memory_mib is not None:
            self.memory_mib = max(cost.memory_mib, self.memory_mib or 0)

    def get_typical(self) -> RunCost:
        return RunCost(self.seconds / self.runs, self.memory_mib)


class RunCosts:
    """The costs of runs, by name, of this sweep and of earlier ones in this folder."""

    def __init__(self, measured: Path = MEASURED, planned: Path = PLANNED) -> None:
        self.file = measured
        self.planned = read(planned)
        self.measured: dict[str, RunCost] = {}
        self.alike: dict[str, Alike] = {}
        for name, cost in read(measured).items():
            self.add(name, cost)

    def add(self, name: str, cost: RunCost) -> None:
        self.measured[name] = cost
        for kind in list_kinds(name):
            self.alike.setdefault(kind, Alike()).add(cost)

    def expect(self, name: str) -> RunCost | None:
        """Expect the cost of a run: its own; those of its other seeds; planned; of others like it.

        None if nothing is known.
        """
        if name in self.measured:
            return self.measured[name]
        kinds = list(list_kinds(name))
        if name in self.planned and not any(kind in self.alike for kind in kinds[:1]):
            return self.planned[name]
        known = next((kind for kind in kinds if kind in self.alike), None)
        return None if known is None else self.alike[known].get_typical()

    def save(self) -> None:
        write(self.file, self.measured)


def read(file: Path) -> dict[str, RunCost]:
    """Read costs; none from a file that is missing or damaged, as they decide no result."""
    try:
        return FILE.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}


def write(file: Path, costs: Mapping[str, RunCost]) -> None:
    write_json(file, FILE.dump_python(dict(costs)))


def list_kinds(name: str) -> Iterator[str]:
    """Yield what a run has in common with others, the most first: all but its seed, and so on."""
    while "-" in name:
        name = name.rpartition("-")[0]
        yield name
