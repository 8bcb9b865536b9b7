"""Fixtures of the analysis tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.synthetic import grid, write_points, write_run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A complete study ``quickstart`` on disk; returns the root."""
    results = grid()
    for result in results:
        write_run(tmp_path, result)
    write_points(tmp_path, "quickstart", results)
    return tmp_path


@pytest.fixture
def study_on_disk(study: Path) -> Path:
    """The same, for modules that have a ``study`` of their own."""
    return study
