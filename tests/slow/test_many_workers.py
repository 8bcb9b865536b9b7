"""Many workers on many points: every run carried out once, every shared stage built once, results as with one worker.

``KDEXP_WORKERS`` (20) and ``KDEXP_POINTS`` (100) say how many.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.slow.studies import Study
from tests.slow.test_kills import _shown_once
from tests.test_runs import toy

WORKERS = int(os.environ.get("KDEXP_WORKERS", "20"))
POINTS = int(os.environ.get("KDEXP_POINTS", "100"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_workers_on_many_points(tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path):
    words = ["-m", "study=eight", *(word for word in toy(tiny_bert_dir, tiny_csv_task) if word != "tracking=off")]
    study = Study(tmp_path / "many", [*words, f"seed=range(1,{POINTS + 1})", f"hydra.launcher.slots={WORKERS}"])
    code, said = study.finish(3000)
    assert code == 0 and "Traceback" not in said, said
    results = study.results()
    assert len(results) == POINTS and study.leftovers() == []
    attempts = Counter(json.loads(p.read_text())["attempt"] for p in study.runs.glob("*/status.json"))
    assert attempts == {1: POINTS}, "a run was carried out twice"
    built = Counter(stage["key"] for result in results.values() for stage in result["stages"] if not stage["reused"])
    assert set(built.values()) == {1}, "a stage was built twice"
    assert len({result["stages"][0]["key"] for result in results.values()}) == 1, "the teacher is shared"
    _shown_once(study)
    one = Study(tmp_path / "one", [*words, f"seed=1,{POINTS // 2},{POINTS}", "hydra.launcher.slots=1"])
    code, said = one.finish()
    assert code == 0, said
    assert one.facts().items() <= study.facts().items(), "results depend on how many work beside one another"
    before = {name: result["finished"] for name, result in results.items()}
    code, said = study.finish()
    assert code == 0 and before == {name: result["finished"] for name, result in study.results().items()}
