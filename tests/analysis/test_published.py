"""Published numbers: the shipped file is clean, printed averages are recomputed, ours is set beside the right row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as sps

from analysis import published
from analysis.collect import collect
from analysis.published.compare import compare, interval, markdown
from tests.analysis.synthetic import make_result, write_points, write_run

HOWTO = "How to Distill your BERT (arXiv 2305.15032)"


def test_values_are_complete_and_on_one_scale() -> None:
    frame = published.values()
    assert len(frame) > 1000
    assert frame["value"].notna().all() and frame["value"].between(0, 100).all()
    assert (frame["source"] != "").all() and (frame["paper"] != "").all()
    assert not frame["caveat"].str.contains("relayed|do not use", regex=True).any()
    keys = ["paper", "table", "setting", "teacher", "student", "method", "init", "task", "metric"]
    assert not frame.duplicated(keys).any()


def test_repeated_numbers_are_equal_to_those_they_repeat() -> None:
    frame = published.values()
    three = frame[(frame.paper == HOWTO) & (frame.repeats == "Table 1")]
    one = frame[(frame.paper == HOWTO) & (frame.table == "Table 1")]
    both = three.merge(one, on=["method", "init", "task"], suffixes=("", "_first"))
    assert len(both) == len(three) > 0 and (both.value == both.value_first).all()


def test_printed_averages_that_do_not_match_their_rows() -> None:
    """The three clear misprints of How to Distill your BERT, and Continuation-KD's Table 6."""
    wrong = published.averages(published.values())
    wrong = wrong[wrong.gap.abs() > 0.2]
    found = {
        (r.table, r.method, r.init.split(" (")[0].removeprefix("teacher layers ")): (r.printed, round(r.recomputed, 1))
        for r in wrong[wrong.paper == HOWTO].itertuples()
    }
    assert found[("Table 1", "Hid-CLS", "4,8,12")] == (73.2, 73.7)
    assert found[("Table 1", "Att-MSE + Hid-Seq", "4,8,12")] == (77.0, 76.7)
    assert found[("Table 3", "Hid-Seq", "1,8,12")] == (77.6, 76.9)
    assert len(found) == 4  # the fourth repeats Table 1


@pytest.mark.parametrize(
    "study",
    [
        "init_ablation",
        "objective_study",
        "agnostic_objectives",
        "agnostic_init",
        "pkd_glue",
        "pea_kd",
        "ted_glue",
        "capacity_gap",
    ],
)
def test_every_matched_row_exists(study: str) -> None:
    entry = published.match(study)
    assert entry is not None and entry is published.match(f"{study}_desk")
    frame = published.values()
    frame = frame[(frame.paper == entry["paper"]) & frame.table.isin(entry["tables"])]
    assert len(frame)
    for row in entry["rows"]:
        part = frame
        for key in ("method", "init", "student"):
            part = part[part[key] == row[key]] if key in row else part
        assert set(part.task) & set(entry["tasks"]), row


def test_interval_is_welchs_by_hand() -> None:
    ours = [70.0, 72.0, 74.0]
    low, high = interval(ours, 70.0, 1.0, 4)
    reference = sps.ttest_ind_from_stats(72.0, 2.0, 3, 70.0, 1.0, 4, equal_var=False)
    error = math.sqrt(4 / 3 + 1 / 4)
    assert 2.0 / error == pytest.approx(reference.statistic)
    df = (4 / 3 + 1 / 4) ** 2 / ((4 / 3) ** 2 / 2 + (1 / 4) ** 2 / 3)
    assert (low, high) == pytest.approx((2 - sps.t.ppf(0.975, df) * error, 2 + sps.t.ppf(0.975, df) * error))
    alone = interval(ours, 70.0, math.nan, math.nan)
    assert alone == pytest.approx(tuple(np.array(sps.ttest_1samp(ours, 70).confidence_interval()) - 70))
    assert math.isnan(interval([70.0], 70.0, 1.0, 4)[0])


def test_a_study_beside_its_paper(tmp_path: Path) -> None:
    results = [
        make_result("init_ablation_desk", task, "kd", init, seed, shift=0.04)
        for task in ("rte", "cola")
        for init in ("first", "spread")
        for seed in range(3)
    ]
    for result in results:
        write_run(tmp_path, result)
    write_points(tmp_path, "init_ablation_desk", results)
    lines, notes = compare(collect("init_ablation_desk", tmp_path, "folders"))
    have = {(line.row, line.task): line for line in lines if line.n}
    assert len(have) == 4
    cola = have[("Vanilla KD / teacher layers 1,2,3 (1-based)", "CoLA")]
    assert (cola.metric, cola.paper, cola.n) == ("accuracy", 74.9, 3)  # not MCC: the column is in doubt
    assert cola.difference == pytest.approx(cola.ours - 74.9)
    scores = [100 * one["scores"]["validation"]["accuracy"] for one in results if one["labels"]["task"] == "cola"][:3]
    assert (cola.selected, cola.k) == (pytest.approx(max(scores)), 3)
    two, _ = compare(collect("init_ablation_desk", tmp_path, "folders"), best_of=2)
    best = next(line for line in two if (line.row, line.task) == (cola.row, "CoLA"))
    _, middle, high = sorted(scores)
    assert (best.selected, best.k) == (pytest.approx((middle + 2 * high) / 3), 2) and best.ours == cola.ours
    text = markdown(lines, notes, "x")
    assert "very likely accuracy" in text and "majority answer on our copy: accuracy 50.0" in text
    assert "NOT the paper's setting: teacher is minilm here, roberta_base there" in text
    assert "Printed average of Hid-Seq" in text and "Not run here:" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.published.__main__ import main

    assert main(["study=quickstart"]) == 2
    assert "nothing published is matched" in capsys.readouterr().err
    result = make_result("pea_kd", "rte", "pkd", "first", 1, labels__student="l3", science__student={"sharing": "none"})
    write_run(tmp_path, result)
    write_points(tmp_path, "pea_kd", [result])
    assert main(["study=pea_kd", f"root={tmp_path}", "source=folders"]) == 0
    assert "| baseline student | RTE (accuracy) | 61.4 |" in capsys.readouterr().out
    assert (
        main(["study=pea_kd", f"root={tmp_path}", "best_of=few"]) == 2
        and "neither a number of runs nor all" in capsys.readouterr().err
    )
    assert (tmp_path / "pea_kd" / "tables" / "published.csv").is_file()
