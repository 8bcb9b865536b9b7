"""What a grid could decide, as ``dry=true`` prints it: how it is worked out, :mod:`analysis.sight` has to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import designs


def outlook(points: Sequence[Mapping[str, Any]], study: str, root: Path) -> list[str]:
    """Return :func:`analysis.sight.outlook`; nothing for a study without primary claims, and then nothing is loaded."""
    if not designs.entry(study)[0].primary:
        return []
    from . import sight

    return sight.outlook(points, study, root)
