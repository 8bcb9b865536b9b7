"""Claims: the shipped file is well-formed, and each kind gives the verdict that the planted effect demands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from analysis import claims, statements
from analysis.collect import collect
from tests.analysis.synthetic import make_result, write_points, write_run


def study(root: Path, results: list[dict[str, Any]], name: str = "s"):
    for result in results:
        write_run(root, result)
    write_points(root, name, results)
    return collect(name, root, "folders")


def cell(
    objective: str, init: str = "first", task: str = "rte", seeds: int = 4, **options: Any
) -> list[dict[str, Any]]:
    return [make_result("s", task, objective, init, seed, **options) for seed in range(seeds)]


def verdict(found, **claim: Any) -> claims.Verdict:
    base = {"id": "x", "paper": "p", "says": "s", "kind": "contrast", "tasks": "all"}
    return claims.evaluate(found, [{**base, **claim}])[0]


def test_the_shipped_claims_load() -> None:
    loaded = statements.load()
    assert len(loaded) >= 20
    assert {claim["kind"] for claim in loaded} == {"contrast", "chain", "gap"}


def test_a_planted_difference_is_supported_its_reverse_refuted(tmp_path: Path) -> None:
    found = study(tmp_path, cell("kd", "first") + cell("kd", "last"))
    sides = {"a": {"objective": "kd", "init": "first"}, "b": {"objective": "kd", "init": "last"}}
    good = verdict(found, **sides)
    assert (good.verdict, good.seeds, good.tasks) == ("supported", 4, ("rte",))
    assert good.effect == pytest.approx(4, abs=1) and good.low < good.effect < good.high and good.p < 0.05
    assert verdict(found, a=sides["b"], b=sides["a"]).verdict == "refuted"
    assert verdict(found, **sides, above=8).verdict == "refuted"  # 4 points are told from 8
    assert verdict(found, **sides, above=4).verdict == "undecided"
    assert verdict(found, **sides, metric="f1").effect == pytest.approx(good.effect)


def test_noise_one_seed_and_no_spread_are_undecided(tmp_path: Path) -> None:
    sides = {"a": {"objective": "kd", "init": "first"}, "b": {"objective": "kd", "init": "last"}}
    assert (
        verdict(study(tmp_path / "a", cell("kd", "first", noise=0.2) + cell("kd", "last", noise=0.2)), **sides).verdict
        == "undecided"
    )
    one = verdict(study(tmp_path / "b", cell("kd", "first", seeds=1) + cell("kd", "last", seeds=1)), **sides)
    assert (one.verdict, one.why) == ("undecided", "one seed")
    flat = verdict(study(tmp_path / "c", cell("kd", "first", noise=0) + cell("kd", "last", noise=0)), **sides)
    assert (flat.verdict, flat.why) == ("undecided", "no spread between seeds") and math.isnan(flat.p)


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    found = study(tmp_path, cell("kd"))
    one = verdict(found, a={"objective": "kd"}, b={"objective": ["att_kl", "att_mse"]})
    assert (one.verdict, one.why) == ("not run", "no runs with objective=att_kl|att_mse")
    assert verdict(found, a={"objective": "kd"}, b={"objective": "kd"}, tasks=["qnli"]).verdict == "not run"
    far = verdict(found, a={"objective": "ted"}, b={"objective": "lwd"})
    assert (far.verdict, far.why) == ("not run", "no runs of any side")
    notes = claims.notes([one, far])
    assert notes[-2].startswith("Not run here, one side is missing: `x` (no runs with objective=att_kl|att_mse)")
    assert notes[-1] == "Not run here: `x`."


def test_equal_starts_are_compared_only_with_each_other(tmp_path: Path) -> None:
    """att_kl has only the good start, kd both: without `within` kd would be blamed for its bad one."""
    found = study(tmp_path, cell("att_kl", "first", shift=-0.02) + cell("kd", "first") + cell("kd", "random"))
    unfair = verdict(found, a={"objective": "att_kl"}, b={"objective": "kd"})
    fair = verdict(found, a={"objective": "att_kl"}, b={"objective": "kd"}, within=["init"])
    assert unfair.effect == pytest.approx(3.5, abs=1) and fair.effect == pytest.approx(0, abs=1)


def test_a_chain_is_as_strong_as_its_weakest_step(tmp_path: Path) -> None:
    found = study(tmp_path, cell("kd") + cell("att_kl") + cell("ted", shift=0.1) + cell("lwd", noise=0.1, shift=0.02))
    good = verdict(found, kind="chain", of=[{"objective": "ted"}, {"objective": "att_kl"}, {"objective": "kd"}])
    assert good.verdict == "supported" and good.effect == pytest.approx(2, abs=1)
    assert (
        verdict(found, kind="chain", of=[{"objective": "ted"}, {"objective": "lwd"}, {"objective": "kd"}]).verdict
        == "undecided"
    )


def test_gap_is_a_difference_of_differences(tmp_path: Path) -> None:
    def sized(objective: str, student: str, shift: float) -> list[dict[str, Any]]:
        return cell(objective, shift=shift, labels__student=student, science__student={"name": student}, run__id=None)

    results = (
        sized("pro_kd", "l2", 0.08) + sized("kd", "l2", -0.02) + sized("pro_kd", "l6", 0.03) + sized("kd", "l6", -0.01)
    )
    for number, result in enumerate(results):
        result["run"]["id"] = f"{number:064x}"
    found = study(tmp_path, results)
    one = verdict(
        found,
        kind="gap",
        a={"objective": "pro_kd"},
        b={"objective": "kd"},
        large={"student": "l2"},
        small={"student": "l6"},
    )
    assert one.verdict == "supported" and one.effect == pytest.approx(6, abs=1)


def test_the_shipped_ted_claim_compares_equal_starts(tmp_path: Path) -> None:
    """TED, LWD and KD crossed with the start; the fine-tuned start is worth more than any method."""
    results = []
    for objective, gain in (("ted", 0.06), ("lwd", 0.03), ("kd", 0.0)):
        for start, head in (("raw", 0.0), ("fine_tuned", 0.1)):
            for seed in range(3):
                result = make_result("s", "rte", objective, "first", seed, shift=gain + head)
                result["scores"]["validation"]["accuracy"] -= 0.02 if objective == "kd" else 0.0  # level the objectives
                result["science"]["objective"]["start"] = start
                results.append(result)
    found = study(tmp_path, results)
    assert found.by == ("objective.start",)
    shipped = next(claim for claim in statements.load() if claim["id"] == "ted.over_lwd_over_kd")
    one = claims.evaluate(found, [shipped])[0]
    assert one.verdict == "supported" and one.effect == pytest.approx(3, abs=1)
    halves = [
        r for r in results if (r["labels"]["objective"], r["science"]["objective"]["start"]) != ("kd", "fine_tuned")
    ]
    write_points(tmp_path, "s", halves)
    published = claims.evaluate(collect("s", tmp_path, "folders"), [shipped])[0]
    assert published.effect == pytest.approx(3, abs=1.5)  # a lacking start does not tilt the comparison


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {id: x, kind: sum}", "kind 'sum' is not one of"),
        ("- {id: x, paper: p, says: s, kind: contrast, tasks: all, a: {}}", "lacks b"),
        ("- {id: x, paper: p, says: s, kind: chain, tasks: all, of: [], alpha: 1}", "unknown key alpha"),
        ("- {id: x, paper: p, says: s, kind: contrast, tasks: all, a: {objective: ted}, b: {}}", "say objective.name"),
        (
            "- {id: x, paper: p, says: s, kind: contrast, tasks: all, a: {objective.name: [kd, ted]}, b: {}}",
            "averages over a list of methods",
        ),
        ("- {id: x, paper: p, says: s, kind: contrast, tasks: all, a: {}, b: {}, margin: 1, above: 1}", "both above"),
        ("- {id: x, paper: p, says: s, kind: contrast, tasks: all, a: {}, b: {}, margin: -1}", "above 0 points"),
        ("- {id: x, paper: p, says: s, kind: contrast, tasks: all, a: {}, b: {}, control: y}", "control y is no claim"),
        ("- {id: x, for: {m: [1], n: [2]}}", "it takes one"),
        ("- &c {id: x, paper: p, says: s, kind: chain, tasks: all, of: []}\n- *c", "is there twice"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        statements.load(path)


def test_an_entry_for_several_methods_is_a_claim_each(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(
        "- {id: 'x.{m}', for: {m: [kd, ted]}, paper: p, says: 'is {m} good?', kind: contrast, tasks: all, "
        "a: {objective.name: '{m}'}, b: {init: first}, expect: {kd: 1}}"
    )
    kd, ted = statements.load(path)
    assert (kd["id"], kd["says"], kd["a"], kd["expect"]) == ("x.kd", "is kd good?", {"objective.name": "kd"}, 1)
    assert ted["a"] == {"objective.name": "ted"} and ted["expect"] == ""


def test_the_command_prints_and_corrects(study_on_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main(["study=quickstart", f"root={study_on_disk}", "source=folders"]) == 0
    out = capsys.readouterr().out
    assert "| **supported** |" in out and "howto.kd.first_over_last" in out and "Not run here:" in out
    verdicts = {one.id: one for one in claims.evaluate(collect("quickstart", study_on_disk, "folders"))}
    assert verdicts["distilling_helps"].verdict == "supported"
    assert verdicts["distilling_helps"].holm >= verdicts["distilling_helps"].p
    assert verdicts["ted.over_lwd_over_kd"].verdict == "not run"
    assert (study_on_disk / "quickstart" / "tables" / "claims.csv").is_file()


def test_another_split_is_judged_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = cell("kd", "first") + cell("finetune", "first") + cell("kd", "first", "cola")
    for result in results:
        scores = result["scores"]
        if result["labels"]["task"] == "rte":  # planted: the other way round there
            scores["validation_test"] = {"accuracy": 1.2 - scores["validation"]["accuracy"]}
    found = study(tmp_path, results)
    (here,) = (one for one in claims.evaluate(found) if one.id == "distilling_helps")
    (there,) = (one for one in claims.evaluate(found, split="validation_test") if one.id == "distilling_helps")
    assert (here.verdict, there.verdict) == ("supported", "refuted")
    assert there.effect == pytest.approx(-here.effect)
    words = ["study=s", f"root={tmp_path}", "source=folders"]
    assert claims.main([*words, "split=validation_test"]) == 0
    assert "### s: claims on validation_test" in capsys.readouterr().out
    assert (tmp_path / "s" / "tables" / "claims-validation_test.md").is_file()
    assert claims.main([*words, "split=test"]) == 2
    assert "split=test: the runs of s have no such scores; they have heldout, validation" in capsys.readouterr().err
