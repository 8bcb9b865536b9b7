"""Choosing runs by labels (``objective``, ``init``, ...) or dotted settings (``student.sharing``); a list means any
of its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from . import records

NONE = "–"  # stands for a setting that a run does not have


def select(runs: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """The runs whose columns or settings have the wanted values. A key that no run knows selects nothing."""
    out = runs
    for key, values in wanted.items():
        accepted = {str(value) for value in (values if isinstance(values, list) else [values])}
        if key in records.LABELS or key == "seed":
            out = out[out[key].astype(str).isin(accepted)]
        else:
            known = [str(records.settings_of(text).get(key)) in accepted for text in out["settings"]]
            out = out[pd.Series(known, index=out.index, dtype=bool)]
    return out


def settings_columns(runs: pd.DataFrame, keys: Iterable[str], *, strict: bool = True) -> pd.DataFrame:
    """``runs`` with a column of words for each dotted setting; a dash where a run has no such setting.

    ``ValueError`` if ``strict`` and no run has it.
    """
    flat = [records.settings_of(text) for text in runs["settings"]]
    out = runs.copy()
    for key in keys:
        if strict and not any(key in one for one in flat):
            raise ValueError(f"by={key}: no run has such a setting; some that differ: {', '.join(_some(runs))}")
        out[key] = [str(one.get(key, NONE)) for one in flat]
    return out


def telling(runs: pd.DataFrame) -> tuple[str, ...]:
    """The fewest dotted settings that tell apart the runs of every cell (equal labels), seeds aside.

    Of settings that change in step, one is enough; one with the same values in every task is preferred, because a
    setting that follows the task would tear a row apart.
    """
    cells = [
        group for _, group in runs.groupby(list(records.LABELS), sort=True) if group["settings_hash"].nunique() > 1
    ]
    if not cells:
        return ()
    keys = {key for group in cells for key in records.differing(list(group["settings"].drop_duplicates()))}
    keys.discard("selection")
    frame = settings_columns(pd.concat(cells), keys)
    follows = {key: frame.groupby("task")[key].agg(lambda v: tuple(sorted(set(v)))).nunique() > 1 for key in keys}

    def classes(chosen: list[str]) -> int:
        return int(frame.groupby([*records.LABELS, *chosen]).ngroups)

    chosen: list[str] = []
    for key in sorted(keys, key=lambda k: (follows[k], k.count("."), k)):
        if classes([*chosen, key]) > classes(chosen):
            chosen.append(key)
    for key in list(chosen):
        rest = [one for one in chosen if one != key]
        if classes(rest) == classes(chosen):
            chosen = rest
    return tuple(chosen)


def _some(runs: pd.DataFrame, most: int = 12) -> list[str]:
    return list(records.differing(list(runs["settings"].drop_duplicates())))[:most]
