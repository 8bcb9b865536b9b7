"""How far a study is, from its files alone; needs no torch, so that it answers at once from any shell.

``multirun/<study>/study.json`` lists all points of the last form of the study that was started; the runs' own folders
lie beside it. ``python -m kdexp status NAME`` prints where it stands.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdexp.common import files, results
from kdexp.common.files import Damaged
from kdexp.common.results import score, seconds
from kdexp.common.status import damage, read_status, state
from kdexp.config.identity import ROOT

COLOURS = {
    "finished": "green", "pruned": "blue", "running": "cyan", "failed": "red", "interrupted": "yellow",
    "damaged": "red",
}  # fmt: skip
STATES = ("finished", "pruned", "running", "failed", "interrupted", "damaged", "new")
SHAPE = {"study": str, "command": str, "points": list}
"""What study.json must have."""


def read(name: str, root: str | Path = ROOT) -> dict[str, Any]:
    """Return a study's study.json.

    Raises:
        ValueError: there is no such study (the known ones are named), or its study.json is damaged.
    """
    try:
        listed = files.read_record(Path(root) / name / "study.json", SHAPE)
    except Damaged as error:
        raise ValueError(f"{error}: start the study once more, which writes it anew") from error
    if listed is None:
        known = sorted(path.parent.name for path in Path(root).glob("*/study.json"))
        others = f"; there are: {', '.join(known)}" if known else "; no study was started below it yet"
        raise ValueError(f"no study {name} in {Path(root)}/{others}. Start one: python -m kdexp +experiment={name}")
    return dict(listed)


def rows(name: str, root: str | Path = ROOT) -> list[dict[str, Any]]:
    """Return one row a point.

    Its keys: ``name``, ``labels``, ``seed``, ``state``, ``metric``, ``score``, ``seconds``, ``error``, ``cohort`` (how
    many runs its process carries, or carried, out together; None before it began).
    """
    out, listed = [], read(name, root)
    for point in [*listed["points"], *listed.get("pruned", [])]:
        folder = Path(root) / name / point["name"]
        now = state(folder)
        run_result = results.read(folder) if now == "finished" else None
        status = read_status(folder)
        if now == "interrupted" and status.get("pruned"):
            now = "pruned"
        metric, value = score(run_result) or (None, None)
        out.append(
            {
                "name": point["name"], "labels": point["labels"], "seed": point["seed"], "state": now,
                "metric": metric, "score": value, "seconds": seconds(run_result),
                "error": _why(folder, status) if now in ("failed", "damaged") else None,
                "cohort": status.get("cohort"),
            }
        )  # fmt: skip
    return out


def _why(folder: Path, status: dict[str, Any]) -> str:
    broken = damage(folder)
    return str(broken) if broken else next(iter(str(status.get("error") or "").splitlines()), "")


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
        if row["state"] == "damaged":
            text = f"damaged: {row['error']}: the same command sets it aside and carries the run out again"
            console.print(text, markup=False, style="red", soft_wrap=True)
        if row["state"] == "failed":
            console.print(f"failed: {row['name']}: {row['error']}", markup=False, style="red", soft_wrap=True)
            console.print(f"        log: {Path(root) / name / row['name'] / 'run.log'}", markup=False, soft_wrap=True)
    counts = Counter(row["state"] for row in listed)
    together = Counter(row["cohort"] for row in listed if row["state"] == "running" and (row["cohort"] or 1) > 1)
    for size, running in sorted(together.items()):
        console.print(f"{running} of the running ones train together, in cohorts of {size}", markup=False)
    whole = counts["finished"] + counts["pruned"] == len(listed)
    spent = sum(row["seconds"] or 0.0 for row in listed)
    console.print(f"{len(listed)} runs: {counted(counts)}; {spent:.0f} s of runs so far", markup=False)
    if not whole:
        console.print(f"continue: {read(name, root)['command']}", markup=False, soft_wrap=True)
    return 0 if whole else 1


def counted(counts: Counter[str]) -> str:
    """Return how many runs there are of each state, in words."""
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
