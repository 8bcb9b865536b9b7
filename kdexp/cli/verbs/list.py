"""``python -m kdexp list``: the studies there are."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from kdexp.common.arguments import JSON, ROOT, STUDY, Command, Key, print_json
from kdexp.sweep import status as studies


def summary(name: str, root: str) -> dict[str, Any]:
    """A study in short.

    Its keys: ``study``, ``scale``, ``runs`` (how many), ``states`` (state -> how many), ``seconds``, ``command``.
    """
    rows, told = studies.rows(name, root), studies.read(name, root)
    counts = Counter(row["state"] for row in rows)
    return {
        "study": name,
        "scale": told["scale"],
        "runs": len(rows),
        "states": {state: counts[state] for state in studies.STATES if counts[state]},
        "seconds": sum(row["seconds"] or 0.0 for row in rows),
        "command": told["command"],
    }


def run(study: str, root: str, json: bool) -> int:
    """Print a line a study, or all of them as JSON; 1 if one could not be read (it is named).

    Raises:
        ValueError: there is no such folder, or no such study in it.
    """
    if not Path(root).is_dir():
        raise ValueError(f"there is no folder {root}; give the one that holds the studies with root=FOLDER")
    found, broken = [], 0
    for name in [study] if study else sorted(path.parent.name for path in Path(root).glob("*/study.json")):
        try:
            found.append(summary(name, root))
        except ValueError as error:
            if study:
                raise
            broken += 1
            print(error, file=sys.stderr)
    if json:
        print_json(found)
        return 1 if broken else 0
    width = max((len(one["study"]) for one in found), default=0)
    for one in found:
        states = ", ".join(f"{count} {state}" for state, count in one["states"].items())
        print(f"{one['study']:<{width}}  {one['runs']:>4} runs: {states}; {one['seconds']:.0f} s")
    if not study:
        print(f"{len(found)} studies in {Path(root)}/")
    return 1 if broken else 0


VERB = Command(
    "Every study that was started, and the states of its runs.",
    run,
    {
        "study": Key("only this one; empty: all", "", kind=lambda text: STUDY.kind(text) if text else "", bare=True),
        "root": ROOT,
        "json": JSON,
    },
)
