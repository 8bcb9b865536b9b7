"""Students that are checkpoints of the hub in their real forms, beside teachers of the same and another vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdexp.cli import main
from kdexp.run import execute, spec
from kdexp.tasks.text import tokenizer
from tests.hub.checkpoints import publish, write
from tests.hub.server import Hub
from tests.test_runs import toy

# Teacher and student; whether they have the same tokens, and the same inputs.
PAIRS = {
    ("bert_base", "bert_l6_h768"): (True, True),
    ("minilm", "bert_l2_h128"): (True, True),
    ("roberta_base", "distilroberta"): (True, True),
    ("bert_base", "distilroberta"): (False, False),
    ("minilm", "roberta_base"): (False, False),
}


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``form(name)`` gives the folder of a checkpoint, each written once."""
    root = tmp_path_factory.mktemp("forms")
    return lambda name: root / name if (root / name).is_dir() else write(name, root / name).folder


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_which_vocabularies_are_the_same(form: Callable[[str], Path], pair: tuple[str, str]) -> None:
    both = tokenizer.compared(*(str(form(name)) for name in pair), stamp=())
    assert (both.alike, both.same) == PAIRS[pair]


@pytest.mark.parametrize(
    ("teacher", "student", "objective", "random"),
    [
        ("bert_base", "bert_l6_h768", "hid_seq", {"classifier.weight", "classifier.bias"}),
        ("minilm", "distilroberta", "hid_cls", {"classifier.dense.weight", "classifier.out_proj.bias"}),
        ("roberta_base", "distilbert", "kd", {"pre_classifier.weight", "classifier.bias"}),
    ],
)
def test_a_published_student_learns(
    form: Callable[[str], Path], teacher: str, student: str, objective: str, random: set[str],
    tmp_path: Path, tiny_csv_task: Path, compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    main.environment()
    words = [
        *toy(form(teacher), tiny_csv_task), "student=own", "init=own", f"init.source=path:{form(student)}",
        f"objective={objective}", "recipe.steps=3", "teacher.recipe.steps=3", "runtime.progress=false",
    ]  # fmt: skip
    result = execute.execute(spec.make(compose(*words)))
    assert random <= set(result["init"]["random_names"]) and result["init"]["copied"] > 60
    assert not any("layer" in name for name in result["init"]["random_names"])
    folder = Path(result["student"]["weights"])
    said = json.loads((folder / "config.json").read_text())
    assert said["model_type"] == json.loads((form(student) / "config.json").read_text())["model_type"]
    reader = tokenizer.load(folder)
    assert reader.get_vocab() == tokenizer.load(form(student)).get_vocab()


def test_a_student_of_the_hub_is_pinned_and_must_be_safe(
    kdexp: Any, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
) -> None:
    with Hub() as hub:
        repository = publish(hub, "distilroberta", tmp_path / "files")
        pickled = publish(hub, "deberta_v3_xsmall", tmp_path / "xsmall")
        commit, environment = repository.at("main").sha, hub.environment(tmp_path)
        words = [*toy(tiny_bert_dir, tiny_csv_task), "student=own", "init=own", "recipe.steps=2", "study=pinned"]
        refused = kdexp([*words, f"init.source=hub:{pickled.id}"], env=environment)
        assert (
            refused.returncode == 2 and "is pickled" in refused.stderr and "(then init.source=path:" in refused.stderr
        )
        done = kdexp([*words, f"init.source=hub:{repository.id}"], env=environment)
        assert done.returncode == 0, done.stderr
        assert f"(hub:{repository.id} at commit {commit})" in done.stdout
        (path,) = tmp_path.glob("multirun/pinned/*/result.json")
        result = json.loads(path.read_text())
        assert result["student"]["origin"] == result["init"]["origin"] == f"hub:{repository.id}@{commit}"
        second = repository.commit({"README.md": "news"})
        moved = kdexp([*words, f"init.source=hub:{repository.id}"], env=environment)
        assert moved.returncode == 2 and "student's own weights" in moved.stderr and second in moved.stderr
        assert f"init.revision={commit}" in moved.stderr
