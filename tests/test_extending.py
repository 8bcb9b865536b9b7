"""The examples of docs/extending.md, executed: new files and no edit make objectives, an init, a task and a method."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import BAD, GOOD, sentence
from tests.test_runs import toy

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def extended(tmp_path) -> dict[str, str]:
    """A copy of the program with all examples in it, as environment variables."""
    copy = tmp_path / "copy"
    for name in ("kdexp", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", text, re.S)
    assert sorted(path for path, _ in blocks) == [
        "conf/init/outside_in.yaml",
        "conf/objective/average.yaml",
        "conf/objective/ffn.yaml",
        "conf/objective/norms.yaml",
        "conf/task/reviews.yaml",
        "conf/task/tags.yaml",
        "kdexp/heads/tags.py",
        "kdexp/inits/outside_in.py",
        "kdexp/methods/average.py",
        "kdexp/objectives/ffn.py",
        "kdexp/objectives/norms.py",
        "kdexp/tasks/text/tags.py",
    ]
    for path, content in blocks:
        assert not (copy / path).exists(), "an example must not collide with what is shipped"
        (copy / path).write_text(content)
    return {"PYTHONPATH": str(copy)}


def result(root: Path, pattern: str) -> dict:
    (path,) = (root / "multirun" / "adhoc").glob(f"{pattern}/result.json")
    return json.loads(path.read_text())


def test_an_objective_and_an_init(kdexp, extended, tiny_bert_dir, tiny_csv_task, tmp_path):
    done = kdexp(["objective=norms", "init=outside_in", *toy(tiny_bert_dir, tiny_csv_task)], env=extended)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "outside_in: teacher layers 1, 4" in done.stdout and "intermediate norms" in done.stdout
    assert result(tmp_path, "toy-norms-outside_in-s1-*")


def test_a_data_set_of_files(kdexp, extended, tiny_bert_dir, tiny_csv_task, tmp_path):
    tiny_csv_task.rename(tmp_path / "reviews")
    others = [argument for argument in toy(tiny_bert_dir, tiny_csv_task) if not argument.startswith("task")]
    done = kdexp(["objective=finetune", "task=reviews", *others], env=extended)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path, "reviews-finetune-first-s1-*")


def test_an_objective_on_a_module_that_no_transformer_hands_out(
    kdexp, extended, tiny_bert_dir, tiny_csv_task, tmp_path
):
    done = kdexp(["objective=ffn", *toy(tiny_bert_dir, tiny_csv_task)], env=extended)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path, "toy-ffn-first-s1-*")
    assert found["mapping"] == {"ffn": [[1, 2], [2, 4]]}
    lines = (tmp_path / found["run"]["folder"] / "metrics.jsonl").read_text().splitlines()
    assert any(json.loads(line)["values"].get("train/ffn", 0) > 0 for line in lines)


def test_a_method_with_a_stage_of_its_own(kdexp, extended, tiny_bert_dir, tiny_csv_task, tmp_path):
    done = kdexp(["objective=average", *toy(tiny_bert_dir, tiny_csv_task)], env=extended)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path, "toy-average-first-s1-*")
    assert [stage["name"] for stage in found["stages"]] == ["teacher", "average"]
    (meta,) = [m for m in map(_json, (tmp_path / "multirun" / ".store").glob("*/meta.json")) if m["name"] == "average"]
    assert meta["summary"]["averaged"] == 4
    wrong = kdexp(["objective=average", "objective.last=0", *toy(tiny_bert_dir, tiny_csv_task)], env=extended)
    assert wrong.returncode == 2 and "objective.last=0: must be above 0" in wrong.stderr


def test_a_method_of_a_package_outside_the_repository(kdexp, tiny_bert_dir, tiny_csv_task, tmp_path):
    """The same example, moved into a package that kdexp has never heard of; nothing is copied into kdexp or conf."""
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    blocks = dict(re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", text, re.S))
    code = blocks["kdexp/methods/average.py"].replace('"average.train"', '"mylab.average.train"')
    choice = blocks["conf/objective/average.yaml"].replace("method: average", "method: mylab.average.Average")
    for path, content in (("mylab/__init__.py", ""), ("mylab/average.py", code), ("own/objective/mine.yaml", choice)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    words = ["--config-dir", str(tmp_path / "own"), "objective=mine", *toy(tiny_bert_dir, tiny_csv_task)]
    refused = kdexp(words)
    assert refused.returncode == 2 and "KDEXP_TARGETS" in refused.stderr and not (tmp_path / "multirun").exists()
    done = kdexp(words, env={"KDEXP_TARGETS": "mylab", "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert [stage["name"] for stage in result(tmp_path, "toy-average-first-s1-*")["stages"]] == ["teacher", "average"]


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("objective", ["kd", "hid_seq"])
def test_a_task_of_another_kind(kdexp, extended, tiny_bert_dir, tiny_csv_task, tmp_path, objective):
    folder = tmp_path / "tags"
    folder.mkdir()
    for split, rows in (("train", range(64)), ("validation", range(64, 96))):
        sentences = [sentence(row, row % 2).split() for row in rows]
        tags = [
            [f"{w} {'good' if w in GOOD else 'bad' if w in BAD else 'other'}" for w in words] for words in sentences
        ]
        (folder / f"{split}.txt").write_text("\n\n".join("\n".join(lines) for lines in tags))
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    more = ["task=tags", f"task.folder={folder}", "recipe.epochs=6", "teacher.recipe.epochs=8"]
    done = kdexp([f"objective={objective}", *words, *more], env=extended)
    assert done.returncode == 0, done.stdout + done.stderr
    found = result(tmp_path, f"tags-{objective}-first-s1-*")
    assert found["task"]["kind"] == "tags" and found["task"]["majority"]["validation"]["accuracy"] == 0.625
    assert found["scores"]["validation"]["accuracy"] > 0.9, "a word tells its tag: whoever learns at all learns this"

    refused = kdexp(["objective=continuation", *words, *more], env=extended)
    assert refused.returncode == 2 and "one row of logits (B, C) an example" in refused.stderr
