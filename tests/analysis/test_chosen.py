"""Two protocols over a grid: the planted optimism of choosing on the reported set is found, and its size is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.chosen import chosen, main, markdown
from analysis.collect import collect
from tests.analysis.synthetic import make_result, write_points, write_run


def planted(root: Path, heldout: bool = True) -> list[dict]:
    """Two seeds, three learning rates; validation and held-out rows disagree about the best of them."""
    values = {1: [(0.60, 0.70), (0.65, 0.68), (0.50, 0.90)], 2: [(0.61, 0.62), (0.66, 0.71), (0.50, 0.60)]}
    results = []
    for seed, points in values.items():
        for number, (kept, reported) in enumerate(points):
            result = make_result("grid", "rte", "finetune", "agnostic", seed, shift=number / 100)
            result["science"]["recipe"]["learning_rate"] = (1 + number) * 1e-5
            result["scores"] = {"validation": {"accuracy": reported}}
            if heldout:
                result["scores"]["heldout"] = {"accuracy": kept}
            results.append(result)
            write_run(root, result)
    write_points(root, "grid", results)
    return results


def test_each_seed_chooses_for_itself(tmp_path: Path) -> None:
    planted(tmp_path)
    found = collect("grid", tmp_path, "folders", mixture="allow")
    [line] = chosen(found).to_dict("records")
    assert (line["n"], line["points"]) == (2, 3)
    assert line["best_of_grid"] == pytest.approx(100 * (0.90 + 0.71) / 2)
    assert line["chosen"] == pytest.approx(100 * (0.68 + 0.71) / 2)
    assert line["gap"] == pytest.approx(11.0)
    said = "| 2 | 3 | 70.2 | 80.5 | 80.5 | 69.5 ± 2.1 | +11.0 | recipe.learning_rate=2e-05 |"
    assert said in markdown(chosen(found), "grid")


def test_a_smaller_search_would_have_printed_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path)
    for number, score in enumerate((0.5, 0.7)):  # another method, of two points
        result = make_result("grid", "rte", "kd", "agnostic", 1, shift=number / 100)
        result["science"]["recipe"]["learning_rate"] = (1 + number) * 1e-5
        result["scores"] = {"validation": {"accuracy": score}, "heldout": {"accuracy": score}}
        write_run(tmp_path, result)
    found = collect("grid", tmp_path, "folders", mixture="allow", extra="include")
    lines = chosen(found).set_index("objective")
    assert list(lines["k"]) == [2, 2], "what the line of the fewest points has"
    pairs = (0.90 + 0.90 + 0.70) / 3, (0.71 + 0.71 + 0.62) / 3  # all pairs of each seed's three points
    assert lines.loc["finetune", "expected_best"] == pytest.approx(100 * sum(pairs) / 2)
    assert lines.loc["finetune", "mean"] == pytest.approx(100 * (0.70 + 0.68 + 0.90 + 0.62 + 0.71 + 0.60) / 6)
    assert lines.loc["kd", "expected_best"] == pytest.approx(70)
    assert "| expected best of 2 |" in markdown(chosen(found), "grid")
    assert list(chosen(found, 1)["expected_best"]) == pytest.approx(list(lines["mean"]))
    words = ["study=grid", f"root={tmp_path}", "source=folders", "mixture=allow", "extra=include"]
    assert main([*words, "best_of=3"]) == 2 and "there are 2 points" in capsys.readouterr().err
    assert main([*words, "best_of=0"]) == 2 and "neither a number of points nor auto" in capsys.readouterr().err


def test_what_most_seeds_chose_is_named_with_their_number(tmp_path: Path) -> None:
    results = planted(tmp_path)
    for number, kept in enumerate((0.9, 0.1, 0.2)):
        result = make_result("grid", "rte", "finetune", "agnostic", 3, shift=number / 100)
        result["science"]["recipe"]["learning_rate"] = (1 + number) * 1e-5
        result["scores"] = {"validation": {"accuracy": 0.5}, "heldout": {"accuracy": kept}}
        results.append(result)
        write_run(tmp_path, result)
    write_points(tmp_path, "grid", results)
    found = collect("grid", tmp_path, "folders", mixture="allow")
    [line] = chosen(found).to_dict("records")
    assert line["n"] == 3 and line["picked"] == "recipe.learning_rate=2e-05 (2 of 3 seeds)"


def test_what_cannot_be_chosen_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path, heldout=False)
    words = ["study=grid", f"root={tmp_path}", "source=folders", "mixture=allow"]
    assert main(words) == 2
    assert "without scores on held-out rows" in capsys.readouterr().err
