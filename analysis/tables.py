"""``kdexp tables STUDY``: a study's table, printed and written as Markdown, CSV, LaTeX and HTML, and one figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import files
from kdexp.common.arguments import truth

from . import cli

if TYPE_CHECKING:
    from .collect import Collected

PURPOSE = (
    "Print a finished study's table and write it to <root>/<study>/tables/ and its figure to <root>/<study>/figures/."
)
KEYS = {
    **cli.COMMON,
    "metric": cli.Key(
        "one metric for all tasks; all: a table for each recorded metric; empty: each task's chosen one", ""
    ),
    "layout": cli.Key(
        "objective x init rows, init x objective rows, or with sizes and cost", "grid", ("grid", "init", "methods")
    ),
    "figure": cli.Key("draw the init x objective figure", "true", ("true", "false", "yes", "no"), truth),
}


def write(path: Path, text: str) -> Path:
    """Write a text file atomically, making its folder."""
    files.write_text(path, text)
    return path


def collected(options: dict[str, Any]) -> Collected:
    """Collect with the common options of a command line. pandas is imported here, so that ``--help`` is fast."""
    from .collect import collect

    return collect(
        options["study"],
        options["root"],
        options["source"],
        options["uri"],
        incomplete=options["incomplete"],
        extra=options["extra"],
        mixture=options["mixture"],
        by=_by(options),
    )


def _by(options: dict[str, Any]) -> str | tuple[str, ...]:
    if options["by"] in ("auto", "none"):
        return "auto" if options["by"] == "auto" else ()
    return tuple(key for key in options["by"].split(",") if key)


def scores(options: dict[str, Any]) -> tuple[Collected, cli.Answer]:
    """Collect and write; return what was collected too, for those who add to it."""
    from . import render
    from .grid import build

    found = collected(options)
    metrics = [options["metric"]]
    if options["metric"] == "all":  # the chosen ones first, then each that was recorded
        metrics = ["", *sorted(set(found.scores.loc[found.scores["split"] == "validation", "metric"]))]
    written: list[Path] = []
    pages, data = [], []
    for metric in metrics:
        table = build(found, layout=options["layout"], metric=metric)
        stem = "-".join(filter(None, ["scores", "" if options["layout"] == "grid" else options["layout"], metric]))
        folder, frame = found.folder / "tables", table.frame()
        pages.append(render.markdown(table))
        cells = [
            {"labels": {key: cell.pop(key) for key in table.keys}, **cell}
            for cell in frame.astype(object).to_dict("records")
        ]
        data.append({"metric": metric or "chosen", "cells": cells, "notes": table.notes})
        written += [
            write(folder / f"{stem}.md", pages[-1]),
            write(folder / f"{stem}.tex", render.latex(table)),
            write(folder / f"{stem}.html", render.html(table)),
            write(folder / f"{stem}.csv", render.csv(frame)),
        ]
    if options["figure"]:
        from .figures import heat_map, save

        drawn = build(found, metric="" if options["metric"] == "all" else options["metric"])
        written += save(heat_map(drawn), found.folder / "figures" / "scores")
    return found, cli.Answer("\n".join(pages), {"study": found.study, "tables": data}, written)


def run(options: dict[str, Any]) -> cli.Answer:
    """Collect, write."""
    return scores(options)[1]


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("tables", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
