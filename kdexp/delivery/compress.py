"""What a race has chosen, delivered: the best student of each size in every form, with their teacher, in one table."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.delivery import card, export, subject, table
from kdexp.delivery.subject import Subject

FOLDER = "delivery"
RECORD, SHAPE = "delivery.json", {"chosen": list, "asked": dict}
"""What a delivery was made of: the chosen runs, and what was asked."""


def deliver(
    study: Path,
    chosen: Sequence[dict[str, Any]],
    root: str | None,
    cache: Path,
    forms: Sequence[str],
    threads: int,
    timed: bool,
    say: Callable[[str], None] = print,
) -> tuple[list[str], bool]:
    """Write a study's folder ``delivery``, unless it is there and made of the same runs.

    One that was made of others is kept beside it, as ``delivery.1`` and so on.

    Args:
        study: its folder.
        chosen: of each size, as a race's record has them.
        root: local data root, or None.
        cache: folder for tokenised texts.
        forms, threads, timed: as :func:`kdexp.delivery.export.deliver` has them.
        say: told what is done.

    Returns:
        The table's lines, and whether every form could be made.

    Raises:
        ConfigError, ValueError: everything that stops it.
    """
    out = study / FOLDER
    asked = {"forms": list(forms), "threads": threads, "timed": timed}
    runs = [{"size": one["size"], "run": one["run"]} for one in chosen]
    before = files.read_record(out / RECORD, SHAPE)
    if before and before["chosen"] == runs and before["asked"] == asked:
        told = (out / "table.md").read_text().splitlines()
        return told, not any("could not be made" in line for line in told)
    subjects = _subjects(study, chosen, root, cache)
    begun = study / f".{FOLDER}"
    shutil.rmtree(begun, ignore_errors=True)
    rows = export.deliver(subjects, forms, begun, threads, timed, say)
    stated, metric = export.stated(threads, subjects[0].notes), subjects[0].task.metric
    table.write(begun, rows, metric, stated)
    told = [*table.lines(rows, metric, stated), "", *_chosen(chosen)]
    files.write_text(begun / "table.md", "\n".join(told) + "\n")
    for one in subjects:
        if one.place is not None:
            own = [row for row in rows if row.who in (one.who, "teacher")]
            text = card.text(one, own, table.lines(own, metric, stated))
            for path in (begun / one.place / "README.md", begun / one.place / export.PLAIN / "README.md"):
                files.write_text(path, text)
    files.write_record(begun / RECORD, {"chosen": runs, "asked": asked})
    if out.exists():
        number = next(n for n in range(1, 10_000) if not (study / f"{FOLDER}.{n}").exists())
        out.rename(study / f"{FOLDER}.{number}")
        say(f"{out} was made of other runs, or asked for otherwise: it is kept as {FOLDER}.{number}")
    begun.rename(out)
    return told, not any(row.failed or row.untimed for row in rows)


def _subjects(study: Path, chosen: Sequence[dict[str, Any]], root: str | None, cache: Path) -> list[Subject]:
    """Return the students, each with the folder its forms go to, and their teacher."""
    students, teachers = list[Subject](), list[Subject]()
    for one in chosen:
        folder = study / one["run"]
        student, *rest = subject.of_run(folder, root, cache, {})
        students.append(replace(student, who=one["size"], place=one["size"]))
        teachers += rest
    return students + teachers[:1]


def _chosen(chosen: Sequence[dict[str, Any]]) -> list[str]:
    """Say what was chosen, and how."""
    told = [
        f"- {one['size']}: {one['recipe']}, run {one['run']}; {100 * one['score']:.1f} on held-out rows, mean of "
        f"{one['seeds']} seed{'s' * (one['seeds'] > 1)}" + (" **(recommended)**" if one["recommended"] else "")
        for one in chosen
    ]
    return ["Recipes and runs were chosen on held-out rows of train; validation was not looked at.", "", *told]
