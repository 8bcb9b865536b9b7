"""Phases that several runs of a grid share: built once, kept as long as a run needs them, gone in the end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kdexp.common import files
from kdexp.launch.base import Point
from kdexp.launch.queue import RunQueue, shared_stages
from kdexp.methods import base as plan
from kdexp.store import leases
from tests.test_runs import results, toy

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
def grid(overrides, tmp_path, monkeypatch):
    """Points that share their first phase; the third has another one. Nothing is run."""
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main
    from kdexp.config import resolve as configs
    from kdexp.run import execute as runs
    from kdexp.sweep import plugins

    monkeypatch.chdir(tmp_path)
    main.resolvers()
    plugins.register()

    def point(*more: str) -> Point:
        with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
            config = configs.resolve(compose("config", overrides=["study=grid", *overrides, *more]))
        return Point(runs.identity(config), runs.run_name(config), runs.folder(config), config)

    own = "objective.prediction.kd.temperature=2"
    return [point("objective=hid_seq"), point("objective=hid_seq", own), point("objective=att_mse_hid_seq", own)]


def release(point: Point) -> list[str]:
    """Let a run end; returns the names of its phases that others still need."""
    stages = plan.stages(point.config)
    still = leases.release(point.config, point.folder, stages)
    return [stage.name for stage in stages if stage.key in still]


def test_the_last_run_that_needs_a_phase_is_told_so(grid):
    first, second, other = grid
    files.write_text(first.folder.parent / "study.json", "{}")
    leases.note(grid)
    assert release(other) == []
    assert release(first) == ["distill.intermediate"]
    leases.note([second])  # the study is started again: one run is left, which was noted before
    assert release(second) == []
    assert release(first) == []


def test_runs_that_will_not_come_are_not_waited_for(grid):
    first, second, _ = grid
    files.write_text(first.folder.parent / "study.json", "{}")
    leases.note(grid)
    files.write_text(second.folder / "result.json", "{}")  # by another process, before it was noted
    assert release(first) == []
    (second.folder / "result.json").unlink()
    assert release(first) == ["distill.intermediate"]
    (first.folder.parent / "study.json").unlink()  # a person has deleted the study
    assert release(first) == []


def test_runs_of_one_phase_start_behind_others_while_it_is_being_built(grid):
    first, second, other = grid
    needs, shared = shared_stages(grid)
    names = {key: name for key, (name, _) in shared.items()}
    assert [names[key] for key in needs[first.id]] == ["teacher", "distill.intermediate"]
    assert [names[key] for key in needs[other.id]] == ["teacher"]
    schedule = RunQueue([second, other], needs, names, patient=True)
    assert schedule.next([first]) is None  # the teacher is being built
    files.write_text(first.folder / "metrics.jsonl", '{"stage": "distill.intermediate"}\n')
    assert schedule.next([first]) is other  # it is there; the first phase is not
    assert schedule.next([first, other]) is None
    files.write_text(first.folder / "metrics.jsonl", '{"stage": "distill.prediction"}\n')
    assert schedule.next([first, other]) is second
