"""Progress of a run: a bar with loss, examples/s and ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

log = logging.getLogger("kdexp")


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
        self.started: dict[str, tuple[float, int]] = {}
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
        now = time.monotonic()
        first, seen = self.started.setdefault(stage, (now, 0))
        self.started[stage] = (first, seen + examples)
        rate = (seen + examples) / max(now - first, 1e-3)
        loss = None if student is None else student.last.get("train/loss")
        info = f"{rate:,.0f} ex/s" + ("" if loss is None else f"  loss {loss:.4f}")
        if self.bar is not None:
            if stage not in self.tasks:
                self.tasks[stage] = self.bar.add_task(stage, total=total, info="")
            self.bar.update(self.tasks[stage], completed=step, info=info)
        if now - self.said >= 10 or step == total:
            self.said = now
            left = (total - step) * (now - first) / max(step, 1)
            log.info("%s %d/%d %s, %.0f s left", stage, step, total, info, left)
