"""Progress of a run: a bar with loss, examples/s and ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("kdexp")
EVERY = 10  # seconds between two lines of a log


@dataclass
class _Seen:
    """A phase since this process was first told of it: when, at which update, how far it is, and examples since."""

    began: float
    before: int
    step: int
    examples: int = 0


class Display:
    """Shows where a run stands; a context manager.

    Args:
        name: the run's name.
        enabled: False shows nothing.
    """

    def __init__(self, name: str, enabled: bool):
        self.name = name
        self.bar: Any = None
        self.enabled = enabled and sys.stderr.isatty()
        self.tasks: dict[str, Any] = {}
        self.seen: dict[str, _Seen] = {}
        self.said = time.monotonic()

    def __enter__(self) -> Display:
        if self.enabled:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self.bar = Progress(
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[info]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, stage: str, student: Any, step: int, total: int, examples: int) -> None:
        """Hear that a stage has done ``step`` of ``total`` updates, the last one with ``examples`` examples.

        Without a student they are batches that a teacher was asked.
        """
        now, seen = time.monotonic(), self.seen.get(stage)
        if seen is None or step < seen.step or (student is None and step == seen.step):
            seen = self.seen[stage] = _Seen(now, step, step)  # a phase's first, or one that goes on after a pause
        else:
            seen.examples += examples
        seen.step, spent, done = step, max(now - seen.began, 1e-3), step - seen.before
        info = [f"{seen.examples / spent:,.0f} ex/s"] if done else []
        if student is not None and "train/loss" in student.last:
            info.append(f"loss {student.last['train/loss']:.4f}")
        if self.bar is not None:
            if stage not in self.tasks:
                self.tasks[stage] = self.bar.add_task(stage, total=total, info="")
            self.bar.update(self.tasks[stage], completed=step, total=total, info="  ".join(info))
        if now - self.said >= EVERY or (step == total and student is not None):
            self.said = now
            left = [f"{(total - step) * spent / done:.0f} s left"] if done else []
            log.info("%s %d/%d %s", stage, step, total, "  ".join([*info, *left]))
