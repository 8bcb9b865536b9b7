"""What a study must be before its numbers may stand in one table. Each check raises one ``ValueError`` that names
everything."""

from __future__ import annotations

import pandas as pd

from . import records
from .points import Missing
from .select import settings_columns

SHOWN = 20


def complete(study: str, source: str, runs: pd.DataFrame, missing: list[Missing], *, allow: bool) -> None:
    """Refuse an empty study always, and an incomplete one unless ``allow``."""
    listing = "\n  ".join(
        [str(one) for one in missing[:SHOWN]]
        + ([f"... and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else [])
    )
    if not len(runs):
        more = f"; missing:\n  {listing}" if missing else ""
        raise ValueError(f"study {study!r} has no finished run in {source}{more}")
    if missing and not allow:
        raise ValueError(
            f"study {study!r} is incomplete: {len(runs)} of {len(runs) + len(missing)} runs are there, from {source}. "
            f"Run the study again (finished runs are not repeated), or say incomplete=allow. Missing:\n  {listing}"
        )


def comparable(runs: pd.DataFrame, *, allow: bool, by: tuple[str, ...]) -> list[str]:
    """Refuse runs that must not be averaged or set side by side, unless ``allow``; then return the problems as notes.

    Within a task: one content hash of the data, one rule that selects the epoch, one chosen metric, one number format.
    Within a cell (equal labels): one setting of everything but seeds and the keys in ``by``.
    """
    problems = []
    for task, group in runs.groupby("task", sort=True):
        for column, what in (
            ("data_hash", "different data"),
            ("selection", "different epoch selection"),
            ("metric", "different chosen metrics"),
            ("dtype", "different number formats"),
        ):
            counts = group[column].value_counts()
            if len(counts) > 1:
                said = ", ".join(
                    f"{str(value)[:12]} ({count} runs, as {group.loc[group[column] == value, 'name'].iloc[0]})"
                    for value, count in counts.items()
                )
                problems.append(f"task {task}: {what}: {said}")
    for labels, group in runs.groupby(list(records.LABELS), sort=True):
        if group["settings_hash"].nunique() > 1:
            keys = {
                key: values
                for key, values in records.differing(list(group["settings"].drop_duplicates())).items()
                if key not in by
            }
            keys.pop("selection", None)
            shown = (
                settings_columns(group, by, strict=False).groupby(list(by))["settings_hash"].nunique() if by else None
            )
            if keys and (shown is None or shown.max() > 1):
                said = "; ".join(
                    f"{key} = {' / '.join(str(value) for value in values[:5])}"
                    for key, values in list(keys.items())[:5]
                )
                label = dict(zip(records.LABELS, labels, strict=True))
                problems.append(
                    f"{label['task']}, {label['objective']}, {label['init']}: runs of one cell differ in {said} "
                    f"(by={','.join(keys)} would show it)"
                )
    if problems and not allow:
        listing = "\n  ".join(
            problems[:SHOWN] + ([f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        )
        raise ValueError(f"these runs must not be compared; say mixture=allow to do it all the same:\n  {listing}")
    return [f"mixture allowed: {problem}" for problem in problems]
