"""Figures: each is drawn from a synthetic study, is well-formed vector output, says its numbers as text, and is
reproducible."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis import curves, figures
from analysis.collect import collect
from analysis.grid import Cell, Column, Grid, Row, build
from tests.analysis.synthetic import grid, make_result, write_mlflow, write_points, write_run


def texts(path: Path) -> str:
    return " ".join(
        "".join(node.itertext()) for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    )


def test_heat_map_writes_its_numbers(study: Path, tmp_path: Path) -> None:
    found = build(collect("quickstart", study, "folders"))
    svg, png = figures.save(figures.heat_map(found), tmp_path / "h")
    words = texts(svg)
    for row in found.rows[2:]:
        assert f"{row.average.mean:.1f}" in words
    assert "average" in words and "att_kl" in words
    again, _ = figures.save(figures.heat_map(found), tmp_path / "again")
    assert svg.read_bytes() == again.read_bytes() and png.stat().st_size > 1000


def test_one_task_needs_no_panel_of_averages(tmp_path: Path) -> None:
    """A further split of it is not averaged, so its scores are the averages."""
    columns = [Column("t", "validation", "accuracy", True), Column("t", "validation_more", "accuracy", False)]
    rows = [Row("method", ("kd", init), [], [Cell(50.0, 1.0, 3)] * 2, Cell(50.0, 1.0, 3)) for init in ("a", "b")]
    drawn = figures.heat_map(Grid("g", ("objective", "init"), columns, rows, []))
    words = texts(figures.save(drawn, tmp_path / "h")[0])
    assert "t more (accuracy)" in words and "average" not in words


@pytest.mark.parametrize("draw", [figures.dots, figures.critical_difference])
def test_effect_and_ranks(draw, study: Path, tmp_path: Path) -> None:
    figure = draw(build(collect("quickstart", study, "folders")))
    assert "finetune" in texts(figures.save(figure, tmp_path / "f")[0])


def test_ranks_need_three_rows_and_two_tasks(tmp_path: Path) -> None:
    results = [make_result("quickstart", "rte", o, "first", s) for o in ("kd", "finetune", "att_kl") for s in (0, 1)]
    for result in results:
        write_run(tmp_path, result)
    write_points(tmp_path, "quickstart", results)
    assert figures.critical_difference(build(collect("quickstart", tmp_path, "folders"))) is None


def test_ranks_that_cannot_tell_anything_are_left_out() -> None:
    """Nemenyi's difference against the largest one of mean ranks: 2 tasks never tell, 3 tell 3 rows apart."""

    def made(rows: int, tasks: int) -> Grid:
        columns = [Column(f"t{index}", "validation", "accuracy", True) for index in range(tasks)]
        cells = [Cell(50.0, 1.0, 3)] * tasks
        measured = [Row("method", ("kd", f"i{index}"), [], cells, Cell(50.0, 1.0, 3)) for index in range(rows)]
        return Grid("g", ("objective", "init"), columns, measured, [])

    for rows in (3, 9, 40):
        assert f"differ by {rows - 1} at the most" in figures.silent_ranks(made(rows, 2))
    assert figures.silent_ranks(made(3, 3)) == "" and "need 3 rows" in figures.silent_ranks(made(2, 5))
    assert "starts from i0" in figures.one_start(made(1, 2)) and figures.one_start(made(3, 2)) == ""


def test_pareto_needs_costs_that_differ(tmp_path: Path) -> None:
    results = [r for r in grid() if r["labels"]["init"] == "first"]
    for result in results:
        factor = {"finetune": 1, "kd": 2, "att_kl": 3}[result["labels"]["objective"]]
        result["student"]["size_bytes"] = factor * 10_000_000
        write_run(tmp_path, result)
    write_points(tmp_path, "quickstart", results)
    found = build(collect("quickstart", tmp_path, "folders"), layout="methods")
    figure = figures.pareto(found, "size (MB)")
    assert "att_kl / first" in texts(figures.save(figure, tmp_path / "p")[0])
    assert figures.pareto(found, "parameters (M)") is None and figures.pareto(found, "no such cost") is None


def test_curves_read_stages_on_one_axis_and_survive_a_torn_line(study: Path, tmp_path: Path) -> None:
    found = collect("quickstart", study, "folders")
    path = next((study / "quickstart").glob("rte-kd-first-s0-*/metrics.jsonl"))
    path.write_text(
        path.read_text()
        + '{"t": 4, "stage": "finetune", "epoch": 1, "step": 50, "values": {"selection/accuracy": 0.7}}\n{"t": 5, "sta'
    )
    rows = curves.read(path)
    assert rows[-1] == ("finetune", 1, 350, "selection/accuracy", 0.7)
    lines = path.read_text().splitlines()
    noise = '{"t": 0, "stage": "system", "epoch": 0, "step": 9000, "values": {"cpu": 99.9}}'
    teacher = '{"t": 0, "stage": "teacher", "epoch": 1, "step": 700, "values": {"selection/accuracy": 0.9}}'
    path.write_text("\n".join([teacher, *(one for line in lines for one in (line, noise))]))
    assert curves.read(path) == rows  # the machine's load and the teacher's history move nothing
    history = curves.histories(found)
    assert set(history["run"]) == set(found.runs["run"])
    for name, draw in (("learning", curves.learning_curves), ("matching", curves.matching_losses)):
        figure = draw(found, history)
        assert "rte" in texts(figures.save(figure, tmp_path / name)[0])
    assert curves.learning_curves(found, history[history["key"] == "train/loss"]) is None
    assert curves.matching_losses(found, history[history["key"] == "train/loss"]) is None


def test_a_method_has_one_colour_in_all_figures_of_a_study(study: Path) -> None:
    found = collect("quickstart", study, "folders")
    history = curves.histories(found)

    def drawn(figure) -> dict[str, str]:
        out = {}
        for axis in figure.axes:
            for line, label in zip(*axis.get_legend_handles_labels(), strict=True):
                out[label] = line.get_color() if hasattr(line, "get_color") else line.lines[0].get_color()
        return out

    effect = drawn(figures.dots(build(found)))
    assert len(set(effect.values())) == len(effect) == found.runs["objective"].nunique()
    found.runs = found.runs.iloc[::-1]
    assert drawn(curves.learning_curves(found, history.iloc[::-1])) == effect


def test_curves_come_from_mlflow_where_the_files_are_gone(tmp_path: Path) -> None:
    import mlflow

    results = [make_result("quickstart", "rte", "att_kl", "first", seed) for seed in (0, 1)]
    uri = write_mlflow(tmp_path, "quickstart", results)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("quickstart").experiment_id
    for run in client.search_runs([experiment], "tags.`kdexp.kind` = 'run'"):
        for step in (100, 200):
            client.log_metric(run.info.run_id, "distill.prediction/selection/accuracy", 0.6 + step / 1e4, step=step)
            client.log_metric(run.info.run_id, "teacher/selection/accuracy", 0.9, step=step)
    found = collect("quickstart", tmp_path, incomplete="allow")
    history = curves.histories(found)
    assert sorted(history["value"]) == [0.61, 0.61, 0.62, 0.62] and set(history["key"]) == {"selection/accuracy"}
    assert curves.learning_curves(found, history) is not None
