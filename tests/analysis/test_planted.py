"""Planted effects in results with the labels and settings that the program writes: every shipped kind of claim finds
them, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from analysis import claims, gate, statements
from analysis.collect import collect
from analysis.published.compare import compare
from tests.analysis.program import Program
from tests.analysis.synthetic import write_points, write_run

SHIPPED = {claim["id"]: claim for claim in statements.load()}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def cell(program: Program, value: float, *overrides: str, seeds: int = 5, noise: float = 0.3, **more: Any) -> None:
    """Runs of one setting around ``value`` (points) with seed noise; ``metric``: the metrics that get the score."""
    draw = random.Random(" ".join(overrides))
    metrics = more.pop("metrics", ("accuracy",))
    for seed in range(1, seeds + 1):
        score = (value + draw.gauss(0, noise)) / 100
        program.run(*overrides, seed=seed, scores=dict.fromkeys(metrics, score), **more)


def collected(program: Program):
    for result in program.results:
        write_run(program.root, result)
    write_points(program.root, program.study, program.results)
    return collect(program.study, program.root, "folders")


def verdicts(program: Program, *ids: str) -> dict[str, claims.Verdict]:
    found = collected(program)
    return {one.id: one for one in claims.evaluate(found, [SHIPPED[name] for name in ids] if ids else None)}


def test_ted_is_found_from_the_start_that_was_published(tmp_path: Path) -> None:
    """Labels are ted_ft, kd_ft ... for a fine-tuned start: TED gains 8 points there and loses 5 from the raw start."""
    program = Program(tmp_path, "ted_glue")
    gain = {"ted": {"raw": -5.0, "fine_tuned": 8.0}, "lwd": {"raw": 0.0, "fine_tuned": 0.0}}
    for method in ("finetune", "kd", "lwd", "ted"):
        for start, level in (("raw", 70.0), ("fine_tuned", 73.0)):
            value = level + gain.get(method, {}).get(start, 0.0)
            cell(program, value, "task=sst2", f"objective={method}", f"objective.start={start}", seeds=3)
    assert {"ted", "ted_ft", "kd_ft", "finetune_ft"} <= {one["labels"]["objective"] for one in program.results}
    found = verdicts(program)
    published = found["ted.as_published"]
    assert (published.verdict, published.primary) == ("supported", True)
    assert published.effect == pytest.approx(11, abs=0.6)  # 8 of TED and 3 of the start
    assert found["ted.fine_tuned_over_finetune"].effect == pytest.approx(8, abs=0.6)
    crossed = found["ted.over_finetune"]
    assert crossed.effect == pytest.approx(1.5, abs=0.6) and crossed.verdict != "refuted"
    chain = found["ted.over_lwd_over_kd"]
    assert chain.effect == pytest.approx(0, abs=0.6) and chain.verdict in ("undecided", "negligible")
    lines, _ = compare(collect("ted_glue", tmp_path, "folders"))
    ours = {line.row: line.ours for line in lines if line.task == "SST-2"}
    assert ours["TED / DeBERTaV3-xsmall (12L,384)"] == pytest.approx(81, abs=0.6)
    assert ours["Fine-tune (no KD) / DeBERTaV3-xsmall (12L,384)"] == pytest.approx(70, abs=0.6)


def test_a_claim_about_qnli_runs_on_its_partial_set_and_says_so(program: Program) -> None:
    program.partial("qnli")
    cell(program, 80, "task=qnli", "init=first")
    cell(program, 70, "task=qnli", "init=spread")
    found = verdicts(program, "howto.kd.first_over_spread.qnli", "howto.kd.first_over_spread.all")
    for one in found.values():
        assert (one.verdict, one.said, one.tasks) == ("supported", "supported (partial)", ("qnli_partial",))
    assert "**supported (partial)**" in claims.markdown(list(found.values()), "s")
    whole = Program(program.root, "whole")
    cell(whole, 80, "task=rte", "init=first", rows=277)
    cell(whole, 70, "task=rte", "init=spread", rows=277)
    assert verdicts(whole, "howto.kd.first_over_spread.all")["howto.kd.first_over_spread.all"].said == "supported"
    assert verdicts(whole, "howto.kd.first_over_spread.qnli")["howto.kd.first_over_spread.qnli"].verdict == "not run"


def test_what_a_stage_on_raw_text_gives_is_found_from_its_start(tmp_path: Path) -> None:
    """From random weights the stage gains 6 points, from the lowest layers it costs 4; hid_seq is 3 below att_mse."""
    program, agnostic = Program(tmp_path, "agnostic_init"), ("task=sst2", "objective=finetune", "init=agnostic")
    for method, start, value in (
        ("att_mse", "random", 76), ("hid_seq", "random", 73), ("att_mse", "first", 74), ("hid_seq", "first", 74),
    ):  # fmt: skip
        chosen = (f"objective@init.objective=agnostic_{method}", f"init@init.start={start}")
        cell(program, value, *agnostic, *chosen)
    cell(program, 70, "task=sst2", "objective=finetune", "init=random")
    cell(program, 78, "task=sst2", "objective=finetune", "init=first")
    found = verdicts(program)
    wanted = {
        "agnostic.stage_helps.random": ("supported", 6),
        "agnostic.stage_helps.first": ("refuted", -4),
        "agnostic.att_mse_over_hid_seq.random": ("supported", 3),
        "agnostic.first_over_random.att_mse": ("refuted", -2),
        "agnostic.first_over_random.hid_seq": ("supported", 1),
    }
    for name, (verdict, effect) in wanted.items():
        assert found[name].verdict == verdict and found[name].effect == pytest.approx(effect, abs=0.6), name
    assert {one.id for one in found.values() if one.primary} == set(list(wanted)[:4])
    assert found["agnostic.att_mse_over_mlm.random"].verdict == "not run"


def test_steadier_is_a_signed_difference_of_differences_of_one_method(program: Program) -> None:
    """The start gains KD 6 points, Att-KL 1 and Att-MSE 9: one is steadier, the other is not."""
    for method, low, high in (("kd", 70, 76), ("att_kl", 72, 73), ("att_mse", 70, 79)):
        cell(program, low, "task=sst2", f"objective={method}", "init=spread")
        cell(program, high, "task=sst2", f"objective={method}", "init=first")
    found = verdicts(program, "howto.att_kl_steadier_than_kd", "howto.att_mse_steadier_than_kd")
    kl, mse = found["howto.att_kl_steadier_than_kd"], found["howto.att_mse_steadier_than_kd"]
    assert kl.verdict == "supported" and kl.effect == pytest.approx(5, abs=0.7)
    assert mse.verdict == "refuted" and mse.effect == pytest.approx(-3, abs=0.7)


def test_methods_are_not_averaged_before_the_test(program: Program) -> None:
    """Att-KL 6 above KD and Att-MSE 6 below: their mean would say nothing of either."""
    for method, value in (("kd", 72), ("att_kl", 78), ("att_mse", 66)):
        cell(program, value, "task=sst2", f"objective={method}", "init=spread")
    found = verdicts(program, "howto.att_kl_over_kd.spread", "howto.att_mse_over_kd.spread")
    assert [one.verdict for one in found.values()] == ["supported", "refuted"]


@pytest.mark.parametrize(("kd", "said"), [(71.7, "supported"), (69.0, "refuted"), (71.0, "undecided")])
def test_at_least_as_good_is_not_worse_by_the_margin(program: Program, kd: float, said: str) -> None:
    cell(program, kd, "task=sst2", "objective=kd", "init=first")
    cell(program, 72, "task=sst2", "objective=att_kl", "init=first")
    one = verdicts(program, "howto.kd_as_good_as_att_kl.first")["howto.kd_as_good_as_att_kl.first"]
    assert (one.verdict, one.above) == (said, -1.0)
    assert "howto.kd_as_good_as_att_kl.first above -1" in claims.markdown([one], "s")


def test_accuracy_is_compared_where_the_paper_prints_it(program: Program) -> None:
    """MRPC's own metric is F1 here; the planted difference is in accuracy only, or in F1 only."""
    assert SHIPPED["pkd.skip_over_last"]["metric"] == "accuracy"
    for mapping, accuracy, f1 in (("skip", 80, 85), ("last", 75, 85)):
        draw = random.Random(mapping)
        for seed in range(1, 6):
            noise = draw.gauss(0, 0.003)
            scores = {"accuracy": accuracy / 100 + noise, "f1": f1 / 100 + noise}
            program.run("task=mrpc", "objective=pkd", f"mapping={mapping}", seed=seed, scores=scores, majority=0.684)
    assert {one["task"]["metric"] for one in program.results} == {"f1"}
    one = verdicts(program, "pkd.skip_over_last")["pkd.skip_over_last"]
    assert one.verdict == "supported" and one.effect == pytest.approx(5, abs=0.5)


def test_a_metric_that_a_task_does_not_have_is_said(program: Program) -> None:
    for mapping in ("skip", "last"):
        cell(program, 80, "task=stsb", "objective=pkd", f"mapping={mapping}", metrics=("pearson",), majority=0.0)
    one = verdicts(program, "pkd.skip_over_last")["pkd.skip_over_last"]
    assert one.dropped == ("stsb: accuracy was not recorded",) and one.why == "no task counts"


def test_tasks_without_signal_fall_out_and_are_named(program: Program) -> None:
    """RTE: a teacher 3 points above the majority, students that always answer the same; alone they would refute."""
    for objective, sst2, rte in (("kd", 80, 50), ("finetune", 76, 52.7)):
        cell(program, sst2, "task=sst2", f"objective={objective}", rows=872)
        cell(program, rte, "task=rte", f"objective={objective}", noise=0, rows=277, majority=0.527, teacher=0.556)
    one = verdicts(program, "distilling_helps")["distilling_helps"]
    assert (one.verdict, one.tasks) == ("supported", ("sst2",)) and one.effect == pytest.approx(4, abs=0.6)
    assert one.dropped == ("rte: its teacher is +2.9 points from the majority answer, 10 are needed",)
    text = claims.markdown([one], "s")
    assert "Counts in no claim: rte: its teacher is +2.9 points" in text


def test_a_good_teacher_is_not_enough(program: Program) -> None:
    cell(program, 53.5, "task=rte", "objective=kd", rows=277, majority=0.527, teacher=0.7)
    cell(program, 52.0, "task=rte", "objective=finetune", rows=277, majority=0.527, teacher=0.7)
    found = gate.signals(collected(program))["rte"]
    assert found.error == pytest.approx(100 * (0.527 * 0.473 / 277) ** 0.5)
    assert found.why().startswith("its best arm is +") and "6.0 are needed" in found.why()
    one = verdicts(program, "distilling_helps")["distilling_helps"]
    assert (one.verdict, one.why, one.tasks) == ("undecided", "no task counts", ())


def test_tags_are_judged_by_entities_and_not_by_the_words_that_are_none(program: Program) -> None:
    """A teacher that finds nearly all entities is 2.9 points more accurate than one that finds none."""
    for seed in (1, 2, 3):
        for objective, f1 in (("kd", 0.90 + 0.004 * (seed % 2)), ("finetune", 0.84 + seed / 1000)):
            found = {"f1": f1, "precision": f1, "recall": f1, "accuracy": 0.985}
            result = program.run("task=tokens", f"objective={objective}", seed=seed, scores=found, rows=565)
            result["task"]["majority"] = {"validation": {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.964}}
            result["teacher"]["scores"] = {"validation": {**found, "f1": 0.94, "accuracy": 0.993}}
    signal = gate.signals(collected(program))["tokens"]
    assert (signal.metric, signal.majority) == ("f1", 0.0) and signal.teacher == pytest.approx(94)
    assert not signal.why()
    one = verdicts(program, "distilling_helps")["distilling_helps"]
    assert (one.verdict, one.tasks) == ("supported", ("tokens",)) and one.effect == pytest.approx(6, abs=0.2)


def test_the_better_of_two_arms_does_not_open_the_gate_alone(program: Program) -> None:
    """KD is 8 points above the majority and fine-tuning 2, of 6.0 that are needed; a third arm above opens it."""
    for objective, value in (("kd", 60.7), ("finetune", 54.7)):
        cell(program, value, "task=rte", f"objective={objective}", rows=277, majority=0.527)
    one = verdicts(program, "distilling_helps")["distilling_helps"]
    assert one.why == "no task counts" and not gate.signals(collected(program))["rte"].why()
    cell(program, 62.0, "task=rte", "objective=att_kl", rows=277, majority=0.527)
    assert verdicts(program, "distilling_helps")["distilling_helps"].verdict == "supported"


def test_a_control_that_does_not_agree_takes_its_claims_back(tmp_path: Path) -> None:
    for name, annealing, said in (("agrees", 74.2, "supported"), ("differs", 78.0, "undecided")):
        program = Program(tmp_path / name, "pro_kd_glue")
        for objective, value in (("pro_kd", 79), ("pro_kd_final", 74), ("kd", 74), ("annealing", annealing)):
            cell(program, value, "task=sst2", f"objective={objective}")
        one = verdicts(program)["pro_kd.over_kd"]
        assert one.verdict == said and one.effect == pytest.approx(5, abs=0.6), name
    assert one.why.startswith("its control pro_kd.control does not agree (-4.")
    alone = Program(tmp_path / "alone", "pro_kd_glue")
    for objective in ("pro_kd", "kd"):
        cell(alone, 74, "task=sst2", f"objective={objective}")
    assert verdicts(alone)["pro_kd.over_kd"].why == "its control pro_kd.control was not run"


def test_primary_claims_are_corrected_over_exactly_these(tmp_path: Path) -> None:
    """pkd_glue states three; that 50 other claims are in the file changes nothing."""
    program = Program(tmp_path, "pkd_glue")
    for objective, value in (("kd", 76.0), ("finetune", 75.5)):
        cell(program, value, "task=sst2", f"objective={objective}")
    for mapping, value in (("skip", 76.5), ("last", 76.2)):
        cell(program, value, "task=sst2", "objective=pkd", f"mapping={mapping}")
    found = verdicts(program)
    primary = {name: one for name, one in found.items() if one.primary}
    assert set(primary) == {"pkd.over_kd", "pkd.skip_over_last", "distilling_helps"}
    smallest = min(primary.values(), key=lambda one: one.p)
    assert smallest.holm == pytest.approx(3 * smallest.p)
    rest = [one for name, one in found.items() if name not in primary and one.verdict != "not run"]
    assert all(one.holm != one.holm for one in rest)
    text = claims.markdown(list(found.values()), "pkd_glue")
    assert "Primary: the 3 claims" in text and "| primary |" in text
    smaller = claims.evaluate(collect("pkd_glue", tmp_path, "folders"), [SHIPPED["pkd.over_kd"]])[0]
    assert smaller.holm >= found["pkd.over_kd"].p * 3 * 0.999  # one of a family of three, however many are printed


def test_the_error_is_that_of_the_whole_study(program: Program) -> None:
    """Two arms of 3 seeds alone decide nothing about a point; with six others that vary alike they do."""
    for value, objective in ((75.0, "kd"), (74.0, "finetune")):
        cell(program, value, "task=sst2", f"objective={objective}", noise=0.3, seeds=3)
    alone = verdicts(program, "distilling_helps")["distilling_helps"]
    for number in range(6):
        cell(program, 74, "task=sst2", "objective=att_kl", f"init={('first', 'last', 'spread')[number % 3]}",
             f"mapping={('uniform', 'last')[number // 3]}", noise=0.3, seeds=3)  # fmt: skip
    pooled = verdicts(program, "distilling_helps")["distilling_helps"]
    assert pooled.effect == pytest.approx(alone.effect)
    assert pooled.high - pooled.low < 0.7 * (alone.high - alone.low) and pooled.sees < 0.7 * alone.sees
    assert pooled.verdict == "supported"


def test_two_seeds_give_no_verdict_and_a_small_effect_is_negligible(tmp_path: Path) -> None:
    two, five = Program(tmp_path / "two"), Program(tmp_path / "five")
    for program, seeds in ((two, 2), (five, 5)):
        cell(program, 75.2, "task=sst2", "objective=kd", seeds=seeds)
        cell(program, 75.0, "task=sst2", "objective=finetune", seeds=seeds)
    one = verdicts(two, "distilling_helps")["distilling_helps"]
    assert (one.verdict, one.why) == ("undecided", "2 seeds; a verdict needs 3")
    one = verdicts(five, "distilling_helps")["distilling_helps"]
    assert (one.verdict, one.delta) == ("negligible", 1.0)
    assert "inside ± 1 points" in claims.markdown([one], "s")
