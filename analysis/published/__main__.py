"""``python -m analysis.published study=NAME``: the study beside the numbers that its paper prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pandas as pd

from .. import cli
from ..tables import collected, write

KEYS = {
    **cli.COMMON,
    "best_of": cli.Key(
        "runs of which a protocol would print the best, beside the mean; all: all that there are", "all"
    ),
}
PURPOSE = "Set a study beside the published numbers; writes <root>/<study>/tables/published.md and .csv."


def run(options: dict[str, str]) -> None:
    """Compare, write, print."""
    from .. import published, render
    from .compare import compare, markdown

    if published.match(options["study"]) is None:
        known = ", ".join(published.matches())
        raise ValueError(f"nothing published is matched with study {options['study']!r}; there is for: {known}")
    best_of = options["best_of"]
    if best_of != "all" and not (best_of.isdigit() and int(best_of)):
        raise ValueError(f"best_of={best_of!r} is neither a number of runs nor all")
    found = collected(options)
    lines, notes = compare(found, 0 if best_of == "all" else int(best_of))
    text = markdown(lines, notes, found.study)
    folder = found.folder / "tables"
    written = [
        write(folder / "published.md", text),
        write(folder / "published.csv", render.csv(pd.DataFrame([vars(line) for line in lines]))),
    ]
    print(text)
    print("Written:", *written, sep="\n  ")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.main("analysis.published", PURPOSE, KEYS, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
