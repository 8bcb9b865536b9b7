"""A study on a disk that fills again and again: one sentence, nothing lost, and the same bits when there is room.

``KDEXP_FILLINGS`` says how often it fills (6 unless it is set), ``KDEXP_FILLING_SEED`` where. The disk is a file system
in memory (:func:`tests.test_room.disk`); whoever may not mount one skips this.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kdexp.store.store import size
from tests.slow.studies import Study
from tests.test_room import Disk, disk  # noqa: F401 - a fixture

FILLINGS = int(os.environ.get("KDEXP_FILLINGS", "6"))
SEED = int(os.environ.get("KDEXP_FILLING_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(3600 * 2)
def test_a_disk_that_fills_loses_nothing(disk: Disk, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path):  # noqa: F811
    whole = Study.toy(tmp_path / "whole", tiny_bert_dir, tiny_csv_task)
    code, said = whole.finish()
    assert code == 0, said
    expected, needed, chance = whole.facts(), size(whole.folder), random.Random(SEED)
    study = Study.toy(disk.folder / "study", tiny_bert_dir, tiny_csv_task)
    study.output = tmp_path / "said.txt"
    finished: dict[str, str] = {}
    was_full = 0
    for number in range(FILLINGS):
        room = max(needed * chance.uniform(0.02, 0.9), size(study.folder) * 1.1 + 100_000)
        disk.resize(int(room))
        code, said = study.finish()
        assert "Traceback" not in said, said
        assert code in (0, 1) and (code == 0 or "the disk is full" in said), said
        was_full += "the disk is full" in said
        now = {name: result["finished"] for name, result in study.results().items()}
        assert finished.items() <= now.items(), "a finished run was lost or repeated"
        finished = now
        assert study.leftovers() == []
        print(f"filling {number}: {room / 1e6:.1f} of {needed / 1e6:.1f} MB, code {code}, {len(now)} done", flush=True)
    assert was_full, "it never filled: nothing was tried"
    disk.resize(needed * 4)
    code, said = study.finish()
    assert code == 0 and study.facts() == expected, said
