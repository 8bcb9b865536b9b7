"""Published numbers and how a study is set beside them.

``values.csv``: one printed number a row, with its source and caveat: scores read in a paper, its official repository
or a third
party's own report of a re-run. Left out: numbers relayed second-hand, gains quoted from abstracts, and values whose
column is in
doubt beyond repair. On the 0-100 scale; ``std`` and ``n`` as printed, empty if not; ``repeats`` names the table that
holds the same
number first. ``match.yaml``: which rows belong to which study.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

HERE = Path(__file__).parent


@cache
def values() -> pd.DataFrame:
    """All published numbers; text columns as text, ``value``, ``std`` and ``n`` as numbers (NaN: not printed)."""
    frame = pd.read_csv(HERE / "values.csv", dtype=str, keep_default_na=False)
    for column in ("value", "std", "n"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame


@cache
def matches() -> dict[str, Any]:
    """The entries of ``match.yaml``."""
    return dict(yaml.safe_load((HERE / "match.yaml").read_text(encoding="utf-8")))


def match(study: str) -> dict[str, Any] | None:
    """The entry of a study or of a smaller form of it (``init_ablation_desk``); None if there is none."""
    names = [name for name in matches() if study == name or study.startswith(f"{name}_")]
    return matches()[max(names, key=len)] if names else None


def averages(frame: pd.DataFrame) -> pd.DataFrame:
    """Printed averages beside the mean of their own row (``printed``, ``recomputed``, ``gap``), one number a task."""
    out = []
    keys = ["paper", "table", "setting", "teacher", "student", "method", "init"]
    for labels, group in frame.groupby(keys, sort=False):
        average = group[(group["task"] == "Avg") & (group["metric"] == "mean")]
        tasks = group[group["task"] != "Avg"]
        if len(average) != 1 or len(tasks) < 2 or tasks["task"].duplicated().any():
            continue
        printed, mean = float(average["value"].iloc[0]), float(tasks["value"].mean())
        out.append(
            {**dict(zip(keys, labels, strict=True)), "printed": printed, "recomputed": mean, "gap": printed - mean}
        )
    return pd.DataFrame(out, columns=[*keys, "printed", "recomputed", "gap"])


def digits(value: float) -> str:
    """A number with one digit, empty when there is none."""
    return "" if math.isnan(value) else f"{value:.1f}"
