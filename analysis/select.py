"""Choosing runs by labels (``objective``, ``init``, ...) or dotted settings (``student.sharing``); a list means any
of its values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from analysis import records


def select(runs: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """The runs whose columns or settings have the wanted values. A key that no run knows selects nothing."""
    out = runs
    for key, values in wanted.items():
        accepted = {str(value) for value in (values if isinstance(values, list) else [values])}
        if key in records.LABELS or key == "seed":
            out = out[out[key].astype(str).isin(accepted)]
        else:
            known = [str(records.flatten(json.loads(text)).get(key)) in accepted for text in out["settings"]]
            out = out[pd.Series(known, index=out.index, dtype=bool)]
    return out


def settings_columns(runs: pd.DataFrame, keys: Iterable[str]) -> pd.DataFrame:
    """``runs`` with one more column for each dotted setting in ``keys``. ``ValueError`` if no run has it."""
    flat: list[dict[str, Any]] = [records.flatten(json.loads(text)) for text in runs["settings"]]
    out = runs.copy()
    for key in keys:
        values = [one.get(key, math.nan) for one in flat]
        if not any(key in one for one in flat):
            raise ValueError(f"by={key}: no run has such a setting; some that differ: {', '.join(_some(runs))}")
        out[key] = [str(value) for value in values]
    return out


def _some(runs: pd.DataFrame, most: int = 12) -> list[str]:
    return list(records.differing(list(runs["settings"].drop_duplicates())))[:most]
