"""``kdexp published STUDY``: the study beside the numbers that its paper prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

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


def run(options: dict[str, Any]) -> cli.Answer:
    """Compare, write."""
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
    data = {"study": found.study, "lines": [vars(line) for line in lines], "notes": notes}
    return cli.Answer(text, data, written)


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("published", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
