"""``python -m analysis.tables study=NAME``: a study's table, printed and written as Markdown, CSV, LaTeX and HTML,
and one figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.common import files

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
    "figure": cli.Key("draw the init x objective figure", "yes", ("yes", "no")),
}


def write(path: Path, text: str) -> Path:
    """Write a text file atomically, making its folder."""
    files.write_text(path, text)
    return path


def collected(options: dict[str, str]) -> Collected:
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


def _by(options: dict[str, str]) -> str | tuple[str, ...]:
    if options["by"] in ("auto", "none"):
        return "auto" if options["by"] == "auto" else ()
    return tuple(key for key in options["by"].split(",") if key)


def run(options: dict[str, str]) -> Collected:
    """Collect, print, write; returns what was collected for callers that add to it."""
    from . import render
    from .grid import build

    found = collected(options)
    metrics = [options["metric"]]
    if options["metric"] == "all":  # the chosen ones first, then each that was recorded
        metrics = ["", *sorted(set(found.scores.loc[found.scores["split"] == "validation", "metric"]))]
    written: list[Path] = []
    pages = []
    for metric in metrics:
        table = build(found, layout=options["layout"], metric=metric)
        stem = "-".join(filter(None, ["scores", "" if options["layout"] == "grid" else options["layout"], metric]))
        folder = found.folder / "tables"
        pages.append(render.markdown(table))
        written += [
            write(folder / f"{stem}.md", pages[-1]),
            write(folder / f"{stem}.tex", render.latex(table)),
            write(folder / f"{stem}.html", render.html(table)),
            write(folder / f"{stem}.csv", render.csv(table.frame())),
        ]
    if options["figure"] == "yes":
        from .figures import heat_map, save

        drawn = build(found, metric="" if options["metric"] == "all" else options["metric"])
        written += save(heat_map(drawn), found.folder / "figures" / "scores")
    print(*pages, sep="\n")
    print("Written:", *written, sep="\n  ")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.main("analysis.tables", PURPOSE, KEYS, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
