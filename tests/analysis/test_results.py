"""The page of results: what was planted stands on it, and it says the same as the commands that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import chosen, claims, compare, results
from analysis.collect import Collected
from tests.analysis.synthetic import write_run
from tests.analysis.test_compare import FINETUNE, KD, Study

SEEDS = (1, 2, 3, 4, 5)


@pytest.fixture
def collected(tmp_path: Path) -> Collected:
    study = Study(tmp_path, "pkd_glue_desk")
    for seed in SEEDS:
        study.run("kd", seed, 1.6)
        study.run("finetune", seed, 0.7)
    return study.collected()


def test_a_planted_effect_is_a_verdict_on_the_page(collected: Collected, tmp_path: Path) -> None:
    out = tmp_path / "results.md"
    assert results.main([f"root={tmp_path}", "studies=pkd_glue_desk", f"out={out}"]) == 0
    page = out.read_text()
    (planted,) = (one for one in claims.evaluate(collected) if one.id == "distilling_helps")
    assert planted.verdict == "supported" and planted.effect > 5
    (line,) = (text for text in page.splitlines() if "`distilling_helps`" in text)
    assert "**supported**" in line and f"Effect {planted.effect:+.2f} points on sst2; 5 seeds" in line
    compared = compare.compare(collected, KD, FINETUNE)
    for question, one in compared.answers.items():
        assert f"{question} [{one.low:+.2f}, {one.high:+.2f}]" in line
    accuracy = 100 * collected.scores.query("who == 'student' and split == 'validation'").merge(
        collected.runs[["run", "objective"]], on="run"
    ).groupby("objective")["value"].agg(["mean", "std"])  # fmt: skip
    assert f"{accuracy.loc['kd', 'mean']:.1f} ± {accuracy.loc['kd', 'std']:.1f}" in page
    assert "10 runs; objectives finetune, kd;" in page and "5 seeds a cell" in page
    (machine,) = {f"{one.hardware} in {one.dtype}" for one in collected.runs.itertuples()}
    assert machine.endswith(" in fp32") and f"hours of computing on {machine}." in page
    assert "`pkd.over_kd`): **not run**" in page and "**What it does not say.**" in page


def test_a_study_under_way_is_not_written_as_if_it_were_whole(collected: Collected, tmp_path: Path, capsys) -> None:
    run = sorted(collected.folder.glob("*/result.json"))[0]
    run.unlink()
    words = [f"root={tmp_path}", "studies=pkd_glue_desk", f"out={tmp_path / 'results.md'}"]
    assert results.main(words) == 2 and "9 of 10 runs are there" in capsys.readouterr().err
    assert not (tmp_path / "results.md").exists()
    assert results.main([*words, "incomplete=allow"]) == 0
    assert "9 of 10 runs (the others are still to come)" in (tmp_path / "results.md").read_text()


def test_nothing_finished_is_a_sentence(tmp_path: Path, capsys) -> None:
    assert results.main([f"root={tmp_path}"]) == 2
    assert "has finished runs; looked for agnostic_init_desk, " in capsys.readouterr().err


def test_a_study_without_runs_here_stays_as_it_was(collected: Collected, tmp_path: Path, capsys) -> None:
    out = tmp_path / "results.md"
    assert results.main([f"root={tmp_path}", "studies=pkd_glue_desk", f"out={out}"]) == 0
    first = out.read_text()
    other = Study(tmp_path / "elsewhere", "capacity_gap_desk")
    for seed in SEEDS:
        other.run("kd", seed, 1.2)
        other.run("finetune", seed, 0.9)
    other.collected()
    assert results.main([f"root={tmp_path / 'elsewhere'}", f"out={out}"]) == 0
    assert "As they were, without runs here: pkd_glue_desk" in capsys.readouterr().out
    both = results.sections(out.read_text())
    assert list(both) == ["capacity_gap_desk", "pkd_glue_desk"], "in the order of the shipped studies"
    assert both["pkd_glue_desk"] == results.sections(first)["pkd_glue_desk"] and first.startswith(results.HEAD)
    sorted(collected.folder.glob("*/result.json"))[0].unlink()
    assert results.main([f"root={tmp_path}", f"out={out}", "incomplete=allow"]) == 0
    assert "9 of 10 runs" in results.sections(out.read_text())["pkd_glue_desk"]


def test_forms_of_a_study_stand_together_and_say_what_chose_the_epoch(collected: Collected, tmp_path: Path) -> None:
    other = Study(tmp_path, "pkd_glue_small")
    for objective in ("kd", "finetune"):
        other.run(objective, 1, 1.2, "selection=last")
    other.collected()
    later = Study(tmp_path, "pro_kd_glue_desk")
    later.run("kd", 1, 1.2)
    later.collected()
    out = tmp_path / "results.md"
    names = "pro_kd_glue_desk,pkd_glue_small,pkd_glue_desk"
    assert results.main([f"root={tmp_path}", f"studies={names}", f"out={out}"]) == 0
    parts = results.sections(out.read_text())
    assert list(parts) == ["pkd_glue_desk", "pkd_glue_small", "pro_kd_glue_desk"]
    rule = "; the epoch was chosen on no split (the last one counts); teacher "
    assert f"1 seed a cell{rule}" in parts["pkd_glue_small"] and "the epoch was" not in parts["pkd_glue_desk"]
    assert "sst2; 1 seed; p (Holm)" in parts["pkd_glue_small"]


def test_of_a_form_that_tunes_the_page_says_what_was_chosen(tmp_path: Path) -> None:
    other = Study(tmp_path, "pkd_glue_tune")
    for rate in (1e-5, 3e-5):
        other.run("kd", 1, 1.2, f"recipe.learning_rate={rate}")
    for result, kept in zip(other.program.results, (0.7, 0.8), strict=True):
        result["scores"]["heldout"] = {"accuracy": kept}
        write_run(tmp_path, result)
    found = other.collected()
    out = tmp_path / "results.md"
    assert results.main([f"root={tmp_path}", "studies=pkd_glue_tune", f"out={out}"]) == 0
    part = results.sections(out.read_text())["pkd_glue_tune"]
    assert part.startswith("## PKD") and "(tune)" in part.splitlines()[0] and "2 runs; objectives kd;" in part
    assert chosen.table(chosen.chosen(found)) in part and "recipe.learning_rate=3e-05 |" in part
    assert "**not run**" not in part, "nothing is claimed of it"


def test_a_page_with_words_of_ones_own_is_not_overwritten(collected: Collected, tmp_path: Path, capsys) -> None:
    out = tmp_path / "results.md"
    words = [f"root={tmp_path}", "studies=pkd_glue_desk", f"out={out}"]
    assert results.main(words) == 0
    mine = out.read_text() + "\n## My remarks\n\nNot a study's.\n"
    out.write_text(mine)
    assert results.main(words) == 2 and "'My remarks' that is of no study" in capsys.readouterr().err
    assert out.read_text() == mine
