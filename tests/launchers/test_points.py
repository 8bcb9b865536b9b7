"""The structured grid: products, paired lists, unions, forms by scale. Nothing here composes."""

from __future__ import annotations

import pytest

from kdexp.sweep.grammar import choose_form, expand, values


def texts(form: dict, command: dict | None = None) -> list[list[str]]:
    return [list(c.assignment.values()) for c in expand(form, command or {})]


def test_product_in_written_order() -> None:
    assert texts({"params": {"a": "x,y", "seed": [1, 2]}}) == [
        ["a=x", "seed=1"], ["a=x", "seed=2"], ["a=y", "seed=1"], ["a=y", "seed=2"],
    ]  # fmt: skip


def test_zip_pairs_and_multiplies() -> None:
    form = {"zip": [{"task": ["rte", "qnli"], "recipe.epochs": [10, 3]}], "params": {"seed": "1,2"}}
    assert texts(form) == [
        ["task=rte", "recipe.epochs=10", "seed=1"], ["task=rte", "recipe.epochs=10", "seed=2"],
        ["task=qnli", "recipe.epochs=3", "seed=1"], ["task=qnli", "recipe.epochs=3", "seed=2"],
    ]  # fmt: skip


def test_zip_of_unequal_lists_says_both_lengths() -> None:
    with pytest.raises(ValueError, match="a has 2, b has 3"):
        expand({"zip": [{"a": [1, 2], "b": [1, 2, 3]}]}, {})


def test_union_is_multiplied_by_what_is_above_and_inner_values_win() -> None:
    form = {"params": {"seed": [1, 2]}, "union": [{"params": {"a": "x"}}, {"params": {"a": "y", "seed": 9}}]}
    found = [set(point) for point in texts(form)]
    assert found == [{"seed=1", "a=x"}, {"seed=2", "a=x"}, {"seed=9", "a=y"}]


def test_nested_unions_and_their_exclusions() -> None:
    rule = {"where": {"a": "x"}, "reason": "no"}
    inner = {"union": [{"params": {"a": "y"}}, {"params": {"b": 1}}]}
    form = {"union": [{"params": {"a": "x"}, "exclude": [rule]}, inner]}
    found = expand(form, {})
    assert [list(c.assignment.values()) for c in found] == [["a=x"], ["a=y"], ["b=1"]]
    assert [len(c.exclusions) for c in found] == [1, 0, 0]


def test_the_command_line_wins_everywhere() -> None:
    pairs = {"task": ["a", "b"], "epochs": [1, 2]}
    form = {"params": {"seed": [1, 2]}, "zip": [pairs], "union": [{"params": {"seed": 3}}]}
    assert texts(form, {"seed": ["seed=5"], "task": ["task=c"]}) == [
        ["seed=5", "task=c", "epochs=1"], ["seed=5", "task=c", "epochs=2"],
    ]  # fmt: skip


def test_a_value_of_the_form_chooses_its_points_with_all_beside_them() -> None:
    form = {"zip": [{"task": ["a", "b"], "epochs": [1, 2]}], "params": {"seed": [1, 2]}}
    assert texts(form, {"task": ["task=b"]}) == [["task=b", "epochs=2", "seed=1"], ["task=b", "epochs=2", "seed=2"]]
    form = {"union": [{"params": {"o": "kd,ft"}}, {"params": {"o": "hid"}, "set": {"e": 1}}]}
    assert texts(form, {"o": ["o=kd", "o=hid"]}) == [["o=kd"], ["o=hid", "e=1"]]
    assert texts(form, {"o": ["o=new"]}) == [["o=new"], ["o=new", "e=1"]]
    form = {"union": [{"params": {"o": "kd"}}, {"params": {"p": "1"}}]}
    assert texts(form, {"o": ["o=kd"]}) == [["o=kd"], ["o=kd", "p=1"]]


def test_set_takes_lists_and_texts_as_they_are() -> None:
    assert texts({"set": {"init.layers": [1, 8, 12], "name": "a,b"}}) == [["init.layers=[1,8,12]", "name='a,b'"]]


def test_params_of_lists() -> None:
    assert values("init.layers", [[1, 8], [4, 12]]) == ["init.layers=[1,8]", "init.layers=[4,12]"]
    assert values("x", "range(1,4)") == ["x=1", "x=2", "x=3"]
    assert values("x", [None, True, 0.5]) == ["x=null", "x=true", "x=0.5"]


def test_intervals_and_unreadable_values_are_refused() -> None:
    with pytest.raises(ValueError, match="sweeper=optuna"):
        values("x", "interval(0,1)")
    with pytest.raises(ValueError, match="cannot be read"):
        values("x", "[1,2")
    with pytest.raises(ValueError, match="empty list"):
        values("x", [])


def test_a_key_in_two_places_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is set in two places"):
        expand({"params": {"seed": 1}, "set": {"seed": 2}}, {})


def test_scale_lays_a_form_over_the_base() -> None:
    form = {
        "params": {"a": "x,y", "b": 1}, "zip": [{"c": [1, 2]}], "set": {"e": 3}, "union": None, "exclude": None,
        "scales": {"desk": {"params": {"a": "x", "b": None}, "zip": [], "set": {"e": 1}}},
    }  # fmt: skip
    assert texts(choose_form(form, "full"))[0] == ["e=3", "c=1", "a=x", "b=1"]
    assert texts(choose_form(form, "desk")) == [["e=1", "a=x"]]


def test_an_unknown_scale_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="it knows full, desk"):
        choose_form({"params": {}, "scales": {"desk": {}}}, "dsk")


@pytest.mark.parametrize("form", [{"param": {}}, {"scales": {"desk": {"parms": {}}}}])
def test_misspelt_keys_are_refused(form: dict) -> None:
    with pytest.raises(ValueError, match="Did you mean params"):
        choose_form(form, "desk")
