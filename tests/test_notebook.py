"""docs/notebook.ipynb: its cells run in order, as a notebook's kernel runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kdexp
from tests.conftest import REPOSITORY, program_environment

NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
KERNEL = """
import ast, asyncio, json, sys

async def kernel():  # a notebook's cells run inside an event loop, and show the value of their last line
    names = {"__name__": "__main__"}
    for source in json.loads(sys.argv[1]):
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            print(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), names)))
    return names

names = asyncio.run(kernel())
assert "hydra" not in sys.modules, "the notebook stays what it was"
print(json.dumps({
    "beats": names["run"].score - names["run"].result["task"]["majority"]["validation"]["accuracy"],
    "rows": len(names["runs"]), "cells": names["table"]["kind"].tolist(), "problems": names["problems"],
    "exported": names["delivered"].table["score"].tolist(),
}))
"""


def cells() -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return content


def sources() -> list[str]:
    return ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]


def test_it_is_kept_without_what_it_printed():
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (kept["nbformat"], kept["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in kept["cells"]}) == len(kept["cells"])
    for cell in kept["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


def test_it_uses_names_that_kdexp_offers():
    import ast

    used = {
        node.attr
        for source in sources()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kdexp"
    }
    assert {"distill", "predict", "study", "load", "export", "ConfigError"} == used <= set(kdexp.__all__)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_cells_run(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", KERNEL, json.dumps(sources())],
        cwd=tmp_path, env=program_environment({}), capture_output=True, text=True, timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["beats"] > 0.1, "it learned something"
    assert found["rows"] == 8 and found["cells"].count("method") == 2 and found["cells"].count("finetune") == 2
    assert len(found["problems"]) == 2 and found["exported"] == [pytest.approx(found["exported"][0])]
