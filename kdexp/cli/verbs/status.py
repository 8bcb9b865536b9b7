"""``python -m kdexp status STUDY``: where a study stands, at any time and from any shell."""

from __future__ import annotations

import dataclasses

from kdexp.common.arguments import JSON, ROOT, STUDY, Command, print_json
from kdexp.sweep import status as studies


def run(study: str, root: str, json: bool) -> int:
    """Show a study's runs; 0 when all are finished (or pruned by a search), else 1."""
    if not json:
        return studies.status(study, root)
    rows = studies.rows(study, root)
    print_json({"study": study, "command": studies.read(study, root)["command"], "runs": rows})
    return 0 if all(row["state"] in ("finished", "pruned") for row in rows) else 1


VERB = Command(
    "A study's runs, states and scores; exit code 1 while some are left.",
    run,
    {"study": dataclasses.replace(STUDY, bare=True), "root": ROOT, "json": JSON},
)
