"""The board of a sweep: what waits, runs, is done or has failed, and how long it still takes.

In a terminal it is one table; elsewhere a line for each end. ``logs/sweep.jsonl`` has the same for
other programs, a line for each event.
"""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.sweep.run_costs import RunCost, RunCosts
from pipelines.sweep.task import Ended, Running

EVENTS = Path("logs") / "sweep.jsonl"
SHOW_SECONDS = 1.0
LINE_SECONDS = 60.0  # between lines about what runs, where there is no terminal
EVENT_SECONDS = 5.0  # between lines about one run
MOST_ROWS, MOST_FAILED = 20, 5


class Board:
    """Shows a sweep, and keeps what its runs cost."""

    def __init__(self, costs: RunCosts, console: Console | None = None) -> None:
        self.costs = costs
        self.console = console or Console()
        self.left: dict[str, None] = {}
        self.running: dict[str, Running] = {}
        self.since: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.total = self.done = self.up_to_date = self.lost = 0
        self.shown_at = self.line_at = time.monotonic()
        self.told_at: dict[str, float] = {}
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def begin(self, names: Sequence[str]) -> None:
        self.left = dict.fromkeys(names)
        self.total = len(names)
        EVENTS.parent.mkdir(exist_ok=True)
        EVENTS.write_text("", encoding="utf-8")
        self.tell("begin", runs=self.total)
        if self.console.is_terminal:
            self.live.start()

    def update(self, event: Running) -> None:
        """Take how far a run is."""
        now = time.monotonic()
        self.since.setdefault(event.name, now)
        is_new = event.name not in self.running
        self.running[event.name] = event
        if is_new or now - self.told_at[event.name] > EVENT_SECONDS:
            self.told_at[event.name] = now
            progress = event.progress
            far = {} if progress is None else vars(progress) | {"values": dict(progress.values)}
            self.tell("running", event.name, node=event.node, gpus=event.gpus, **far)

    def skip(self, name: str) -> None:
        """Take that a run is up to date."""
        self.left.pop(name)
        self.done += 1
        self.up_to_date += 1

    def finish(self, name: str, ended: Ended | None) -> None:
        """Take that a run is done; without ``ended``, its outputs were in DVC's cache."""
        self.forget(name)
        self.left.pop(name)
        self.done += 1
        if ended is None:
            self.say(f"{name}: was in the cache")
            self.tell("done", name, how="was in the cache")
        else:
            self.costs.add(name, RunCost(round(ended.seconds, 1), ended.memory_mib))
            self.say(f"{name}: {ended.seconds:.1f} s")
            self.tell("done", name, node=ended.node, seconds=round(ended.seconds, 1))

    def lose(self, event: Ended) -> None:
        """Take that a machine was lost, or has refused a run, which begins again elsewhere."""
        self.forget(event.name)
        self.lost += 1
        self.complain(f"warning: {event.name}: {event.said}; it begins again", "yellow")
        self.tell("lost", event.name, node=event.node, said=event.said)

    def fail(self, name: str, why: str) -> None:
        self.forget(name)
        self.left.pop(name)
        self.failed[name] = why
        self.complain(f"error: {name}: {why}", "red")
        self.tell("failed", name, said=why)

    def queue(self, name: str) -> None:
        """Take that a run waits again."""
        self.forget(name)
        self.tell("queued", name)

    def forget(self, name: str) -> None:
        """Take that a run is not under way any longer."""
        self.running.pop(name, None)
        self.since.pop(name, None)

    def end(self) -> None:
        """Say what was not run, and keep what the others have cost."""
        self.live.stop()
        with suppress(OSError):
            self.costs.save()
        if self.failed and self.left:
            self.complain(f"{len(self.left)} runs that need one that failed were not begun", "red")
        self.tell("end", done=self.done, failed=len(self.failed), left=len(self.left))

    def show(self) -> None:
        """Show the state, if the last time is long enough ago."""
        now = time.monotonic()
        if self.console.is_terminal and now - self.shown_at > SHOW_SECONDS:
            self.shown_at = now
            shown = Group(self.make_table(), *self.list_failures(), Text(self.summarise()))
            self.live.update(shown, refresh=True)
        elif not self.console.is_terminal and now - self.line_at > LINE_SECONDS and self.running:
            self.line_at = now
            self.say("; ".join(self.describe(event) for event in self.running.values()))

    def make_table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for head in ("run", "machine", "GPU", "step", "a second", "loss", "time left"):
            table.add_column(head, justify="left" if head in ("run", "machine") else "right")
        for name, event in list(self.running.items())[:MOST_ROWS]:
            progress = event.progress
            values = {} if progress is None else progress.values
            table.add_row(
                name,
                event.node,
                event.gpus or "-",
                f"{progress.done}/{progress.total} {progress.unit}" if progress else "",
                f"{values['images_per_s']} images" if "images_per_s" in values else "",
                values.get("loss", ""),
                format_seconds(self.expect_left(name)),
            )
        if len(self.running) > MOST_ROWS:
            table.add_row(f"and {len(self.running) - MOST_ROWS} more")
        return table

    def list_failures(self) -> list[Text]:
        """List the last runs that failed, each with the last line of why."""
        lasts = list(self.failed.items())[-MOST_FAILED:]
        return [
            Text(f"{name} failed: {why.strip().splitlines()[-1]}", style="red")
            for name, why in lasts
        ]

    def describe(self, event: Running) -> str:
        """Describe in one line how far a run is."""
        if event.progress is None:
            return f"{event.name}: runs"
        progress = event.progress
        loss = f", loss {progress.values['loss']}" if "loss" in progress.values else ""
        return f"{event.name}: {progress.unit} {progress.done} of {progress.total}{loss}"

    def summarise(self) -> str:
        """Say how many runs are done, run, wait and have failed, and how long it takes."""
        waiting = len(self.left) - len(self.running)
        parts = [f"{self.done} of {self.total} done ({self.up_to_date} were up to date)"]
        parts += [f"{len(self.running)} running", f"{waiting} waiting"]
        parts += [f"{count} {what}" for count, what in self.list_troubles() if count]
        return ", ".join([*parts, self.describe_left()])

    def list_troubles(self) -> list[tuple[int, str]]:
        return [(len(self.failed), "failed"), (self.lost, "begun again")]

    def describe_left(self) -> str:
        """Say how long all runs will take that are not done."""
        seconds, is_all = self.sum_left()
        if seconds is None:
            return "time left unknown"
        return f"{'' if is_all else 'at least '}{format_seconds(seconds)} left"

    def sum_left(self) -> tuple[float | None, bool]:
        """Sum what the runs still take, and tell whether this is known of all of them.

        The sum is None if it is known of less than half of them, as before the first training.
        """
        expected = [self.expect_left(name) for name in self.left]
        known = [seconds for seconds in expected if seconds is not None]
        if 2 * len(known) < len(expected):
            return None, False
        return sum(known) / max(1, len(self.running)), len(known) == len(expected)

    def expect_left(self, name: str) -> float | None:
        """Expect how many seconds a run still takes; None if nobody knows."""
        event = self.running.get(name)
        if event is not None and event.progress and event.progress.seconds_left is not None:
            return event.progress.seconds_left
        expected = self.costs.expect_seconds(name)
        if event is None or expected is None:
            return expected
        return max(0.0, expected - (time.monotonic() - self.since[name]))

    def say(self, text: str, style: str = "") -> None:
        if self.console.is_terminal:
            self.console.print(Text(text, style=style), soft_wrap=True)
        else:
            done = f"[{self.done} of {self.total}, {self.describe_left()}]"
            print(f"{done} {text}", flush=True)

    def complain(self, text: str, style: str) -> None:
        if self.console.is_terminal:
            self.say(text, style)
        else:
            print(text, file=sys.stderr, flush=True)

    def tell(self, event: str, name: str = "", **content: Any) -> None:
        """Add a line for other programs."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event}
        line |= {"run": name} if name else {}
        state: dict[str, Any] = {
            "done": self.done,
            "running": len(self.running),
            "waiting": len(self.left) - len(self.running),
            "failed": len(self.failed),
            "of": self.total,
        }
        if event != "running":  # of which there are many, and adding up takes time
            seconds, _ = self.sum_left()
            state["seconds_left"] = None if seconds is None else round(seconds)
        with suppress(OSError), EVENTS.open("a", encoding="utf-8") as file:  # the disk may be full
            file.write(json.dumps(line | content | {"sweep": state}) + "\n")


def format_seconds(seconds: float | None) -> str:
    """Format a time that is left."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
