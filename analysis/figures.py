"""Figures from a grid: vector files, colours that colour-blind readers can tell apart, numbers written where they fit.

Drawn with matplotlib's object interface, without pyplot: no display, no global state. Palette: Okabe and Ito 2008 for
lines, cividis for areas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kdexp.common import files
from kdexp.common.redact import one_line

from . import render, stats
from .grid import Cell, Grid, Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"
SVG = {"svg.fonttype": "none", "svg.hashsalt": "kdexp", "font.size": 9}  # text stays text; same data, same bytes


def drawn(text: str) -> str:
    """Plain text for a figure: nothing in it is mathematics, and a legend shows it whatever it begins with."""
    words = one_line(str(text)).replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name; the same names look the same in every figure, whatever order they come in."""
    return {name: (COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n, name in enumerate(sorted(set(names)))}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.svg`` and ``stem.png`` atomically; the SVG carries no date, so equal data give equal bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    out = []
    for kind in ("svg", "png"):
        path = stem.with_name(f"{stem.name}.{kind}")
        with files.fresh(path) as aside, matplotlib.rc_context(SVG):
            figure.savefig(
                aside, format=kind, dpi=150, bbox_inches="tight", metadata={"Date": None} if kind == "svg" else None
            )
        out.append(path)
    return out


def _measured(grid: Grid) -> list[Row]:
    return [row for row in grid.rows if row.kind not in ("majority", "teacher")]


def _axes(grid: Grid) -> tuple[list[str], list[str], dict[tuple[str, str], Row]]:
    """Rows (init and whatever else tells rows apart), columns (objectives), and the row behind each pair."""
    place = {}
    objective = grid.keys.index("objective")
    for row in _measured(grid):
        rest = [label for index, label in enumerate(row.labels) if index != objective]
        place[(" / ".join(rest), row.labels[objective])] = row
    return list(dict.fromkeys(a for a, _ in place)), list(dict.fromkeys(b for _, b in place)), place


def heat_map(grid: Grid) -> Figure:
    """Init x objective, one panel a task and one for the average; the number and its mark in every field."""
    inits, objectives, place = _axes(grid)
    panels: list[tuple[str, list[Cell | None]]] = []
    pairs = [(init, objective) for init in inits for objective in objectives]
    for index, column in enumerate(grid.columns):
        panels.append(
            (f"{column.name} ({column.metric})", [place[p].cells[index] if p in place else None for p in pairs])
        )
    if sum(column.counted for column in grid.columns) > 1:
        panels.append(("average", [place[p].average if p in place else None for p in pairs]))
    width, height = max(2.0, 0.75 * len(objectives)) + 0.6, max(1.2, 0.38 * len(inits)) + 0.9
    across = min(len(panels), max(1, int(12.5 / width)))  # no wider than a page can show
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(across * width + 0.8, down * (height - 0.5) + 0.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(down, across, sharey=True, squeeze=False)).ravel()
    for index, (axis, (title, cells)) in enumerate(zip(axes, panels, strict=False)):
        _heat_panel(axis, title, cells, inits, objectives)
        axis.tick_params(labelbottom=index + across >= len(panels))  # where no panel lies below
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


def _heat_panel(axis, title: str, cells: list[Cell | None], inits: list[str], objectives: list[str]) -> None:
    """One panel of the heat map."""
    values = np.array([math.nan if cell is None else cell.mean for cell in cells]).reshape(len(inits), len(objectives))
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    axis.imshow(values, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, aspect="auto")
    for index, cell in enumerate(cells):
        row, column = divmod(index, len(objectives))
        if cell is None:
            axis.text(column, row, "–", ha="center", va="center")
            continue
        dark = high <= low or (cell.mean - low) / (high - low) < 0.55
        letters = "#ffffff" if dark else "#111111"  # not black, which a page in the dark shows in its own colour
        text = render.number(cell.mean) + (" ≈" if cell.mark == "top" else "")
        axis.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            color=letters,
            fontweight="bold" if cell.mark == "best" else "normal",
            fontsize=8,
        )
    axis.set_xticks(range(len(objectives)), [*map(drawn, objectives)], rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(inits)), [*map(drawn, inits)])
    axis.tick_params(length=0)
    axis.set_title(drawn(title), fontsize=9)


def dots(grid: Grid) -> Figure:
    """The effect of the init: averages with 95 % intervals, one line an objective, one position an init."""
    inits, objectives, place = _axes(grid)
    figure = Figure(figsize=(max(4.0, 1.1 * len(inits) + 2.5), 3.4), layout="constrained")
    axis, look = figure.subplots(), looks(objectives)
    for number, objective in enumerate(objectives):
        xs, ys, below, above = [], [], [], []
        for position, init in enumerate(inits):
            row = place.get((init, objective))
            cell = (row.average or row.cells[0]) if row else None
            if cell is not None:
                xs.append(position + (number - (len(objectives) - 1) / 2) * 0.12)
                ys.append(cell.mean)
                below.append(0 if math.isnan(cell.low) else cell.mean - cell.low)
                above.append(0 if math.isnan(cell.low) else cell.high - cell.mean)
        colour, marker = look[objective]
        axis.errorbar(
            xs, ys, yerr=[below, above], color=colour, marker=marker, capsize=2, linewidth=1, label=drawn(objective)
        )
    axis.set_xticks(range(len(inits)), [*map(drawn, inits)], rotation=20, ha="right")
    axis.set_ylabel(
        "average score x 100, 95 % interval" if len(grid.columns) > 1 else drawn(f"{grid.columns[0].metric} x 100")
    )
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def one_start(grid: Grid) -> str:
    """Why the effect of the start cannot be drawn; '' where it can."""
    inits, _, _ = _axes(grid)
    return "" if len(inits) > 1 else f"The effect of the start: every run starts from {inits[0] if inits else 'none'}."


def silent_ranks(grid: Grid) -> str:
    """Why mean ranks cannot tell any two rows apart; '' where they could.

    Ranks of k rows differ by k - 1 at the most; where Nemenyi's critical difference is no smaller, nothing is told.
    """
    rows = [row for row in _measured(grid) if row.average is not None]
    tasks = sum(column.counted for column in grid.columns)
    if len(rows) < 3 or tasks < 2:
        return f"Mean ranks: they need 3 rows on 2 tasks, and there are {len(rows)} on {tasks}."
    gap = stats.critical_difference(len(rows), tasks)
    if gap < len(rows) - 1:
        return ""
    return (
        f"Mean ranks: on {tasks} tasks {len(rows)} rows would have to differ by {gap:.1f} ranks to be told apart, and "
        f"they differ by {len(rows) - 1} at the most."
    )


def critical_difference(grid: Grid) -> Figure | None:
    """Mean ranks over tasks with Nemenyi's critical difference (Demsar 2006); None below 3 rows or 2 tasks.

    A block is a task (its mean over seeds), because runs of one task are not independent evidence about other tasks.
    """
    rows = [row for row in _measured(grid) if row.average is not None]
    counted = [index for index, column in enumerate(grid.columns) if column.counted]
    if len(rows) < 3 or len(counted) < 2:
        return None
    blocks = np.array([[row.cells[index].mean for row in rows] for index in counted])  # type: ignore[union-attr]
    ranks = stats.mean_ranks(blocks)
    gap = stats.critical_difference(len(rows), len(counted))
    order = np.argsort(ranks)
    names = [" / ".join(filter(None, rows[index].labels)) for index in order]
    figure = Figure(figsize=(6.4, 0.22 * len(rows) + 1.3), layout="constrained")
    axis = figure.subplots()
    axis.plot(ranks[order], range(len(rows)), "o", color=COLOURS[0])
    for place, rank in enumerate(ranks[order]):
        axis.annotate(f"{rank:.2f}", (rank, place), xytext=(6, -3), textcoords="offset points", fontsize=7)
        axis.hlines(place, ranks.min(), rank, color="#cccccc", linewidth=0.8, zorder=0)
    edge = float(ranks.min() + gap)
    axis.axvspan(float(ranks.min()), min(edge, len(rows)), color=COLOURS[4], alpha=0.15)
    chi, p = stats.friedman(blocks)
    axis.set_title(
        f"Mean rank over {len(counted)} tasks (1 = best); shaded: best + critical difference {gap:.2f}\n"
        f"Friedman chi² = {chi:.2f}, p = {p:.3g}",
        fontsize=8,
    )
    axis.set_yticks(range(len(rows)), [*map(drawn, names)], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("mean rank")
    return figure


def pareto(grid: Grid, cost: str) -> Figure | None:
    """Average score against a cost column of ``layout=methods``, with the front; None if that does not differ."""
    rows = [row for row in _measured(grid) if row.average is not None and math.isfinite(row.extras.get(cost, math.nan))]
    if len({row.extras[cost] for row in rows}) < 2:
        return None
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    look = looks(_axes(grid)[1])
    for row in rows:
        colour, marker = look[row.labels[grid.keys.index("objective")]]
        axis.plot(row.extras[cost], row.average.mean, marker, color=colour)  # type: ignore[union-attr]
    front, best = [], -math.inf
    for row in sorted(rows, key=lambda r: (r.extras[cost], -r.average.mean)):  # type: ignore[union-attr]
        if row.average.mean > best:  # type: ignore[union-attr]
            best = row.average.mean  # type: ignore[union-attr]
            front.append((row.extras[cost], best))
            axis.annotate(
                drawn(" / ".join(filter(None, row.labels))),
                front[-1],
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
            )
    axis.step(*zip(*front, strict=True), where="post", color="#999999", linewidth=1, zorder=0)
    axis.set_xlabel(drawn(cost))
    axis.set_ylabel("average score x 100")
    axis.grid(alpha=0.3)
    return figure
