"""A study's scores as a grid: rows of labels, columns of tasks, cells of mean, spread and n. What ``tables.py`` prints.

Scores are multiplied by 100 here, once. The rule for marks and the intervals are those of ``docs/evidence.md``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from . import notes, records, stats
from .bounds import within
from .collect import Collected
from .contrasts import Pool, pair, tie_groups
from .select import settings_columns

LAYOUTS = {"grid": ("objective", "init"), "init": ("init", "objective"), "methods": ("objective", "init")}
ALPHA = 0.05
TRAINING = "training (s)"


@dataclass
class Cell:
    """Mean, sample std and interval (x100) over n runs.

    ``mark``: ``best``, ``top`` (not told from it) or empty. ``group``: letters of its tie groups in its column.
    """

    mean: float
    std: float
    n: int
    low: float = math.nan
    high: float = math.nan
    mark: str = ""
    group: str = ""


@dataclass(frozen=True)
class Column:
    """One score column; ``counted`` columns make up the average."""

    task: str
    split: str
    metric: str
    counted: bool

    @property
    def name(self) -> str:
        """The task, with the split if it is not the validation split."""
        return self.task if self.split == "validation" else f"{self.task} {self.split.removeprefix('validation_')}"


@dataclass
class Row:
    """One row; ``kind``: majority, teacher, finetune or method; ``values[c]``: seed -> score (x100) in column c.

    ``start``: what its students are before they are distilled, as ``objective.start`` has it.
    """

    kind: str
    labels: tuple[str, ...]
    values: list[dict[object, float]]
    cells: list[Cell | None] = field(default_factory=list)
    average: Cell | None = None
    extras: dict[str, float] = field(default_factory=dict)
    start: str = ""

    @property
    def group(self) -> str:
        """Letters of its tie groups on the average; empty where there is nothing to compare."""
        return "" if self.average is None else self.average.group


@dataclass
class Grid:
    """A table before it is printed."""

    study: str
    keys: tuple[str, ...]
    columns: list[Column]
    rows: list[Row]
    notes: list[str]

    def frame(self) -> pd.DataFrame:
        """Tidy: one line a cell, for CSV and further work."""
        out = []
        for row in self.rows:
            head = {"kind": row.kind, **dict(zip(self.keys, row.labels, strict=True))}
            cells = [
                *zip(self.columns, row.cells, strict=True),
                (Column("average", "validation", "mean", False), row.average),
            ]
            for column, cell in cells:
                if cell is not None:
                    out.append(
                        {**head, "task": column.task, "split": column.split, "metric": column.metric, **vars(cell)}
                    )
            out += [
                {**head, "task": "", "split": "", "metric": name, "mean": value} for name, value in row.extras.items()
            ]
        return pd.DataFrame(out)


def build(found: Collected, *, layout: str = "grid", metric: str = "") -> Grid:
    """The grid of a collected study.

    ``metric``: one for all tasks, instead of each task's chosen one; ``ValueError`` if no run has it.
    """
    runs = settings_columns(found.runs, found.by) if found.by else found.runs
    long = found.scores.merge(runs.rename(columns={"metric": "chosen"}), on="run", how="inner", sort=False)
    long = long[long["metric"] == (metric or long["chosen"])]
    long = long[long["split"].str.startswith("validation") & (long["split"] != "validation_last")]
    if not len(long):
        have = sorted(set(found.scores["metric"]))
        raise ValueError(
            f"no run of study {found.study!r} has a validation score {metric or 'of its chosen metric'}; "
            f"recorded: {', '.join(have)}"
        )
    columns = _columns(long, found.order)
    keys = _keys(runs, LAYOUTS[layout], found.by)
    rows = _reference_rows(long, runs, columns, keys) + _method_rows(long, runs, columns, keys, found.order)
    for row in rows:
        row.cells = [_cell(list(values.values()), column) for values, column in zip(row.values, columns, strict=True)]
        row.average = _average(row, columns)
    measured = [row for row in rows if row.kind in (records.FINETUNE, "method")]
    for index in range(len(columns)):
        present = [row for row in measured if row.cells[index] is not None]
        _mark([row.cells[index] for row in present], pools(present, [index]))
    counted = [index for index, column in enumerate(columns) if column.counted]
    averaged = [row for row in measured if row.average is not None]
    _mark([row.average for row in averaged], pools(averaged, counted))
    if layout == "methods":
        _extras(measured, runs, keys)
    return Grid(found.study, keys, columns, rows, notes.under(found, rows, columns, ALPHA))


def _columns(long: pd.DataFrame, order: dict[str, list[str]]) -> list[Column]:
    """Tasks in the study's order; further validation splits (MNLI mismatched) beside their task, not in the average."""
    seen = long[["task", "split", "metric"]].drop_duplicates().itertuples(index=False)
    place = {task: index for index, task in enumerate(order.get("task", []))}
    out = [Column(task, split, metric, split == "validation") for task, split, metric in seen]
    return sorted(out, key=lambda c: (place.get(c.task, len(place)), c.task, c.split, c.metric))


def _keys(runs: pd.DataFrame, base: tuple[str, ...], by: tuple[str, ...]) -> tuple[str, ...]:
    """The layout's keys and those labels without which two different things would share a row."""
    keys = list(base)
    for label in ("student", "teacher", "mapping"):
        if runs.groupby(keys)[label].nunique().max() > 1:
            keys.append(label)
    return (*keys, *by)


def _reference_rows(long: pd.DataFrame, runs: pd.DataFrame, columns: list[Column], keys: tuple[str, ...]) -> list[Row]:
    """The majority answer, and each teacher (one value a distinct fine-tuned teacher)."""

    def label(words: str) -> tuple[str, ...]:
        return (words, *[""] * (len(keys) - 1))

    majority = long[long["who"] == "majority"]
    out = [
        Row(
            "majority",
            label("majority answer"),
            _by_column(majority.drop_duplicates(["task", "split", "metric"]), columns, "run"),
        )
    ]
    teachers = long[long["who"] == "teacher"]
    for name, group in teachers.groupby("teacher", sort=True):
        one_each = group.drop_duplicates(["task", "split", "metric", "teacher_key"])
        words = "teacher" if runs["teacher"].nunique() == 1 else f"teacher {name}"
        out.append(Row("teacher", label(words), _by_column(one_each, columns, "teacher_key")))
    return out


def _method_rows(
    long: pd.DataFrame, runs: pd.DataFrame, columns: list[Column], keys: tuple[str, ...], order: dict[str, list[str]]
) -> list[Row]:
    """One row a combination of keys, no-distillation rows first, else in the order of the study's grid."""
    student = long[long["who"] == "student"]

    def place(labels: tuple[str, ...]) -> tuple[object, ...]:
        named = dict(zip(keys, labels, strict=True))
        ranks = [order[k].index(v) if v in order.get(k, []) else 999 for k, v in named.items()]
        return (not baseline[labels], *zip(ranks, labels, strict=True))

    groups = {tuple(str(one) for one in labels): group for labels, group in student.groupby(list(keys), sort=True)}
    # by its setting: from a fine-tuned start the label is another (finetune_ft), and still there is no distillation
    methods = {labels: {records.method(text) for text in group["settings"]} for labels, group in groups.items()}
    baseline = {labels: names == {records.FINETUNE} for labels, names in methods.items()}
    out = []
    for labels in sorted(groups, key=place):
        kind = records.FINETUNE if baseline[labels] else "method"
        starts = {str(records.settings_of(text).get("objective.start")) for text in groups[labels]["settings"].unique()}
        row = Row(kind, labels, _by_column(groups[labels], columns, "seed"), start=", ".join(sorted(starts)))
        out.append(row)
    return out


def _by_column(scores: pd.DataFrame, columns: list[Column], unit: str) -> list[dict[object, float]]:
    """For every column, unit (seed or teacher) -> score x 100; two runs of one unit are averaged."""
    if not len(scores):
        return [{} for _ in columns]
    means = scores.groupby(["task", "split", "metric", unit])["value"].mean() * 100
    nested: dict[tuple[str, str, str], dict[object, float]] = {}
    for (task, split, metric, one), value in means.items():
        nested.setdefault((task, split, metric), {})[one] = float(value)
    return [nested.get((c.task, c.split, c.metric), {}) for c in columns]


def _cell(values: list[float], column: Column) -> Cell | None:
    if not values:
        return None
    estimate = within(stats.mean_over_tasks([values]), [column.metric])
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Cell(estimate.value, std, len(values), estimate.low, estimate.high)


def _average(row: Row, columns: list[Column]) -> Cell | None:
    """Mean over the counted columns with its own interval; none if a column is empty (it would average other tasks)."""
    values = [list(v.values()) for v, column in zip(row.values, columns, strict=True) if column.counted]
    if not values or not all(values):
        return None
    estimate = within(stats.mean_over_tasks(values), [column.metric for column in columns if column.counted])
    return Cell(estimate.value, math.nan, min(len(v) for v in values), estimate.low, estimate.high)


def pools(rows: list[Row], columns: Sequence[int]) -> list[Pool]:
    """The scores of some rows as one array (rows, seeds) a column, NaN where a row has no run."""
    out = []
    for index in columns:
        seeds = list(dict.fromkeys(seed for row in rows for seed in row.values[index]))
        out.append(Pool(np.array([[row.values[index].get(seed, math.nan) for seed in seeds] for row in rows])))
    return out


def _mark(cells: list[Cell | None], scores: list[Pool]) -> None:
    """Give cells their tie groups; mark the best if a test tells it from each of the others, else the group at the top.

    The tests are over shared seeds.
    """
    present = [cell for cell in cells if cell is not None]
    if len(present) < 2:
        return
    for cell, group in zip(present, tie_groups(scores), strict=True):
        cell.group = group
    best = max(range(len(present)), key=lambda index: present[index].mean)
    if present[best].n < 2:
        return
    tests = {index: pair(scores, best, index) for index in range(len(present)) if index != best}
    rivals = [present[index] for index, test in tests.items() if test is None or not test.p < ALPHA]
    present[best].mark = "top" if rivals else "best"
    for cell in rivals:
        cell.mark = "top"


def _extras(rows: list[Row], runs: pd.DataFrame, keys: tuple[str, ...]) -> None:
    """Size and cost columns: means over a row's runs; efficiency numbers wherever the results have them."""
    for labels, group in runs.groupby(list(keys), sort=False):
        row = next((one for one in rows if one.labels == tuple(str(label) for label in labels)), None)
        if row is None:
            continue
        row.extras = {
            "parameters (M)": group["parameters"].mean() / 1e6,
            "size (MB)": group["size_bytes"].mean() / 1e6,
            "x smaller": (group["teacher_parameters"] / group["parameters"]).mean(),
            TRAINING: group["train_seconds"].mean(),
        }
        students = pd.DataFrame([records.flatten(json.loads(text)) for text in group["efficiency"]])
        teachers = pd.DataFrame([records.flatten(json.loads(text)) for text in group["teacher_efficiency"]])
        for name in students.select_dtypes("number").columns:
            row.extras[name] = float(students[name].mean())
            if "median" in name and name in teachers:
                row.extras[f"x faster ({name})"] = float((teachers[name] / students[name]).mean())
