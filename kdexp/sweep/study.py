"""A study: what happens to its points once they stand, and how far they are on disk.

``multirun/<study>/study.json`` lists all points of the last form of the study that was started; the runs' own folders
lie beside it. ``python -m kdexp status NAME`` prints where it stands, at any time and from any shell.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdexp.common import files
from kdexp.common.problems import ConfigError
from kdexp.common.redact import without_passwords
from kdexp.common.status import read_status, state
from kdexp.config.identity import LABELS, ROOT
from kdexp.launch.base import Interrupted, Launcher, Outcome, result, score, seconds
from kdexp.launch.board import Board, duration, summary
from kdexp.launch.queue import expected, shared_stages
from kdexp.run import stored
from kdexp.run.spec import RunSpec
from kdexp.store import leases, shared_run
from kdexp.tracking import following

COLOURS = {"finished": "green", "failed": "red", "interrupted": "yellow", "running": "cyan", "pruned": "blue"}
STATES = ("finished", "pruned", "running", "failed", "interrupted", "new")


def command() -> str:
    """Return the command that a person typed, to be typed again; passwords in addresses are left out."""
    return without_passwords("python -m kdexp " + shlex.join(sys.argv[1:]))


def carry_out(points: list[RunSpec], launcher: Launcher, scale: str, dry: bool) -> list[Outcome]:
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
    name, run_dirs = points[0].config.study, points[0].run_dir.parent
    if not dry:
        shared_run.meet(points)
    states = {point.id: state(point.run_dir) for point in points}
    if dry:
        show(name, points, states)
        return []
    ready = [point for point in points if states[point.id] == "finished"]
    refuse_stale(ready)
    write(run_dirs, name, scale, command(), [row(point) for point in points])
    todo = [point for point in points if states[point.id] != "finished"]
    leases.note(store_root(points[0]), [(point.run_dir, point.outline) for point in todo])
    outcomes = [Outcome(point, "skipped") for point in ready]
    began = time.time()
    if todo:
        launcher.costs = expected(todo, ready)
        board = Board(len(points), len(ready))
        try:
            launcher.prepare(todo)
            with following(run_dirs, points[0].config.tracking.model_dump()):
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


def store_root(point: RunSpec) -> Path:
    """Return the place of the store that a point's stages are kept in."""
    return Path(point.config.runtime.store).expanduser().absolute()


def refuse_stale(finished: list[RunSpec]) -> None:
    """Refuse finished runs whose data or teacher's weights have other contents now; nothing is repeated in silence.

    Raises:
        ConfigError: with every such run.
    """
    sentences = [stored.stale(point, run_result) for point in finished if (run_result := result(point))]
    if any(sentences):
        raise ConfigError([sentence for sentence in sentences if sentence])


def show(name: str, points: list[RunSpec], states: dict[str, str]) -> None:
    """Print a grid without running it: states, shared stages, expected cost."""
    console = Console(soft_wrap=True, highlight=False)
    counts = Counter(states.values())
    console.print(f"study {name}: {len(points)} runs ({_counted(counts)})", markup=False)
    for key in LABELS:
        values = dict.fromkeys(point.labels[key] for point in points)
        console.print(f"  {key:<10} {len(values):>3}  {', '.join(values)}", markup=False)
    seeds = dict.fromkeys(str(point.config.seed) for point in points)
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


def row(point: RunSpec) -> dict[str, Any]:
    """Return what study.json holds of a point."""
    seed, overrides = point.config.seed, list(point.overrides)
    return {"id": point.id, "name": point.name, "labels": point.labels, "seed": seed, "overrides": overrides}


def write(folder: Path, name: str, scale: str, command: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write study.json atomically: all points of the study as it is now, finished or not, as :func:`row` has them.

    Args:
        more: further keys; ``pruned`` has the rows of runs that a search gave up, which no table waits for.
    """
    files.write_json(folder / "study.json", {"study": name, "scale": scale, "command": command, "points": rows, **more})


def read(name: str, root: str | Path = ROOT) -> dict[str, Any]:
    """Return a study's study.json.

    Raises:
        ValueError: there is no such study; the known ones are named.
    """
    listed = files.read_json(Path(root) / name / "study.json")
    if listed is None:
        known = sorted(path.parent.name for path in Path(root).glob("*/study.json"))
        others = f"; there are: {', '.join(known)}" if known else "; no study was started below it yet"
        raise ValueError(f"no study {name} in {Path(root)}/{others}. Start one: python -m kdexp +experiment={name}")
    return dict(listed)


def rows(name: str, root: str | Path = ROOT) -> list[dict[str, Any]]:
    """Return one row a point.

    Its keys: ``name``, ``labels``, ``seed``, ``state``, ``metric``, ``score``, ``seconds``, ``error``.
    """
    out, listed = [], read(name, root)
    for point in [*listed["points"], *listed.get("pruned", [])]:
        folder = Path(root) / name / point["name"]
        now = state(folder)
        run_result = files.read_json(folder / "result.json") if now == "finished" else None
        status = read_status(folder)
        if now == "interrupted" and status.get("pruned"):
            now = "pruned"
        metric, value = score(run_result) or (None, None)
        out.append(
            {
                "name": point["name"], "labels": point["labels"], "seed": point["seed"], "state": now,
                "metric": metric, "score": value, "seconds": seconds(run_result),
                "error": next(iter(str(status.get("error") or "").splitlines()), "") if now == "failed" else None,
            }
        )  # fmt: skip
    return out


def status(name: str, root: str | Path = ROOT) -> int:
    """Print a study's runs and their states; returns 0 when all are finished (or pruned by a search), else 1."""
    listed, console = rows(name, root), Console(soft_wrap=False, highlight=False)
    table = Table(title=f"study {name}", title_justify="left")
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    for column in ("score", "seconds"):
        table.add_column(column, justify="right")
    for row in listed:
        colour = COLOURS.get(row["state"])
        value = "" if row["score"] is None else f"{row['metric']} {100 * row['score']:.1f}"
        took = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        table.add_row(row["name"], f"[{colour}]{row['state']}[/]" if colour else row["state"], value, took)
    console.print(table)
    for row in listed:
        if row["state"] == "failed":
            console.print(f"failed: {row['name']}: {row['error']}", markup=False, style="red", soft_wrap=True)
            console.print(f"        log: {Path(root) / name / row['name'] / 'run.log'}", markup=False, soft_wrap=True)
    counts = Counter(row["state"] for row in listed)
    whole = counts["finished"] + counts["pruned"] == len(listed)
    spent = sum(row["seconds"] or 0.0 for row in listed)
    console.print(f"{len(listed)} runs: {_counted(counts)}; {spent:.0f} s of runs so far", markup=False)
    if not whole:
        console.print(f"continue: {read(name, root)['command']}", markup=False, soft_wrap=True)
    return 0 if whole else 1


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
