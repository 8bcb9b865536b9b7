"""Phases that several runs of a grid share: built once, kept as long as a run needs them, gone in the end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kdexp.common import files
from kdexp.launch.queue import RunQueue, shared_stages
from kdexp.run import spec
from kdexp.run.spec import RunSpec
from kdexp.store import leases
from tests.test_runs import results, toy

STORE = Path("multirun/.store")
TWO_PHASES = ["objective=hid_seq", "objective.prediction.kd.temperature=1,2,4", "seed=1,2"]
ONE_BY_ONE = ["-m", "hydra.launcher.slots=1", "study=grid"]


@pytest.fixture
def overrides(tiny_bert_dir: Path, tiny_csv_task: Path) -> list[str]:
    return [*toy(tiny_bert_dir, tiny_csv_task), "recipe.epochs=1", "teacher.recipe.epochs=1"]


def built(found: dict[str, dict]) -> Counter[str]:
    """How often each stage was built, by name and key."""
    stages = [stage for result in found.values() for stage in result["stages"] if not stage["reused"]]
    return Counter(f"{stage['name']} {stage['key']}" for stage in stages)


def weights(root: Path, name: str) -> list[bool]:
    """Whether each stage of that name in the store has its weights."""
    found = [json.loads(path.read_text()) for path in (root / "multirun" / ".store").glob("*/meta.json")]
    return [bool(meta["files"]) for meta in found if meta["name"] == name]


@pytest.mark.slow
def test_a_phase_that_six_runs_share_is_built_once_a_seed_and_then_dropped(kdexp, overrides, tmp_path):
    done = kdexp([*ONE_BY_ONE, *overrides, *TWO_PHASES])
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path, "grid")
    assert len(found) == 6
    times = built(found)
    assert set(times.values()) == {1}
    assert Counter(stage.split()[0] for stage in times) == {
        "teacher": 1, "distill.intermediate": 2, "distill.prediction": 6,
    }  # fmt: skip
    assert weights(tmp_path, "distill.intermediate") == [False, False]
    assert weights(tmp_path, "distill.prediction") == [True] * 6
    assert not list((tmp_path / "multirun" / ".store" / "needed").iterdir())


@pytest.fixture
def grid(overrides, tmp_path, monkeypatch, compose) -> list[RunSpec]:
    """Points that share their first phase; the third has another one. Nothing is run."""
    monkeypatch.chdir(tmp_path)

    def point(*more: str) -> RunSpec:
        return spec.make(compose("study=grid", *overrides, *more))

    own = "objective.prediction.kd.temperature=2"
    return [point("objective=hid_seq"), point("objective=hid_seq", own), point("objective=att_mse_hid_seq", own)]


def note(*points: RunSpec) -> None:
    leases.note(STORE, [(point.run_dir, point.outline) for point in points])


def release(point: RunSpec) -> list[str]:
    """Let a run end; returns the names of its phases that others still need."""
    names = {f"store key of {stage.name}": stage.name for stage in point.outline}
    still = leases.release(STORE, point.run_dir, dict(zip((s.key for s in point.outline), names, strict=True)))
    return [names[key] for key in names if key in still]


def test_the_last_run_that_needs_a_phase_is_told_so(grid):
    first, second, other = grid
    files.write_text(first.run_dir.parent / "study.json", "{}")
    note(*grid)
    assert release(other) == []
    assert release(first) == ["distill.intermediate"]
    note(second)  # the study is started again: one run is left, which was noted before
    assert release(second) == []
    assert release(first) == []


def test_runs_that_will_not_come_are_not_waited_for(grid):
    first, second, _ = grid
    files.write_text(first.run_dir.parent / "study.json", "{}")
    note(*grid)
    files.write_text(second.run_dir / "result.json", "{}")  # by another process, before it was noted
    assert release(first) == []
    (second.run_dir / "result.json").unlink()
    assert release(first) == ["distill.intermediate"]
    (first.run_dir.parent / "study.json").unlink()  # a person has deleted the study
    assert release(first) == []


def test_runs_of_one_phase_start_behind_others_while_it_is_being_built(grid):
    first, second, other = grid
    needs, shared = shared_stages(grid)
    names = {key: name for key, (name, _) in shared.items()}
    assert [names[key] for key in needs[first.id]] == ["teacher", "distill.intermediate"]
    assert [names[key] for key in needs[other.id]] == ["teacher"]
    schedule = RunQueue([second, other], needs, names, patient=True)
    assert schedule.next([first]) is None  # the teacher is being built
    files.write_text(first.run_dir / "metrics.jsonl", '{"stage": "distill.intermediate"}\n')
    assert schedule.next([first]) is other  # it is there; the first phase is not
    assert schedule.next([first, other]) is None
    files.write_text(first.run_dir / "metrics.jsonl", '{"stage": "distill.prediction"}\n')
    assert schedule.next([first, other]) is second
