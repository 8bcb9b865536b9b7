"""``python -m kdexp vectors FILE``: recompute reference values."""

from __future__ import annotations

from pathlib import Path

from kdexp.cli import vectors
from kdexp.common.arguments import JSON, Command, Key

VERB = Command(
    "Recompute reference values with kdexp's own functions; exit code 1 if one differs.",
    vectors.check_file,
    {"file": Key(f"a file of the format {vectors.FORMAT}", kind=Path, bare=True), "json": JSON},
)
