"""Races, started as a person starts them: real processes, really killed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

RACE = "+experiment=race"
MOST = 2 * (4 + 2 + 2)


def record(shell: Any) -> dict[str, Any]:
    return json.loads((shell.where / "multirun/race/race.json").read_text())


def names(shell: Any) -> list[str]:
    return [name for name, _, _ in shell.executions()]


def test_the_best_recipe_of_each_size_is_chosen_and_nothing_is_run_for_nothing(shell: Any) -> None:
    code, out, err = shell.run(RACE)
    assert code == 0, err
    assert len(names(shell)) == len(set(names(shell))) == MOST
    assert sum("s3" in name for name in names(shell)) == 4, "two recipes of each size see the last seed"
    chosen = {one["size"]: one for one in record(shell)["chosen"]}
    assert set(chosen) == {"small", "tiny"}
    for one in chosen.values():
        won = shell.result("race", one["run"])["best"]["scores"]["accuracy"]
        every = [shell.result("race", name)["best"]["scores"]["accuracy"] for name in one["runs"]]
        assert won == max(every) and one["seeds"] == 3 and one["score"] == pytest.approx(sum(every) / 3)
        assert "-s3-" in one["run"], "the best seed of the stand-in is the last"
    assert "left behind after 1 seed" in out and "chosen" in out
    points = json.loads((shell.where / "multirun/race/study.json").read_text())["points"]
    assert len(points) == MOST, "no table waits for runs that nobody wants"
    code, out, err = shell.run(RACE)
    assert code == 0 and len(names(shell)) == MOST, err


def test_the_smallest_size_that_is_good_enough_is_recommended(shell: Any) -> None:
    shell.run(RACE, "seed=1")
    said = {one["size"]: (one["parameters"], one["score"], one["recommended"]) for one in record(shell)["chosen"]}
    small, tiny = sorted(said, key=lambda size: -said[size][0])
    assert said[small][1] > said[tiny][1] and said[small][2] and not said[tiny][2]
    code, out, _ = shell.run(RACE, "seed=1", "hydra.sweeper.tolerance=0.5")
    said = {one["size"]: one["recommended"] for one in record(shell)["chosen"]}
    assert code == 0 and said == {small: False, tiny: True} and f"{tiny} is the smallest within 50 points" in out


def test_a_spent_budget_ends_it_and_a_larger_one_goes_on(shell: Any) -> None:
    code, out, err = shell.run(RACE, "hydra.launcher.slots=1", "budget=5s", STUB_SECONDS="0.8")
    assert code == 0, err
    first = len(names(shell))
    assert 1 <= first < MOST and "budget of 5 s is spent" in out and record(shell)["chosen"]
    spent = record(shell)["spent_s"]
    code, out, err = shell.run(RACE, "hydra.launcher.slots=1", "budget=5s", STUB_SECONDS="0.8")
    assert code == 0 and len(names(shell)) == first, "it counts over all sittings"
    code, out, err = shell.run(RACE, "budget=10m")
    assert code == 0 and len(names(shell)) == MOST and record(shell)["spent_s"] > spent, err


def test_a_killed_race_comes_to_the_same_end(shell: Any, until: Callable[..., None]) -> None:
    process = shell.start(RACE, STUB_SECONDS="0.3")
    until(lambda: len(names(shell)) >= 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, _, err = shell.run(RACE)
    assert code == 0, err
    killed, ran = record(shell)["chosen"], set(names(shell))
    assert len(ran) == MOST and max(Counter(names(shell)).values()) <= 2
    assert len(killed) == 2 and {one["seeds"] for one in killed} == {3}
    for one in killed:  # the stand-in is best at temperature 4: 0.8, and a thousandth a seed, a hundredth a layer
        assert one["score"] == pytest.approx(0.802 + one["parameters"] / 100_000)


def test_a_failed_run_takes_its_recipe_out_and_is_no_success(shell: Any) -> None:
    code, out, _ = shell.run(RACE, "student=small", STUB_FAIL="-s3-")
    assert code == 1 and "Nothing can be chosen" in out and record(shell)["failed"] == 2
    code, out, err = shell.run(RACE, "student=small")
    assert code == 0 and record(shell)["failed"] == 0 and len(record(shell)["chosen"]) == 1, err


def test_a_damaged_record_is_named_and_made_again(shell: Any) -> None:
    shell.run(RACE, "student=small")
    before, (one,) = len(names(shell)), record(shell)["chosen"]
    note = shell.where / "multirun/race/race.json"
    note.write_text(note.read_text().replace("spent_s", "spent_t"))
    code, _, err = shell.run(RACE, "student=small")
    assert code == 0 and "Traceback" not in err, err
    assert "race.json is damaged" in err and "counts as none" in err
    assert len(names(shell)) == before and record(shell)["chosen"] == [one]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget=60"], "budget=60: a time with its unit is wanted"),
        (["budget=0m"], "budget=0m: a time"),
        (["budget=1m,2m"], "budget belongs to the whole study"),
        (["selection=validation"], "a race decides on rows that are reported nowhere"),
        (["task=alpha,beta"], "a race is about one task"),
        (["hydra.sweeper.tolerance=-0.1"], "a share from 0 on is wanted"),
        (["hydra.sweeper.deliver={forms: []}"], "hydra.sweeper.deliver={'forms': []}"),
        (["hydra.sweeper.exclude=[{where: {init: first}, reason: x}]"], "everything is excluded"),
    ],
)
def test_what_cannot_be_raced_is_refused_before_anything_runs(shell: Any, words: list[str], said: str) -> None:
    code, _, err = shell.run(RACE, *words)
    assert code == 2 and said in err and "Traceback" not in err, err
    assert not (shell.where / "multirun").exists() and not names(shell)


@pytest.mark.parametrize("form", ["grid", "search"])
def test_a_budget_is_refused_where_nobody_keeps_it(shell: Any, form: str) -> None:
    code, _, err = shell.run(f"+experiment={form}", "budget=5m")
    assert code == 2 and "budget=5m has no effect" in err and not names(shell)


def test_looking_runs_nothing(shell: Any) -> None:
    code, out, err = shell.run(RACE, "dry=true", "budget=60m")
    assert code == 0 and not names(shell) and not (shell.where / "multirun/race/race.json").exists(), err
    assert "4 recipes of small, 4 recipes of tiny; about 16 of 24 runs until it is decided, 60 min at the most" in out
