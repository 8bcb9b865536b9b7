"""The lines under a table: source, rules, and what a reader must know before believing a cell."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from . import gate, power, records

if TYPE_CHECKING:
    from .collect import Collected
    from .grid import Column, Row

SELECTED = {
    "heldout": "a held-out part of train",
    "validation": "VALIDATION ITSELF (as many papers do; optimistic)",
    "last": "no split (the last one counts)",
}
SHOWN = 12


def under(found: Collected, rows: list[Row], columns: list[Column], alpha: float) -> list[str]:
    """All notes of a table, the most needed first."""
    runs = found.runs
    hours = records.computed(runs["work"]) / 3600
    hardware = ", ".join(sorted(set(runs["hardware"]) - {""})) or "hardware not recorded"
    chosen = ", ".join(SELECTED.get(one, one) for one in sorted(set(runs["selection"])))
    out = [
        f"{len(runs)} runs from {found.source}; {hours:.2f} hours of computing (shared stages once); {hardware}.",
        "Cells: mean ± sample standard deviation over n seeds of the validation score x 100, metric as named; "
        f"the epoch was chosen on {chosen}.",
        "Bold: the highest mean of a column, if a test over shared seeds tells it from every other row "
        f"(two-sided p < {alpha} each; an intersection-union test; the error is pooled over the column's rows). "
        "≈: the highest mean and the rows that the test cannot tell from it. Majority and teacher take no part.",
        "Group: rows that share a letter cannot be told apart on average (the same test, Holm's correction over all "
        "pairs); a is the group of the highest average.",
        "Average: unweighted mean of the named metrics over the tasks, with a 95 % interval from the spread over seeds "
        "(Welch-Satterthwaite; tasks fixed), cut where the metric's scale ends.",
        *_unscored(found),
        *_weak(rows, columns),
        *filter(None, [gate.note(gate.signals(found))]),
    ]
    if not any(row.kind == records.FINETUNE for row in rows):
        out.append("The study has no run without distillation (objective=finetune): what distilling adds is not known.")
    sizes = {str(task): int(n) for task, n in runs.groupby("task")["rows"].first().items() if not math.isnan(n)}
    if sizes:
        each = ", ".join(f"{task} {size} (± {98 / math.sqrt(size):.1f})" for task, size in sizes.items())
        out.append(
            f"Validation examples: {each}; in brackets, the 95 % sampling error of an accuracy near 50, "
            "which the spread over seeds does not hold."
        )
    out += _seeds(rows)
    if any(row.extras for row in rows):
        out.append(
            "Training (s): seconds of all stages of a student but its teacher, whichever run built them, on the "
            "machine as busy as it was; means over a row's runs."
        )
    if found.missing:
        shown = "; ".join(str(one) for one in found.missing[:SHOWN]) + (" ..." if len(found.missing) > SHOWN else "")
        out.append(f"INCOMPLETE: {len(found.missing)} runs are missing: {shown}.")
    return out + found.notes


def _seeds(rows: list[Row]) -> list[str]:
    """How many seeds a difference of one point would take, given the spread that was seen."""
    measured = [cell for row in rows if row.kind not in ("majority", "teacher") for cell in row.cells if cell]
    spread = [cell.std for cell in measured if cell.std > 0]
    if not spread:
        return []
    typical = median(spread)
    needed = power.seeds_needed(1.0, typical, paired=False, most=1_000_000)
    return [
        f"Spread: the median standard deviation over seeds is {typical:.1f} points; to tell two rows that are 1 point "
        f"apart on one task would take about {needed} seeds each (t-test, power 0.8)."
    ]


def _unscored(found: Collected) -> list[str]:
    """Runs without a finite validation score of their chosen metric; they stand in no cell."""
    scores = found.scores[(found.scores["who"] == "student") & (found.scores["split"] == "validation")]
    have = found.runs[["run", "metric"]].merge(scores, on=["run", "metric"])["run"]
    absent = found.runs[~found.runs["run"].isin(set(have))]
    if not len(absent):
        return []
    names = ", ".join(absent["name"].head(SHOWN)) + (" ..." if len(absent) > SHOWN else "")
    return [f"WITHOUT A FINITE SCORE in their chosen metric, and so in no cell: {len(absent)} runs ({names})."]


def _weak(rows: list[Row], columns: list[Column]) -> list[str]:
    """The cells that do not beat answering the most frequent class (or the mean) always."""
    floor = next((row for row in rows if row.kind == "majority"), None)
    if floor is None:
        return []
    weak = [
        f"{' / '.join(filter(None, row.labels))} on {column.name}"
        for row in rows
        if row.kind not in ("majority", "teacher")
        for column, cell, base in zip(columns, row.cells, floor.cells, strict=True)
        if cell is not None and base is not None and cell.mean <= base.mean
    ]
    if not weak:
        return []
    more = f"; and {len(weak) - SHOWN} more" if len(weak) > SHOWN else ""
    return [f"Not above the majority answer: {'; '.join(weak[:SHOWN])}{more}."]
