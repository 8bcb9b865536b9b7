"""A study on disk: which runs belong to it, and how far they are.

``multirun/<study>/study.json`` lists all points of the last form of the study that was started; the runs' own folders
lie beside it. ``python -m kdexp status NAME`` prints where it stands, at any time and from any shell.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import files

if TYPE_CHECKING:
    from kdexp.launch.base import Point

ROOT = "multirun"
COLOURS = {"finished": "green", "failed": "red", "interrupted": "yellow", "running": "cyan", "pruned": "blue"}
STATES = ("finished", "pruned", "running", "failed", "interrupted", "new")


def write(folder: Path, name: str, scale: str, command: str, points: list[Point]) -> None:
    """Write study.json atomically: all points of the study as it is now, finished or not."""
    write_rows(folder, name, scale, command, [row(point) for point in points])


def row(point: Point) -> dict[str, Any]:
    """Return what study.json holds of a point."""
    seed = point.config.get("seed")
    return {"id": point.id, "name": point.name, "labels": point.labels, "seed": seed, "overrides": point.overrides}


def write_rows(folder: Path, name: str, scale: str, command: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """Write study.json atomically from rows of :func:`row`.

    Args:
        more: further keys; ``pruned`` has the rows of runs that a search gave up, which no table waits for.
    """
    files.write_json(folder / "study.json", {"study": name, "scale": scale, "command": command, "points": rows, **more})


def read(name: str, root: str | Path = ROOT) -> dict[str, Any]:
    """Return a study's study.json.

    Raises:
        ValueError: there is no such study; the known ones are named.
    """
    found = files.read_json(Path(root) / name / "study.json")
    if found is None:
        known = sorted(path.parent.name for path in Path(root).glob("*/study.json"))
        listed = f"; there are: {', '.join(known)}" if known else "; no study was started below it yet"
        raise ValueError(f"no study {name} in {Path(root)}/{listed}. Start one: python -m kdexp +experiment={name}")
    return dict(found)


def rows(name: str, root: str | Path = ROOT) -> list[dict[str, Any]]:
    """Return one row a point.

    Its keys: ``name``, ``labels``, ``seed``, ``state``, ``metric``, ``score``, ``seconds``, ``error``.
    """
    from kdexp.launch.base import score, seconds
    from kdexp.run.execute import state

    out, found = [], read(name, root)
    for point in [*found["points"], *found.get("pruned", [])]:
        folder = Path(root) / name / point["name"]
        now = state(folder)
        result = files.read_json(folder / "result.json") if now == "finished" else None
        status = files.read_json(folder / "status.json") or {}
        if now == "interrupted" and status.get("pruned"):
            now = "pruned"
        metric, value = score(result) or (None, None)
        out.append(
            {
                "name": point["name"], "labels": point["labels"], "seed": point["seed"], "state": now,
                "metric": metric, "score": value, "seconds": seconds(result),
                "error": next(iter(str(status.get("error") or "").splitlines()), "") if now == "failed" else None,
            }
        )  # fmt: skip
    return out


def status(name: str, root: str | Path = ROOT) -> int:
    """Print a study's runs and their states; returns 0 when all are finished (or pruned by a search), else 1."""
    from rich.console import Console
    from rich.table import Table

    found, console = rows(name, root), Console(soft_wrap=False, highlight=False)
    table = Table(title=f"study {name}", title_justify="left")
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    for column in ("score", "seconds"):
        table.add_column(column, justify="right")
    for row in found:
        colour = COLOURS.get(row["state"])
        value = "" if row["score"] is None else f"{row['metric']} {100 * row['score']:.1f}"
        took = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        table.add_row(row["name"], f"[{colour}]{row['state']}[/]" if colour else row["state"], value, took)
    console.print(table)
    for row in found:
        if row["state"] == "failed":
            console.print(f"failed: {row['name']}: {row['error']}", markup=False, style="red", soft_wrap=True)
            console.print(f"        log: {Path(root) / name / row['name'] / 'run.log'}", markup=False, soft_wrap=True)
    counts = Counter(row["state"] for row in found)
    said = ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])
    whole = counts["finished"] + counts["pruned"] == len(found)
    spent = sum(row["seconds"] or 0.0 for row in found)
    console.print(f"{len(found)} runs: {said}; {spent:.0f} s of runs so far", markup=False)
    if not whole:
        console.print(f"continue: {read(name, root)['command']}", markup=False, soft_wrap=True)
    return 0 if whole else 1
