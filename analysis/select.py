"""Choosing runs by labels (``objective``, ``init``, ...) or dotted settings (``student.sharing``); a list means any
of its values."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
