"""Paper against ours: difference, its interval, and every caveat of the printed number beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sps

from .. import published
from ..collect import Collected
from ..render import md
from ..select import select
from ..selection import expected_maximum


@dataclass(frozen=True)
class Line:
    """A printed number and ours (x100); ``low``/``high``: 95 % interval of ours - paper; ``inside``: it holds 0.

    ``selected``: the expected best of ``k`` of our runs (all seeds and settings that belong to the number).
    """

    row: str
    task: str
    metric: str
    paper: float
    paper_std: float
    paper_n: float
    ours: float
    std: float
    n: int
    difference: float
    low: float
    high: float
    inside: str
    selected: float
    k: int
    caveat: str


def interval(ours: list[float], paper: float, std: float, n: float) -> tuple[float, float]:
    """95 % interval of mean(ours) - paper: Welch's with the printed std and n, else from our seeds alone; NaN with
    one seed."""
    if len(ours) < 2:
        return math.nan, math.nan
    mine = float(np.var(ours, ddof=1)) / len(ours)
    theirs = std**2 / n if n > 1 and not math.isnan(std) else 0.0
    total = mine + theirs
    if total <= 0:
        return math.nan, math.nan
    df = total**2 / (mine**2 / (len(ours) - 1) + (theirs**2 / (n - 1) if theirs else 0.0))
    half = float(sps.t.ppf(0.975, df)) * math.sqrt(total)
    gap = float(np.mean(ours)) - paper
    return gap - half, gap + half


def compare(found: Collected, best_of: int = 0) -> tuple[list[Line], list[str]]:
    """A line for every printed number of the study's tables, and notes; both empty if nothing was published.

    ``best_of``: runs of which a protocol would print the best; 0: all that belong to a number.
    """
    entry = published.match(found.study)
    if entry is None:
        return [], []
    frame = published.values()
    frame = frame[(frame["paper"] == entry["paper"]) & frame["table"].isin(entry["tables"])]
    long = found.scores[(found.scores["who"] == "student") & (found.scores["split"] == "validation")]
    lines: list[Line] = []
    for row in entry["rows"]:
        wanted = frame
        for key in ("method", "init", "student", "table"):
            if key in row:
                wanted = wanted[wanted[key] == row[key]]
        runs = select(found.runs, row["ours"])
        name = " / ".join(str(row[key]) for key in ("method", "init", "student") if key in row)
        lines += [
            _line(name, number, entry, runs, long, best_of)
            for number in wanted.to_dict("records")
            if number["task"] in entry["tasks"]
        ]
    return lines, _notes(found, entry, frame, lines)


def _line(
    name: str, number: dict[str, Any], entry: dict[str, Any], runs: pd.DataFrame, long: pd.DataFrame, best_of: int
) -> Line:
    """One printed number against the runs that belong to it."""
    metric = entry.get("metrics", {}).get(number["task"], number["metric"])
    mine = runs[runs["task"] == entry["tasks"][number["task"]]]
    scores = long[long["run"].isin(set(mine["run"])) & (long["metric"] == metric)].merge(
        mine[["run", "seed"]], on="run"
    )
    ours = [float(value) * 100 for value in scores.groupby("seed")["value"].mean()]
    paper, std, n = number["value"], number["std"], number["n"]
    low, high = interval(ours, paper, std, n)
    inside = "–" if math.isnan(low) else ("yes" if low <= 0 <= high else "no")
    mean = float(np.mean(ours)) if ours else math.nan
    k = min(best_of or len(scores), len(scores))
    selected = expected_maximum(list(scores["value"] * 100), k) if k else math.nan
    spread = float(np.std(ours, ddof=1)) if len(ours) > 1 else math.nan
    if len(scores) > len(ours):
        caveat = "; ".join(filter(None, [number["caveat"], "ours averages several settings a seed"]))
        number = {**number, "caveat": caveat}
    return Line(
        name,
        number["task"],
        metric,
        paper,
        std,
        n,
        mean,
        spread,
        len(ours),
        mean - paper,
        low,
        high,
        inside,
        selected,
        k,
        number["caveat"],
    )


def _notes(found: Collected, entry: dict[str, Any], frame: pd.DataFrame, lines: list[Line]) -> list[str]:
    """Setting, doubts with the evidence at hand, caveats, averages."""
    notes = [
        f"Paper: {entry['paper']}, {', '.join(entry['tables'])}. Inside: the 95 % interval of ours - paper holds 0 "
        "(Welch, with the printed std and n where there are any; else our seeds alone).",
        "Selection: the expected best of k of our runs, k in brackets: what a protocol would print that reports the "
        "best seed or setting on the set that chose it. Ours is the mean.",
    ]
    for key, value in entry.get("setting", {}).items():
        own = sorted(set(found.runs[key]))
        if own != [value]:
            notes.append(
                f"NOT the paper's setting: {key} is {', '.join(own)} here, {value} there. "
                "A difference measures that too."
            )
    majority = found.scores[(found.scores["who"] == "majority") & (found.scores["split"] == "validation")].merge(
        found.runs[["run", "task"]], on="run"
    )
    for task, why in entry.get("doubts", {}).items():
        own = majority[majority["task"] == entry["tasks"][task]].drop_duplicates("metric")
        seen = ", ".join(f"{m} {v * 100:.1f}" for m, v in zip(own["metric"], own["value"], strict=True))
        notes.append(f"{task}: {why}" + (f" The majority answer on our copy: {seen}." if seen else ""))
    grouped: dict[str, list[str]] = {}
    for line in lines:
        if line.caveat and line.task not in entry.get("doubts", {}):
            grouped.setdefault(line.caveat, []).append(f"{line.row} {line.task}")
    notes += [f"{caveat} [{len(where)} numbers, as {where[0]}]" for caveat, where in grouped.items()]
    wrong = published.averages(frame)
    notes += [
        f"Printed average of {row.method} ({row.init}): {row.printed:.1f}, but its row averages {row.recomputed:.2f}."
        for row in wrong.itertuples()
        if abs(row.gap) > 0.051
    ]
    absent = sorted({line.row for line in lines if line.n == 0} - {line.row for line in lines if line.n})
    if absent:
        notes.append(f"Not run here: {'; '.join(absent)}.")
    return notes


def markdown(lines: list[Line], notes: list[str], study: str) -> str:
    """The lines that we have runs for, as a Markdown table, and the notes."""
    body = [
        "| row | task (metric) | paper | ours | n | difference | 95 % interval | inside | selection |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | :---: | ---: |",
    ]
    for line in lines:
        if line.n:
            number = published.digits
            paper = number(line.paper) + (f" ± {line.paper_std:.2f}" if not math.isnan(line.paper_std) else "")
            ours = number(line.ours) + (f" ± {line.std:.2f}" if not math.isnan(line.std) else "")
            gap = f"[{line.low:+.1f}, {line.high:+.1f}]" if not math.isnan(line.low) else "–"
            body.append(
                f"| {md(line.row)} | {md(line.task)} ({md(line.metric)}) | {paper} | {ours} | {line.n} "
                f"| {line.difference:+.1f} | {gap} | {line.inside} | {number(line.selected)} ({line.k}) |"
            )
    if len(body) == 2:
        body = ["No run of this study belongs to a printed number."]
    return (
        f"### {md(study)}: paper and ours\n\n"
        + "\n".join(body)
        + "\n\n"
        + "\n".join(f"- {md(note)}" for note in notes)
        + "\n"
    )
