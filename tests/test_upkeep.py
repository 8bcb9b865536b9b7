"""Unfinished work in the store: it is reported, and goes when it is old and nobody builds it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from kdexp.cli import commands
from kdexp.store import upkeep
from kdexp.store.store import Store


def begun(store: Store, key: str, days: float) -> Path:
    """A stage that was begun and last touched so long ago."""
    work = store.root / "work" / key
    (work / "checkpoint").mkdir(parents=True)
    (store.root / "locks").mkdir(exist_ok=True)
    (work / "checkpoint" / "state.safetensors").write_bytes(b"x" * 1_000_000)
    for path in (work / "checkpoint" / "state.safetensors", work / "checkpoint", work):
        os.utime(path, (time.time() - 86400 * days,) * 2)
    return work


def test_old_work_goes_and_the_rest_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / ".store")
    old, held, new = begun(store, "a" * 64, 9.0), begun(store, "b" * 64, 9.0), begun(store, "c" * 64, 2.0)
    assert upkeep.gc(store) == 0
    assert "3 begun stages of 3.0 MB, the oldest 9.0 days" in capsys.readouterr().out
    with FileLock(store.root / "locks" / f"{held.name}.lock"):
        assert upkeep.gc(store, "work") == 1_000_000
    said = capsys.readouterr().out
    assert "freed 1.0 MB" in said and "bbbbbbbbbbbb is being built: left alone" in said
    assert (old.exists(), held.exists(), new.exists()) == (False, True, True)
    assert upkeep.gc(store, "work", 1.5) == 2_000_000
    assert not held.exists() and not new.exists()
    assert "kept: 0 begun stages" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["al"], ["all", "work"], ["work", "days=x"], ["days=2"]])
def test_other_words_are_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / ".store")
    work = begun(store, "a" * 64, 9.0)
    assert commands.main(["store", "gc", *words, f"store={store.root}"]) == 2
    assert "say gc, gc all, gc work" in capsys.readouterr().err and work.exists()
