"""What a person sees of a grid while it runs, and at its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from kdexp.common.results import score
from kdexp.launch.base import Outcome, result
from kdexp.run.spec import RunSpec

SHOWN = {  # state of an outcome -> what a person reads
    "finished": "[green]finished[/]",
    "failed": "[red]failed[/]",
    "interrupted": "[yellow]interrupted[/]",
    "skipped": "[green]finished elsewhere[/]",
    "pruned": "[blue]pruned[/]",
    "retrying": "[red]failed, tried again[/]",
}
ENDS = ("finished", "skipped", "failed", "interrupted")


class Board:
    """Progress over a whole grid on stderr: a live bar on a terminal, plain lines elsewhere.

    Args:
        total: points of the study.
        skipped: points that were finished before.
        console: where to write; stderr by default.
    """

    def __init__(self, total: int, skipped: int = 0, console: Console | None = None):
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self.total, self.skipped = total, skipped
        self.counts = dict.fromkeys(SHOWN, 0)
        self._active: dict[str, float] = {}
        self._slots, self._began = 1, time.time()
        self._progress: Progress | None = None

    @property
    def done_count(self) -> int:
        """Points that need nothing more in this session."""
        return self.skipped + sum(count for state, count in self.counts.items() if state != "retrying")

    def start(self, slots: int, live: bool = True) -> None:
        """Begin; ``slots`` runs at once. ``live=False`` leaves the terminal to the runs' own output."""
        self._slots, self._began = slots, time.time()
        self.say(f"{self.total - self.skipped} runs to do, {self.skipped} finished before, {slots} at a time")
        if live and self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]study"), BarColumn(bar_width=30), TextColumn("{task.fields[text]}"),
                console=self.console, transient=True, refresh_per_second=4,
            )  # fmt: skip
            self._task = self._progress.add_task("study", total=self.total, completed=self.skipped, text="")
            self._progress.start()

    def say(self, line: str) -> None:
        """Write one line above the bar."""
        self.console.print(line, markup=False)

    def running(self, point: RunSpec) -> None:
        """A point has begun."""
        self._active[point.name] = time.time()
        self.tick()

    def done(self, outcome: Outcome) -> None:
        """A point has ended: one line for it."""
        self._active.pop(outcome.point.name, None)
        self.counts[outcome.state] += 1
        scored = score(result(outcome.point)) if outcome.state in ("finished", "skipped") else None
        text = outcome.note or (f"{scored[0]} {100 * scored[1]:.1f}" if scored else (outcome.error or ""))
        place, state = f"{self.done_count}/{self.total}", SHOWN[outcome.state]
        self.console.print(
            f"{place:>9}  {state}  {escape(outcome.point.name)}  {escape(text)}  {outcome.seconds:.1f} s"
        )
        self.tick()

    def tick(self) -> None:
        """Bring the bar up to date."""
        if self._progress is None:
            return
        text = f"{self.done_count}/{self.total} done, {len(self._active)} running"
        if self.counts["failed"]:
            text += f", [red]{self.counts['failed']} failed[/]"
        self._progress.update(self._task, completed=self.done_count, text=text + self._eta())

    def _eta(self) -> str:
        ended = self.counts["finished"] + self.counts["pruned"]
        if not ended:
            return ""
        left = self.total - self.done_count
        return f", about {duration((time.time() - self._began) / ended * left)} to go"

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def duration(value: float) -> str:
    """Return seconds as people say them: ``45 s``, ``12 min``, ``3.5 h``."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def summary(study: str, outcomes: list[Outcome], elapsed: float, command: str, console: Console | None = None) -> None:
    """Print how a study ended: counts, and the failed runs with errors and logs; those of one cause together."""
    console = console or Console(soft_wrap=True, highlight=False)
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    table = Table(title=f"study {study}: {len(outcomes)} runs, {duration(elapsed)}", title_justify="left")
    for state in ENDS:
        table.add_column(state, justify="right")
    table.add_row(*(str(counts.get(state, 0)) for state in ENDS))
    console.print(table)
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    for alike in _grouped(failures):
        first, others = alike[0], [outcome.point.name for outcome in alike[1:]]
        console.print(f"failed: {first.point.name}: {first.error}", markup=False, style="red")
        console.print(f"        log: {_near(first.log)}", markup=False)
        if others:
            console.print(f"        {len(others)} more failed alike: {', '.join(others)}", markup=False)
    if failures or counts.get("interrupted"):
        console.print(f"To continue with what is missing, run the same command again: {command}", markup=False)


def _grouped(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """Put failures of one cause together: one bad teacher fails every run that needs it, in the same words."""
    groups: dict[str | None, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.error, []).append(outcome)
    return list(groups.values())


def _near(path: Path) -> Any:
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
