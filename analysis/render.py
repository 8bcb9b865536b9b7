"""A grid as Markdown, LaTeX (booktabs), CSV and HTML. Formatting only: no statistics here.

Texts come from configurations, some of them a stranger's: each format writes them so that they are read as texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape as escaped

import pandas as pd

from kdexp.common.redact import one_line

from .grid import Cell, Grid, Row
from .records import FINETUNE

BASELINE = "{} (no distillation)"


def number(value: float, digits: int = 1) -> str:
    """A number, or an en dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def cell_text(cell: Cell | None, average: bool = False) -> str:
    """``71.2 ± 0.3`` or, for the average, ``71.2 [70.8, 71.6]``; no mark."""
    if cell is None:
        return "–"
    if average:
        return number(cell.mean) + ("" if math.isnan(cell.low) else f" [{number(cell.low)}, {number(cell.high)}]")
    return number(cell.mean) + ("" if math.isnan(cell.std) else f" ± {number(cell.std)}")


def runs_text(row: Row) -> str:
    """n over the row's cells: ``4`` or ``3–4``; empty for rows that are not measured over seeds."""
    counts = [cell.n for cell in row.cells if cell is not None]
    if row.kind == "majority" or not counts:
        return ""
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"


def _extra_names(grid: Grid) -> list[str]:
    return list(dict.fromkeys(name for row in grid.rows for name in row.extras))


def header(grid: Grid) -> list[str]:
    """Column titles; the chosen metric is named in each."""
    short = [key.rsplit(".", 1)[-1] for key in grid.keys]
    keys = [word if short.count(word) == 1 else key for key, word in zip(grid.keys, short, strict=True)]
    return [*keys, "n", *[f"{c.name} ({c.metric})" for c in grid.columns], "average", "group", *_extra_names(grid)]


def escape(text: str) -> str:
    """Plain text, escaped for HTML."""
    return escaped(one_line(text))


_MARKDOWN = re.compile(
    r"""[\\|`*$~]            # code, emphasis, mathematics, the columns of a table
    | <(?=[A-Za-z/!?])       # HTML
    | &(?=\#?\w+;)
    | (?<=\])\( | \](?=\[)  # links
    | (?<!\w)_ | _(?!\w)     # emphasis; inside a word it is none
    | ^(?:[#>+-]|\d+[.)])(?=\s|$)
    """,
    re.VERBOSE,
)


def md(text: str) -> str:
    """Plain text, escaped for Markdown."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text))


def csv(frame: pd.DataFrame) -> str:
    """A frame as CSV in which no text is a formula to a spreadsheet: such a one begins with an apostrophe."""
    cells = frame.map(lambda value: _no_formula(value) if isinstance(value, str) else value)
    return str(cells.rename(columns=lambda name: _no_formula(str(name))).to_csv(index=False))


def _no_formula(text: str) -> str:
    words = one_line(text)
    if not words.startswith(("=", "+", "-", "@")):
        return words
    try:
        return words if math.isfinite(float(words)) else f"'{words}"
    except ValueError:
        return f"'{words}"


def _labels(grid: Grid, row: Row) -> list[str]:
    return [
        BASELINE.format(label) if key == "objective" and row.kind == FINETUNE else label
        for key, label in zip(grid.keys, row.labels, strict=True)
    ]


def lines(grid: Grid, mark: dict[str, str], label: Callable[[str], str] = one_line) -> list[list[str]]:
    """Body as text; ``mark`` maps ``best`` and ``top`` to templates with one ``{}``, ``label`` escapes a label."""
    out = []
    for row in grid.rows:
        scores = [(cell, False) for cell in row.cells] + [(row.average, True)]
        words = [mark.get(cell.mark if cell else "", "{}").format(cell_text(cell, average)) for cell, average in scores]
        extras = [number(row.extras.get(name, math.nan)) for name in _extra_names(grid)]
        out.append([*map(label, _labels(grid, row)), runs_text(row), *words, row.group, *extras])
    return out


def markdown(grid: Grid) -> str:
    """An aligned Markdown table with its notes below."""
    return (
        f"### {md(grid.study)}\n\n{markdown_table(grid)}\n\n" + "\n".join(f"- {md(note)}" for note in grid.notes) + "\n"
    )


def markdown_table(grid: Grid) -> str:
    """An aligned Markdown table."""
    table = [list(map(md, header(grid))), *lines(grid, {"best": "**{}**", "top": "{} ≈"}, md)]
    widths = [max(3, *(len(row[index]) for row in table)) for index in range(len(table[0]))]
    left = len(grid.keys)

    def line(words: list[str]) -> str:
        return (
            "| "
            + " | ".join(
                w.ljust(n) if i < left else w.rjust(n) for i, (w, n) in enumerate(zip(words, widths, strict=True))
            )
            + " |"
        )

    rule = "| " + " | ".join("-" * n if i < left else "-" * (n - 1) + ":" for i, n in enumerate(widths)) + " |"
    return "\n".join([line(table[0]), rule, *[line(row) for row in table[1:]]])


_TEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "≈": r"$\approx$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


def tex(text: str) -> str:
    """Plain text, escaped for LaTeX."""
    return "".join(_TEX.get(letter, letter) for letter in one_line(text))


def latex(grid: Grid) -> str:
    """A booktabs ``tabular`` with rules between reference rows, the baseline and the methods; notes as comments."""
    marks = {"best": "\\textbf{{{}}}", "top": "{}$^{{\\approx}}$"}
    body, before = [], ""
    for row, words in zip(grid.rows, lines(grid, {}), strict=True):
        group = "reference" if row.kind in ("majority", "teacher") else row.kind
        if before and group != before:
            body.append("\\midrule")
        before = group
        first = len(grid.keys) + 1
        cells = [*row.cells, row.average]
        out = [tex(word) for word in words]
        if out[0].startswith(("[", "*")):  # after \\\\ these would be its arguments
            out[0] = "{}" + out[0]
        for index, cell in enumerate(cells):
            out[first + index] = marks.get(cell.mark if cell else "", "{}").format(out[first + index])
        body.append(" & ".join(out) + r" \\")
    align = "l" * len(grid.keys) + "r" * (len(header(grid)) - len(grid.keys))
    head = " & ".join(tex(title) for title in header(grid)) + r" \\"
    comment = "\n".join(f"% {one_line(note)}" for note in grid.notes)
    return (
        f"% needs \\usepackage{{booktabs}}\n{comment}\n\\begin{{tabular}}{{{align}}}\n\\toprule\n{head}\n\\midrule\n"
        + "\n".join(body)
        + "\n\\bottomrule\n\\end{tabular}\n"
    )


def html_table(grid: Grid) -> str:
    """The table element alone; each number cell carries its value in ``data-v`` for sorting."""
    first = len(grid.keys)
    titles = enumerate(header(grid))
    head = "".join(
        f"<th scope=col{' class=text' if index < first else ''}>{escape(title)}</th>" for index, title in titles
    )
    body = []
    for row, words in zip(grid.rows, lines(grid, {}), strict=True):
        scores = [*row.cells, row.average]
        out = []
        for index, word in enumerate(words):
            score = scores[index - first - 1] if first < index <= first + len(scores) else None
            value = f' data-v="{score.mean:.6f}"' if score is not None else ""
            mark = f' class="{score.mark}"' if score is not None and score.mark else ""
            tag = "th scope=row" if index < first else "td"
            out.append(f"<{tag}{value}{mark}>{escape(word)}</{tag.split()[0]}>")
        body.append(f'<tr class="{row.kind}">{"".join(out)}</tr>')
    return f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def html(grid: Grid) -> str:
    """A page of its own."""
    listing = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    style = (
        "body{font:15px system-ui;margin:1em}table{border-collapse:collapse}th,td{padding:.2em .6em;text-align:right}"
        "th[scope=row],th.text{text-align:left}.best{font-weight:bold}.top::after{content:' ≈'}"
        "tr.finetune{border-top:1px solid}"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(grid.study)}</title>"
        f"<style>{style}</style><h1>{escape(grid.study)}</h1>{html_table(grid)}<ul>{listing}</ul></html>\n"
    )
