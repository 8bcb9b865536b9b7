"""What happens to a study's points once they stand: note them, skip what is finished, launch, sum up."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console

from kdexp.common.redact import without_passwords
from kdexp.launch.base import Interrupted, Launcher, Outcome, Point, result
from kdexp.launch.board import Board, duration, summary
from kdexp.launch.queue import expected, shared_stages
from kdexp.store import leases, shared_run
from kdexp.sweep import study as studies
from kdexp.tracking import following


def command() -> str:
    """Return the command that a person typed, to be typed again; passwords in addresses are left out."""
    return without_passwords("python -m kdexp " + shlex.join(sys.argv[1:]))


def study(points: list[Point], launcher: Launcher, scale: str, dry: bool) -> list[Outcome]:
    """Carry a study's points out, finished ones excepted.

    Args:
        points: composed, checked, each once.
        launcher: who carries them out.
        scale: the form of the study, for the record.
        dry: only say what would happen.

    Raises:
        SystemExit: code 1, some runs failed.
        Interrupted: a person stopped it; the summary has been printed.
    """
    name = str(points[0].config["study"])
    if not dry:
        shared_run.meet(points)
    states = {point.id: launcher.runs.state(point.folder) for point in points}
    if dry:
        show(name, points, states)
        return []
    refuse_stale(launcher.runs, [point for point in points if states[point.id] == "finished"])
    studies.write(points[0].folder.parent, name, scale, command(), points)
    ready = [point for point in points if states[point.id] == "finished"]
    todo = [point for point in points if states[point.id] != "finished"]
    leases.note(todo)
    outcomes = [Outcome(point, "skipped") for point in ready]
    began = time.time()
    if todo:
        launcher.costs = expected(todo, ready)
        board = Board(len(points), len(ready))
        try:
            launcher.prepare(todo)
            with tracked(points[0]):
                outcomes += launcher.launch(todo, board)
        except Interrupted as stopped:
            board.close()
            summary(name, outcomes + stopped.outcomes, time.time() - began, command())
            raise
        finally:
            board.close()
    summary(name, outcomes, time.time() - began, command())
    unsent = shared_run.unsent(points)
    if unsent:
        print(unsent, file=sys.stderr)
    if unsent or any(outcome.state == "failed" for outcome in outcomes):
        raise SystemExit(1)
    return outcomes


def tracked(point: Point) -> AbstractContextManager[None]:
    """Show a study's runs in the tracking store while it lasts; ``point`` is one of them."""
    return following(point.folder.parent, point.config.get("tracking") or {})


def refuse_stale(runs: Any, finished: list[Point]) -> None:
    """Refuse finished runs whose data or teacher's weights have other contents now; nothing is repeated in silence.

    Raises:
        ConfigError: with every such run.
    """
    from kdexp.config.resolve import ConfigError

    stale = getattr(runs, "stale", None)
    found = [stale(point.config, result(point)) for point in finished] if stale else []
    wrong = [sentence for sentence in found if sentence]
    if wrong:
        raise ConfigError(wrong)


def show(name: str, points: list[Point], states: dict[str, str]) -> None:
    """Print a grid without running it: states, shared stages, expected cost."""
    console = Console(soft_wrap=True, highlight=False)
    counts = Counter(states.values())
    said = ", ".join(f"{counts[s]} {s}" for s in ("finished", "running", "interrupted", "failed", "new") if counts[s])
    console.print(f"study {name}: {len(points)} runs ({said})", markup=False)
    for key in ("teacher", "student", "objective", "mapping", "init", "task"):
        values = dict.fromkeys(point.labels[key] for point in points)
        console.print(f"  {key:<10} {len(values):>3}  {', '.join(values)}", markup=False)
    seeds = dict.fromkeys(str(point.config.get("seed")) for point in points)
    console.print(f"  {'seed':<10} {len(seeds):>3}  {', '.join(seeds)}", markup=False)
    _, shared = shared_stages(points)
    for stage, amount in Counter(stage for stage, _ in shared.values()).items():
        users = sum(n for other, n in shared.values() if other == stage)
        console.print(f"shared   {stage}: {amount} to build (once each), used by {users} runs", markup=False)
    todo = [point for point in points if states[point.id] != "finished"]
    cost = expected(todo, [point for point in points if states[point.id] == "finished"])
    if not todo:
        console.print("cost     nothing is left to do")
    elif not cost:
        console.print("cost     unknown until a run of this study has finished")
    else:
        mean = sum(cost.values()) / len(cost)
        total = sum(cost.get(point.id, mean) for point in todo)
        guessed = len(todo) - len(cost)
        known = f" ({guessed} of them are taken to last as long as the others)" if guessed else ""
        console.print(f"cost     about {duration(total)} of one slot's time for {len(todo)} runs{known}")
    console.print("dry=true: nothing was run or written")
