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
        """Add what a run has cost now. A memory that was not measured stays that of before."""
        before = self.measured.get(name)
        memory = [c.memory_mib for c in (cost, before) if c and c.memory_mib is not None]
        self.measured[name] = RunCost(cost.seconds, memory[0] if memory else None)
        for kind in list_kinds(name):
            alike = self.alike.setdefault(kind, Alike())
            alike.seconds += cost.seconds - (before.seconds if before else 0.0)
            alike.runs += before is None
            alike.memory_mib = max([*memory[:1], alike.memory_mib or 0]) or None

    def expect_seconds(self, name: str) -> float | None:
        """Expect the time of a run: its own, that of its other seeds, planned, of runs like it."""
        if name in self.measured:
            return self.measured[name].seconds
        kinds = list(list_kinds(name))
        if name in self.planned and not any(kind in self.alike for kind in kinds[:1]):
            return self.planned[name].seconds
        known = [self.alike[kind] for kind in kinds if kind in self.alike]
        return known[0].seconds / known[0].runs if known else None

    def expect_memory_mib(self, name: str) -> int | None:
        """Expect the memory of a run: its own, or the most that the runs most like it had."""
        own = self.measured.get(name)
        known = [own, *(self.alike.get(kind) for kind in list_kinds(name))]
        return next((k.memory_mib for k in known if k and k.memory_mib is not None), None)

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
