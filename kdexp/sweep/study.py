"""A study: what happens to its points once they stand.

``multirun/<study>/study.json`` lists all points of the last form of the study that was started; the runs' own folders
lie beside it. How far they are: :mod:`kdexp.sweep.status`.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from kdexp.common import beside, files, results
from kdexp.common.files import Damaged
from kdexp.common.problems import ConfigError
from kdexp.common.redact import public
from kdexp.common.status import damage, state
from kdexp.config.identity import LABELS, SCHEMA
from kdexp.launch import cohorts
from kdexp.launch.base import Interrupted, Launcher, Outcome, Source, result
from kdexp.launch.board import Board, duration, summary
from kdexp.launch.queue import expected, shared_stages
from kdexp.methods.base import Facts
from kdexp.run import footprint, stored
from kdexp.run.spec import RunSpec
from kdexp.store import leases, shared_run
from kdexp.sweep.status import counted
from kdexp.tracking import following
from kdexp.train import forecast

MOST_LISTED = 60  # values of a key that dry=true shows one by one


def command() -> str:
    """Return the command that a person typed, to be typed again; secrets are left out."""
    return "python -m kdexp " + shlex.join(public(sys.argv[1:]))


def carry_out(points: list[RunSpec], launcher: Launcher, scale: str, dry: bool) -> list[Outcome]:
    """Carry a study's points out, finished ones excepted.

    Args:
        points: composed, checked, each once.
        launcher: who carries them out.
        scale: the form of the study, for the record.
        dry: only say what would happen.

    Raises:
        SystemExit: code 1, some runs are not finished.
        Interrupted: a person stopped it; the summary has been printed.
    """
    if dry:
        show(points[0].config.study, points, states(points), launcher)
        return []
    outcomes, unsent = work_off(points, launcher, scale)
    if unsent or any(outcome.state not in ("finished", "skipped", "pruned") for outcome in outcomes):
        raise SystemExit(1)
    return outcomes


def states(points: list[RunSpec]) -> dict[str, str]:
    """Return where each point's run stands, by its id; damaged results are named."""
    found = {point.id: state(point.run_dir) for point in points}
    for broken in filter(None, (damage(point.run_dir) for point in points if found[point.id] == "damaged")):
        print(f"{broken}: it is set aside, and the run is carried out again", file=sys.stderr)
    return found


def work_off(
    points: list[RunSpec], launcher: Launcher, scale: str, source: Source | None = None
) -> tuple[list[Outcome], str]:
    """Carry out points that are not finished: all of them, or those that a source asks for.

    Returns:
        How each ended, finished ones too; and what could not be sent to object storage, as a sentence.

    Raises:
        Interrupted: a person stopped it; the summary has been printed.
    """
    name, run_dirs = points[0].config.study, points[0].run_dir.parent
    shared_run.meet(points)
    found = states(points)
    older = made_before(run_dirs, {point.name for point in points})
    if older:
        print(older, file=sys.stderr)
    ready = [point for point in points if found[point.id] == "finished"]
    refuse_stale(ready)
    write(run_dirs, name, scale, command(), [row(point) for point in points])
    todo = [point for point in points if found[point.id] != "finished"]
    leases.note(store_root(points[0]), [(point.run_dir, point.outline) for point in todo])
    outcomes = [Outcome(point, "skipped") for point in ready]
    began = time.time()
    if todo and (source is None or source):
        launcher.costs = expected(todo, ready)
        board = Board(len(points) if source is None else max(source.size, len(ready)), len(ready))
        try:
            launcher.prepare(todo)
            with following(run_dirs, points[0].config.tracking.model_dump()):
                outcomes += launcher.launch(todo, board) if source is None else launcher.serve(source, board)
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
    return outcomes, unsent


def store_root(point: RunSpec) -> Path:
    """Return the place of the store that a point's stages are kept in."""
    return Path(point.config.runtime.store).expanduser().absolute()


def made_before(study_dir: Path, known: set[str]) -> str:
    """Say that a study holds results of an older kdexp, which named runs otherwise; '' if it holds none.

    Args:
        study_dir: ``multirun/<study>``.
        known: names of the study's runs as they are called now.
    """
    folders = [path.parent for path in study_dir.glob(f"*/{results.RESULT}") if path.parent.name not in known]
    old = [folder for folder in folders if _schema(folder) not in (None, SCHEMA)]
    if not old:
        return ""
    return (
        f"{len(old)} finished runs in {study_dir} were made by an older kdexp, which identified runs otherwise: they "
        "are not taken for these and stay out of tables (extra=include takes them in); study=NAME keeps the two apart."
    )


def _schema(run_dir: Path) -> int | None:
    """Return the number that a result's run was identified by; None if it is damaged."""
    try:
        return (results.read(run_dir) or {}).get("run", {}).get("schema", 1)
    except Damaged:
        return None


def refuse_stale(finished: list[RunSpec]) -> None:
    """Refuse finished runs whose data or teacher's weights have other contents now; nothing is repeated in silence.

    Raises:
        ConfigError: with every such run.
    """
    looked: dict[str, Facts] = {}
    sentences = [stored.stale(point, run_result, looked) for point in finished if (run_result := result(point))]
    if any(sentences):
        raise ConfigError([sentence for sentence in sentences if sentence])


def show(name: str, points: list[RunSpec], states: dict[str, str], launcher: Launcher) -> None:
    """Print a grid without running it: states, shared stages, cohorts, expected cost."""
    console = Console(soft_wrap=True, highlight=False)
    counts = Counter(states.values())
    console.print(f"study {name}: {len(points)} runs ({counted(counts)})", markup=False)
    for key in LABELS:
        values = dict.fromkeys(point.labels[key] for point in points)
        console.print(f"  {key:<10} {len(values):>3}  {listed(list(values))}", markup=False)
    seeds = dict.fromkeys(point.config.seed for point in points)
    console.print(f"  {'seed':<10} {len(seeds):>3}  {listed(list(seeds))}", markup=False)
    _, shared = shared_stages(points)
    for stage, amount in Counter(stage for stage, _ in shared.values()).items():
        users = sum(n for other, n in shared.values() if other == stage)
        made = f"{amount}, built once each unless in the store, used by {users} runs"
        console.print(f"shared   {stage}: {made}", markup=False)
    todo = [point for point in points if states[point.id] != "finished"]
    together = cohorts.said(todo, launcher.at_once(todo), launcher.memory_each(todo))
    if together:
        console.print(f"cohorts  {together}", markup=False)
    done = [point for point in points if states[point.id] == "finished"]
    cost = expected(todo, done)
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
    for line in forecast.lines((point.config, point.outline) for point in todo):
        console.print(line, markup=False)
    console.print(f"disk     {footprint.said(todo, done)}", markup=False)
    for line in outlook(name, points):
        console.print(line, markup=False)
    console.print("dry=true: nothing was run or written")


def listed(values: list[Any]) -> str:
    """Return values in a line: whole numbers in a row by their ends, and of very many others the first."""
    if len(values) > 4 and all(type(v) is int for v in values) and values == [*range(values[0], values[-1] + 1)]:
        return f"{values[0]} to {values[-1]}"
    shown = values if len(values) <= MOST_LISTED else values[: MOST_LISTED // 2]
    rest = len(values) - len(shown)
    return ", ".join(map(str, shown)) + (f" and {rest} more" if rest else "")


def outlook(name: str, points: list[RunSpec]) -> list[str]:
    """Ask the packages that judge studies (entry points ``kdexp.outlook``) what a grid could decide.

    Each is a function of what the runs' results would say of themselves, the study's name, and the studies' folder.
    """
    runs = [{"labels": point.labels, "science": point.science, "seed": point.config.seed} for point in points]
    root = points[0].run_dir.parent.parent
    return [line for entry in beside.offers("kdexp.outlook") for line in entry.load()(runs, name, root)]


def row(point: RunSpec) -> dict[str, Any]:
    """Return what study.json holds of a point."""
    seed, overrides = point.config.seed, list(point.overrides)
    return {"id": point.id, "name": point.name, "labels": point.labels, "seed": seed, "overrides": overrides}


def write(folder: Path, name: str, scale: str, command: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write study.json atomically: all points of the study as it is now, finished or not, as :func:`row` has them.

    Args:
        more: further keys; ``pruned`` has the rows of runs that a search gave up, which no table waits for.
    """
    content = {"study": name, "scale": scale, "command": command, "points": rows, **more}
    files.write_record(folder / "study.json", public(content))
