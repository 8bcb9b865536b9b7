"""Every study has a script that makes its tables from finished runs by one command."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import analysis.studies
from tests.analysis.synthetic import make_result, write_points, write_run

SCRIPTS = sorted(module.name for module in pkgutil.iter_modules(analysis.studies.__path__))


def test_all_are_there() -> None:
    assert SCRIPTS == [
        "init_ablation",
        "objective_study",
        "pea_kd",
        "pkd_glue",
        "pro_kd_glue",
        "quickstart",
        "ted_glue",
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_finished_study_becomes_tables(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        make_result(name, "rte", o, "first", s, science__student={"name": "half", "sharing": "none"})
        for o in ("kd", "finetune")
        for s in (1, 2)
    ]
    for result in results:
        write_run(tmp_path, result)
    write_points(tmp_path, name, results)
    main = importlib.import_module(f"analysis.studies.{name}").main
    assert main([f"root={tmp_path}", "source=folders", "figure=no"]) == 0
    out = capsys.readouterr().out
    assert f"### {name}\n" in out and f"### {name}: claims" in out and "kd" in out
    assert ("parameters (M)" in out) == (name not in ("quickstart", "init_ablation", "objective_study"))
    assert main([f"root={tmp_path}", "source=folders", "study=other"]) == 2
    assert main(["--help"]) == 0
