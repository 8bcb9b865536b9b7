"""The examples of docs/extending.md, executed: new files and no edit make a new objective, init and task."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.test_runs import toy

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_examples_work(kdexp, tiny_bert_dir, tiny_csv_task, tmp_path):
    copy = tmp_path / "copy"
    for name in ("kdexp", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", text, re.S)
    assert sorted(path for path, _ in blocks) == [
        "conf/init/outside_in.yaml",
        "conf/objective/norms.yaml",
        "conf/task/reviews.yaml",
        "kdexp/inits/outside_in.py",
        "kdexp/objectives/norms.py",
    ]
    for path, content in blocks:
        assert not (copy / path).exists(), "an example must not collide with what is shipped"
        (copy / path).write_text(content)
    done = kdexp(
        ["objective=norms", "init=outside_in", *toy(tiny_bert_dir, tiny_csv_task)], env={"PYTHONPATH": str(copy)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "outside_in: teacher layers 1, 4" in done.stdout and "intermediate norms" in done.stdout
    assert list((tmp_path / "multirun" / "adhoc").glob("toy-norms-outside_in-s1-*/result.json"))
    tiny_csv_task.rename(tmp_path / "reviews")
    others = [argument for argument in toy(tiny_bert_dir, tiny_csv_task) if not argument.startswith("task")]
    done = kdexp(["objective=finetune", "task=reviews", *others], env={"PYTHONPATH": str(copy)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "multirun" / "adhoc").glob("reviews-finetune-first-s1-*/result.json"))
