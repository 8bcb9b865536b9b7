"""Tables: every number recomputed by hand, marks only where seeds allow them, four formats that agree."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scipy import stats as sps

from analysis import render, tables
from analysis.bounds import within
from analysis.collect import collect
from analysis.estimate import Estimate
from analysis.grid import build
from tests.analysis.synthetic import grid, make_result, write_points, write_run


def table(root: Path, study: str = "quickstart", collected: dict[str, object] | None = None, **options: object):
    return build(collect(study, root, "folders", **(collected or {})), **options)  # type: ignore[arg-type]


def row_of(found, *labels: str):
    return next(row for row in found.rows if row.labels == labels)


def make(root: Path, results: list[dict[str, object]], study: str = "quickstart") -> Path:
    for result in results:
        write_run(root, result)
    write_points(root, study, results)
    return root


def test_cells_are_mean_and_sample_std_of_the_chosen_metric(study: Path) -> None:
    found = table(study)
    assert [(c.task, c.metric) for c in found.columns] == [("rte", "accuracy"), ("cola", "mcc")]
    results = [r for r in grid() if r["labels"]["objective"] == "kd" and r["labels"]["init"] == "last"]
    values = [100 * r["scores"]["validation"]["mcc"] for r in results if r["labels"]["task"] == "cola"]
    cell = row_of(found, "kd", "last").cells[1]
    assert (cell.mean, cell.std, cell.n) == (
        pytest.approx(statistics.mean(values)),
        pytest.approx(statistics.stdev(values)),
        3,
    )


def test_the_average_has_its_own_interval_by_hand(study: Path) -> None:
    row = row_of(table(study), "att_kl", "first")
    parts = [cell.std**2 / 3 / 4 for cell in row.cells]
    df = sum(parts) ** 2 / sum(p**2 / 2 for p in parts)
    half = sps.t.ppf(0.975, df) * math.sqrt(sum(parts))
    mean = sum(cell.mean for cell in row.cells) / 2
    assert (row.average.mean, row.average.low, row.average.high) == pytest.approx((mean, mean - half, mean + half))


def test_reference_rows_come_first_then_no_distillation(study: Path) -> None:
    found = table(study)
    assert [row.kind for row in found.rows[:5]] == ["majority", "teacher", "finetune", "finetune", "finetune"]
    assert [cell.mean for cell in found.rows[0].cells] == pytest.approx([52.7, 0.0])
    assert [cell.mean for cell in found.rows[1].cells] == pytest.approx([75.0, 50.0])
    assert found.rows[1].cells[0].n == 1  # one teacher taught all 27 runs of the task
    assert [row.labels for row in found.rows[2:5]] == [("finetune", init) for init in ("first", "last", "random")]


def test_best_is_bold_only_if_told_from_every_other_row(study: Path, tmp_path: Path) -> None:
    clear = table(study)
    assert row_of(clear, "att_kl", "first").cells[0].mark == "best"
    assert sum(row.average.mark == "best" for row in clear.rows) == 1
    noisy = table(make(tmp_path / "b", grid(noise=0.05)))
    marks = [row.cells[0].mark for row in noisy.rows if row.kind not in ("majority", "teacher")]
    assert "best" not in marks and marks.count("top") > 1
    assert "≈" in render.markdown(noisy) and "**" not in render.markdown(noisy)
    single = table(make(tmp_path / "c", grid(seeds=1)))
    assert {row.cells[0].mark for row in single.rows} == {""}
    assert "±" not in render.markdown(single).split("\n\n")[1]


def test_tie_groups_are_a_column_of_every_format(study: Path, tmp_path: Path) -> None:
    found = table(study)
    assert row_of(found, "att_kl", "first").group == "a" and {row.group for row in found.rows[:2]} == {""}
    assert all("a" not in row.group for row in found.rows[2:] if row.labels != ("att_kl", "first"))
    noisy = table(make(tmp_path / "b", grid(noise=0.2)))
    assert {row.group for row in noisy.rows[2:]} == {"a"}
    assert {row.group for row in table(make(tmp_path / "c", grid(seeds=1))).rows} == {""}
    assert "| group |" in render.markdown(found) and "& group" in render.latex(found)
    assert ">group<" in render.html(found) and set(found.frame()["group"]) > {"a", "b"}
    assert any("Holm's correction over all pairs" in note for note in found.notes)


def test_a_fine_tuned_baseline_is_still_a_baseline(tmp_path: Path) -> None:
    results = [
        make_result("quickstart", "rte", o, "first", s, labels__objective=f"{o}_ft")
        for o in ("kd", "finetune")
        for s in (0, 1)
    ]
    found = table(make(tmp_path, results))
    assert [row.kind for row in found.rows[2:]] == ["finetune", "method"]
    assert "finetune_ft (no distillation)" in render.markdown(found)
    assert not any("no run without distillation" in note for note in found.notes)


def test_tasks_without_signal_are_named_under_the_table(tmp_path: Path) -> None:
    results = [
        make_result("quickstart", "rte", "kd", "first", s, teacher__scores={"validation": {"accuracy": 0.55}})
        for s in (0, 1)
    ]
    notes = "\n".join(table(make(tmp_path, results)).notes)
    assert "Without signal, and so in no claim: rte (its teacher is +2.3 points from the majority answer" in notes


def test_equal_scores_are_never_called_different(tmp_path: Path) -> None:
    found = table(make(tmp_path, grid(noise=0.0)))  # every seed equal: no spread, so no test can be made
    assert row_of(found, "att_kl", "first").cells[0].mark == "top"


def test_rows_split_where_one_label_would_hide_two_things(tmp_path: Path) -> None:
    results = grid()
    small = [
        make_result(
            "quickstart", t, "kd", "first", s, labels__student="tiny", science__student={"name": "tiny"}, shift=-0.1
        )
        for t in ("rte", "cola")
        for s in range(3)
    ]
    found = table(make(tmp_path, results + small))
    assert found.keys == ("objective", "init", "student")
    assert row_of(found, "kd", "first", "tiny").cells[0].mean < row_of(found, "kd", "first", "half").cells[0].mean - 5


def test_by_shows_a_setting(tmp_path: Path) -> None:
    fast = [
        make_result(
            "quickstart",
            "rte",
            "kd",
            "first",
            s,
            science__recipe={"learning_rate": 1e-4},
            run__id=f"{s:064x}",
            run__name=f"fast-{s}",
        )
        for s in range(3)
    ]
    root = make(tmp_path, grid() + fast)
    found = table(root, collected={"by": ["recipe.learning_rate"]})
    assert (
        row_of(found, "kd", "first", "0.0001").average is None
    )  # it has no CoLA: its average would be over other tasks
    assert row_of(found, "kd", "first", "5e-05").average is not None


def test_mismatched_mnli_has_a_column_outside_the_average(tmp_path: Path) -> None:
    scores = {"validation": {"accuracy": 0.8}, "validation_mismatched": {"accuracy": 0.6}}
    results = [
        make_result("quickstart", "mnli", o, "first", s, scores=scores) for o in ("kd", "finetune") for s in (0, 1)
    ]
    found = table(make(tmp_path, results))
    assert [column.name for column in found.columns] == ["mnli", "mnli mismatched"]
    assert row_of(found, "kd", "first").average.mean == pytest.approx(80)


def test_notes_name_what_a_reader_must_know(tmp_path: Path) -> None:
    weak = [make_result("quickstart", "rte", "kd", init, s, shift=-0.2) for init in ("first", "last") for s in (0, 1)]
    root = make(tmp_path, weak)
    notes = "\n".join(table(root).notes)
    assert "Not above the majority answer: kd / first on rte; kd / last on rte." in notes
    assert "no run without distillation" in notes and "rte 277 (± 5.9)" in notes and "held-out part of train" in notes
    assert "the median standard deviation over seeds is" in notes and re.search(r"about \d+ seeds each", notes)
    (next((root / "quickstart").glob("rte-kd-last-s1-*")) / "result.json").unlink()
    notes = "\n".join(table(root, collected={"incomplete": "allow"}).notes)
    assert "INCOMPLETE: 1 runs are missing: rte-kd-last-s1" in notes


def test_a_run_without_a_finite_score_is_named(tmp_path: Path) -> None:
    results = [make_result("quickstart", "rte", "kd", "first", s) for s in (0, 1)]
    results[0]["scores"]["validation"]["accuracy"] = math.nan
    found = table(make(tmp_path, results))
    assert row_of(found, "kd", "first").cells[0].n == 1
    assert any("WITHOUT A FINITE SCORE" in note and results[0]["run"]["name"] in note for note in found.notes)


def test_metric_can_be_named_and_an_unknown_one_is_refused(study: Path) -> None:
    assert {column.metric for column in table(study, metric="f1").columns} == {"f1"}
    with pytest.raises(ValueError, match="recorded: accuracy, f1, mcc"):
        table(study, metric="bleu")


def test_methods_layout_has_sizes_and_measured_speed(tmp_path: Path) -> None:
    fast = {"latency": {"cpu_b1": {"median_ms": 5.0, "p95_ms": 9.0}}, "flops": 1e9}
    slow = {"latency": {"cpu_b1": {"median_ms": 15.0, "p95_ms": 19.0}}}
    results = [
        make_result("quickstart", "rte", o, "first", s, student__efficiency=fast, teacher__efficiency=slow)
        for o in ("kd", "finetune")
        for s in (0, 1)
    ]
    extras = row_of(table(make(tmp_path, results), layout="methods"), "kd", "first").extras
    assert extras["parameters (M)"] == pytest.approx(17) and extras["size (MB)"] == pytest.approx(68)
    assert extras["x smaller"] == pytest.approx(22.7 / 17)
    assert extras["x faster (latency.cpu_b1.median_ms)"] == pytest.approx(3)
    assert extras["latency.cpu_b1.p95_ms"] == 9 and extras["flops"] == 1e9


def test_who_built_the_teacher_costs_no_more(tmp_path: Path) -> None:
    """One run of a study trains the teacher for all of them, and others wait for it."""
    results = [
        make_result("quickstart", "rte", o, "first", s, cost__seconds=900.0 if (o, s) == ("kd", 0) else 10.0)
        for o in ("kd", "finetune")
        for s in (0, 1)
    ]
    grid = table(make(tmp_path, results), layout="methods")
    kd, finetune = (row_of(grid, name, "first").extras for name in ("kd", "finetune"))
    assert kd["training (s)"] == finetune["training (s)"] == 9.0
    assert any(
        note.startswith("Training (s): seconds of all stages of a student but its teacher") for note in grid.notes
    )


def test_command_writes_four_formats_that_agree_and_two_figures(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main(["study=quickstart", f"root={study}", "source=folders"]) == 0
    folder = study / "quickstart" / "tables"
    text = (folder / "scores.md").read_text()
    out = capsys.readouterr().out
    assert text in out and str(folder / "scores.md") in out
    found = table(study)
    for row in found.rows:
        number = f"{row.cells[0].mean:.1f}"
        line = next(line for line in text.splitlines() if all(label in line for label in row.labels))
        assert number in line
    latex = (folder / "scores.tex").read_text()
    assert latex.count(r" \\") == len(found.rows) + 1 and r"att\_kl & first" in latex and r"\textbf{" in latex
    body = [line for line in latex.splitlines() if line.endswith(r" \\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1
    page = (folder / "scores.html").read_text()
    assert page.count("<tr") == len(found.rows) + 1 and 'class="best"' in page
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    cell = next(r for r in rows if (r["objective"], r["init"], r["task"]) == ("kd", "last", "rte"))
    assert float(cell["mean"]) == pytest.approx(row_of(found, "kd", "last").cells[0].mean)
    figures = study / "quickstart" / "figures"
    ElementTree.parse(figures / "scores.svg")
    assert (figures / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_metric_all_prints_a_table_a_metric(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["study=quickstart", f"root={study}", "source=folders", "metric=all", "figure=no"]) == 0
    assert capsys.readouterr().out.count("### quickstart") == 4
    assert (study / "quickstart" / "tables" / "scores-mcc.md").is_file()


def test_hostile_labels_cannot_break_a_format(tmp_path: Path) -> None:
    results = [make_result("quickstart", "rte", "kd", "<b>&_%|", s, run__name=f"r{s}") for s in (0, 1)]
    found = table(make(tmp_path, results))
    assert "<b>" not in render.html(found) and r"$<$b$>$\&\_\%" in render.latex(found)
    assert r"\<b>&\_%\|" in render.markdown(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study=quickstart", "metrik=f1"], "'metrik' is no key"),
        (["study=quickstart", "source=wandb"], "not one of mlflow, folders"),
        (["metric=f1"], "study= must be given"),
        (["quickstart", "again"], "'again' is not key=value"),
        (["study=../secrets"], "one folder name"),
        (["study=quickstart", "incomplete=maybe", "layout=wide"], "incomplete='maybe'.*layout='wide'"),
    ],
)
def test_wrong_commands_end_with_one_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tables.main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(words, error) and "Keys: study, root" in error and "Traceback" not in error


def test_an_incomplete_study_ends_with_code_2(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next((study / "quickstart").glob("rte-kd-*"))
    (path / "result.json").unlink()
    (path / "status.json").write_text(json.dumps({"state": "interrupted"}))
    assert tables.main(["study=quickstart", f"root={study}", "source=folders"]) == 2
    assert f"{path.name}: interrupted" in capsys.readouterr().err
    assert tables.main(["study=quickstart", f"root={study}", "source=folders", "incomplete=allow", "figure=no"]) == 0
    assert tables.main(["--help"]) == 0


def test_intervals_stay_where_scores_can_be(tmp_path: Path) -> None:
    """Two seeds far apart: Student's interval goes beyond the scale, what is shown does not; the mean stays."""
    for seed, shift in ((0, 0.25), (1, -0.15)):
        for task in ("rte", "cola"):
            write_run(tmp_path, make_result("wide", task, "kd", "first", seed, shift=shift))
    table = build(collect("wide", tmp_path, "folders"))
    row = next(one for one in table.rows if one.kind == "method")
    ends = {column.metric: (cell.low, cell.high) for column, cell in zip(table.columns, row.cells, strict=True) if cell}
    assert ends["accuracy"] == (0.0, 100.0) and ends["mcc"] == (-100.0, 100.0)
    assert row.average and row.average.low >= -50 and row.average.high <= 100
    for metric, low in (("accuracy", 0.0), ("f1_macro", 0.0), ("roc_auc_ovr_weighted", 0.0), ("perplexity", -40.0)):
        cut = within(Estimate(55.0, -40.0, 150.0, 0.5, 2), [metric])
        assert (cut.low, cut.value) == (low, 55.0)
    assert math.isnan(within(Estimate(55.0, math.nan, math.nan, math.nan, 1), ["accuracy"]).low)
