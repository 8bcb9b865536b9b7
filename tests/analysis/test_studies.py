"""Every study has a command that makes its tables from finished runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from analysis import designs, results, statements
from tests.analysis.synthetic import make_result, write_points, write_run

SCRIPTS = sorted(designs.STUDIES)
ROOT = Path(__file__).resolve().parents[2]


def test_all_are_there() -> None:
    assert SCRIPTS == [
        "agnostic_init",
        "agnostic_objectives",
        "capacity_gap",
        "checkpoint_search",
        "embedding_layers",
        "init_ablation",
        "lgtm_glue",
        "objective_study",
        "objectives_all",
        "pea_kd",
        "pkd_glue",
        "pro_kd_cifar",
        "pro_kd_glue",
        "pro_kd_squad",
        "quickstart",
        "ted_glue",
        "ted_squad",
        "width_init",
    ]


def test_studies_of_methods_show_what_they_cost() -> None:
    plain = {name for name, study in designs.STUDIES.items() if study.layout != "methods"}
    assert plain == {"agnostic_init", "agnostic_objectives", "init_ablation", "objective_study", "quickstart"}


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
    assert ("parameters (M)" in out) == (designs.STUDIES[name].layout == "methods")
    assert main([f"root={tmp_path}", "source=folders", "study=other"]) == 2
    assert main(["--help"]) == 0


def test_python_finds_the_commands() -> None:
    words = [sys.executable, "-m", "analysis.studies.pea_kd", "--help"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and "python -m kdexp reproduce pea_kd [STUDY] [key=value ...]" in ended.stdout
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("analysis.studies.no_such_study")


def test_primary_claims_are_few_and_there() -> None:
    known = {claim["id"] for claim in statements.load()}
    for name, study in designs.STUDIES.items():
        assert 1 <= len(study.primary) <= 4 and set(study.primary) <= known, name
        assert len(set(study.primary)) == len(study.primary) and 0 < study.delta[0] <= study.delta[1]


def test_a_fifth_primary_claim_is_refused() -> None:
    with pytest.raises(ValueError, match=r"5 primary claims \(a, b, c, d, e\); at most 4"):
        designs.Study("p", primary=tuple("abcde"))


def test_smaller_forms_share_the_entry_with_a_delta_of_their_own() -> None:
    full, delta = designs.entry("ted_glue")
    assert designs.entry("ted_glue_desk") == (full, 1.5) and delta == 1.0
    assert designs.entry("mine")[0].primary == ()


def test_the_readme_shows_the_quickstart_that_is_shipped() -> None:
    """Its rows are the cells of the grid with their seeds, its verdicts those of the primary claims."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    grid = yaml.safe_load((ROOT / "conf/experiment/quickstart.yaml").read_text(encoding="utf-8"))
    params = grid["hydra"]["sweeper"]["params"]
    objectives, inits, seeds = (params[key].split(",") for key in ("objective", "init", "seed"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme.splitlines() if line.startswith("| ")]
    shown = {(row[0].removesuffix(" (no distillation)"), row[1], row[2]) for row in rows if len(row) == 6}
    wanted = {(objective, init, str(len(seeds))) for objective in objectives for init in inits}
    assert {row for row in shown if row[0] in ("finetune", "kd")} == wanted
    assert f"distils\n{len(wanted) * len(seeds)} two-layer students" in readme
    assert rows and params["task"] in readme
    assert [claim for claim in designs.STUDIES["quickstart"].primary if f"(`{claim}`): **" not in readme] == []


def test_the_desk_form_of_all_objectives_has_what_its_tuning_form_chose() -> None:
    """The page of results holds what was chosen, ``conf/`` what is run: neither is made from the other."""
    part = results.sections((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))["objectives_all_tune"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")][1:]
    chosen = {row[0]: dict(pair.split("=") for pair in row[-1].split(", ")) for row in rows if row[0] != "---"}
    form = yaml.safe_load((ROOT / "conf" / "experiment" / "objectives_all.yaml").read_text(encoding="utf-8"))
    scales = form["hydra"]["sweeper"]["scales"]
    run = [dict(entry["set"]) for entry in scales["desk"]["union"] if "set" in entry]
    (control,) = (entry for entry in run if "objective.name" in entry)
    run.remove(control)
    found = {entry.pop("objective"): {key: float(value) for key, value in entry.items()} for entry in run}
    assert found == {name: {key: float(value) for key, value in picked.items()} for name, picked in chosen.items()}
    assert len(found) == len(scales["tune"]["union"]) == 32
    assert (control.pop("objective"), control.pop("objective.name")) == ("kd", "kd_2e")
    assert control.pop("recipe.epochs") == 2 * scales["desk"]["set"]["recipe.epochs"]
    assert {key: float(value) for key, value in control.items()} == found["kd"]
