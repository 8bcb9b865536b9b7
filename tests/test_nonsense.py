"""Values without meaning: every one is refused by name, before anything is loaded. The table is made from the shipped
configuration, so that a new key is tried as soon as it is there."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from kdexp.check import combinations, settings
from kdexp.common.registry import target
from kdexp.config.resolve import resolve
from kdexp.objectives import layer_maps
from kdexp.run import spec

NUMBERS = [math.nan, math.inf, -math.inf, 1e30, 2**70]
NEVER = [*NUMBERS, {"a": 1}, [[]], -1.5]
"""What no key takes."""
VARIANTS = {
    "tinybert": ["objective=tinybert", "init=layers_1_4_6", "mapping=explicit", "mapping.pairs=[[1,2],[2,4],[3,6]]"],
    "contrast": ["objective=hid_cls_contrast", "mapping=last_only"],
    "relations": ["objective=minilm_v2", "init=random"],
    "values": ["objective=att_kl_val_kl"],
    "patience": ["objective=pkd"],
    "dpk": ["objective=dpk"],
    "review": ["objective=review"],
    "ted": ["objective=ted"],
    "pro_kd": ["objective=pro_kd"],
    "lgtm": ["objective=lgtm"],
    "ernie_tiny": ["objective=ernie_tiny"],
    "clkd": ["objective=clkd"],
    "continuation": ["objective=continuation"],
    "annealing": ["objective=annealing"],
    "ptp": ["objective=finetune", "init=ptp"],
    "glue": ["task=stsb"],
}

Plain = dict[str, Any]
Make = Callable[..., Plain]


@pytest.fixture
def plain(compose: Callable[..., Any]) -> Make:
    """``plain(*overrides)``: a composed configuration as plain values."""

    def make(*overrides: str) -> Plain:
        composed = compose("runtime.device=cpu", *overrides)
        keys = [key for key in composed if key not in ("hydra", "debug")]
        values = OmegaConf.to_container(OmegaConf.masked_copy(composed, keys), resolve=True)
        assert isinstance(values, dict)
        return values

    return make


def leaves(node: Plain, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything that is no group."""
    for key, value in node.items():
        if key != "per_task":
            yield from leaves(value, (*above, key)) if isinstance(value, dict) else [((*above, key), value)]


def put(config: Plain, path: tuple[str, ...], value: Any) -> Plain:
    """A copy with another value somewhere."""
    changed = copy.deepcopy(config)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def wrong_for(value: Any) -> list[Any]:
    """What cannot stand where a value stands."""
    if isinstance(value, bool):
        return [*NEVER, 0, 1, "abc", "", None, []]
    if isinstance(value, int | float):
        return [*NEVER, True, "abc", "", []]
    if isinstance(value, str):
        return [*NEVER, -1, 0, True, "", []]
    if isinstance(value, list):
        return [*NEVER, -1, 0, True, "abc"]
    return [*NEVER, True]


def problems(raw: Plain) -> list[str]:
    """What :func:`spec.prepare` finds, without looking further when a value is wrong by itself."""
    config, found = spec.typed(resolve(raw))
    return found if config is None else combinations.problems(config)


FINE = [("teacher.attention", None), ("teacher.attention", True), ("runtime.compile", True)]
"""What looks like nonsense and is not: a fact to be read from the folder; true as YAML writes it."""
TRIED: set[str] = set()


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_key_takes_nonsense(plain: Make, variant: str):
    config = plain(*VARIANTS[variant])
    accepted, tried = [], 0
    for path, value in leaves(config):
        shared = path[0] not in ("objective", "init", "mapping", "task")
        owner = config[path[0]].get("_target_") if isinstance(config[path[0]], dict) else None
        name = f"{'.'.join(path)} {owner} {value if shared else json.dumps(value)}"
        if name in TRIED:  # another variant has had it
            continue
        TRIED.add(name)
        for wrong in wrong_for(value):
            tried += 1
            found = problems(put(config, path, wrong))
            named = any(path[-1] in text for text in found)
            if not named and (".".join(path), wrong) not in FINE:
                accepted.append((".".join(path), wrong, found))
    assert accepted == [] and tried > 0


@pytest.mark.parametrize(
    ("overrides", "path", "value", "expected"),
    [
        ([], "recipe.learning_rate", 3e5, "recipe.learning_rate=300000.0: must be at most 10"),
        ([], "recipe.learning_rate", 1e-30, "at least 1e-12"),
        ([], "recipe.learning_rate", "1e400", "a number is needed"),
        ([], "recipe.clip", -1, "recipe.clip=-1: must be at least 1e-06"),
        ([], "recipe.clip", 0, "recipe.clip=0: must be at least"),
        ([], "recipe.betas", [1, 1], "recipe.betas.0=1: must be below 1"),
        ([], "recipe.betas", [2, 0.9], "recipe.betas.0=2: must be below 1"),
        ([], "recipe.dropout", 1.5, "recipe.dropout=1.5: must be below 1"),
        ([], "recipe.dropout_epochs", -1, "must be above 0"),
        ([], "recipe.warmup", math.nan, "recipe.warmup=nan: a finite number is needed"),
        ([], "recipe.warmup", 2.5, "a share of all updates"),
        ([], "recipe.max_length", 2, "recipe.max_length=2: must be at least 8"),
        ([], "recipe.epochs", 1e30, "a whole number is needed"),
        ([], "recipe.epochs", 2**40, "at most 100000"),
        ([], "data.heldout", 0.9999, "data.heldout=0.9999: must be at most 0.9"),
        ([], "seed", 2**63, "must be below"),
        ([], "seed", -1, "seed=-1: must be at least 0"),
        ([], "seed", True, "a whole number is needed"),
        ([], "teacher.seed", -1, "teacher.seed=-1: must be at least 0"),
        ([], "teacher.floor_margin", math.nan, "teacher.floor_margin=nan: a finite number"),
        ([], "teacher.recipe", 5, "teacher.recipe=5 has the wrong type: a group of settings"),
        ([], "teacher", None, "teacher=None is no group of settings"),
        ([], "tracking", 5, "tracking=5 is no group of settings"),
        ([], "data", None, "data=None is no group"),
        ([], "objective", 5, "objective=5 is no group"),
        ([], "objective.method", 5, "objective.method=5 has the wrong type: a text"),
        ([], "objective.epochs", 5, "objective.epochs=5 has the wrong type: a group"),
        ([], "objective.epochs.prediction", True, "a whole number is needed"),
        ([], "objective.prediction", 5, "objective.prediction=5 has the wrong type: a group"),
        ([], "objective.prediction.kd", None, "objective.prediction.kd=None has the wrong type: a group"),
        ([], "objective.prediction.kd.temperature", 1e-30, "must be at least 0.001"),
        ([], "objective.prediction.kd.temperature", True, "a number is needed"),
        ([], "objective.prediction.kd.alpha", 1.1, "must be at most 1"),
        ([], "objective.prediction.kd.weight", -1, "must be at least 0"),
        ([], "objective.prediction.kd.weight", 0, "weight is 0 for every term"),
        ([], "objective.prediction.kd.mapping", "skip", "has no effect"),
        ([], "objective.prediction.kd._target_", "kdexp.tasks.text.table.TextTask", "is not of this kind"),
        ([], "init._target_", "kdexp.inits.base.Init", "is not of this kind"),
        ([], "runtime.store", "", "runtime.store is empty"),
        ([], "runtime.device", "mps", "runtime.device=mps is unknown"),
        ([], "runtime.checkpoint_s", math.nan, "a finite number"),
        ([], "runtime.lock_timeout_s", math.nan, "a finite number"),
        ([], "tracking.uri", "http://[::1", "tracking.uri='http://[::1'"),
        ([], "teacher.source", "package:.", "needs the package ."),
        ([], "teacher.sha256", "", "teacher.sha256= is unknown; choose 64 hex digits"),
        ([], "study", "", "study is empty"),
        ([], "student.name", "", "student.name is empty"),
        ([], "task.name", 5, "task.name=5 is no name"),
        (["task=stsb"], "task.columns", ["sentence1", "sentence1"], "a column stands there twice"),
        (["task=stsb"], "task.columns", ["sentence1", "label"], "task.label=label is one of task.columns"),
        ([], "mapping", {"name": "skip", "a": 1}, "mapping.a is unknown"),
        ([], "mapping", {"name": "auto", "a": 1}, "mapping=auto has no options"),
        (["init=layers_1_4_6"], "init.chosen", [1.5, 4, 6], "init.chosen.0=1.5 has the wrong type: a whole number"),
        (["init=layers_1_4_6"], "init.chosen", [True, 4, 6], "init.chosen.0=True has the wrong type"),
        (["init=layers_1_4_6"], "init.chosen", None, "a list is needed"),
        (["init=layers_1_4_6"], "init.pooler", "abc", "true or false is needed"),
        (["objective=hid_seq"], "objective.intermediate.hid_seq.share_projection", "abc", "true or false is needed"),
        (["objective=hid_seq"], "objective.intermediate.hid_seq.mapping", [1], "is no mapping"),
        (["objective=hid_seq"], "objective.intermediate.hid_seq.mapping", {}, "has no name"),
        (["objective=hid_seq", "mapping=explicit"], "mapping.pairs", 5, "mapping.pairs=5 has the wrong type: a list"),
        (["objective=lgtm"], "objective.co_teacher.nonsense", 1, "objective.co_teacher.nonsense is unknown"),
    ],
)
def test_what_was_accepted_once_is_named(plain: Make, overrides: list[str], path: str, value: Any, expected: str):
    assert expected in "\n".join(problems(put(plain(*overrides), tuple(path.split(".")), value)))


def test_every_setting_of_kdexps_own_classes_has_a_type(plain: Make):
    """One that has none is not checked."""
    classes = set()
    for overrides in VARIANTS.values():
        config = plain(*overrides)
        terms = {**config["objective"]["intermediate"], **config["objective"]["prediction"]}
        classes |= {target(spec) for spec in (config["init"], config["task"], *terms.values())}
    unknown = [
        (taker, name)
        for taker in [*classes, *layer_maps.STRATEGIES.values()]
        for name, annotation in settings.types(taker).items()
        if annotation is Any
    ]
    assert unknown == [] and len(classes) > 15


def test_settings_that_a_score_has_no_use_for_make_no_other_run(plain: Make, tmp_path: Path):
    rows = {"sentence1": ["a b", "c d"] * 20, "sentence2": ["a", "d"] * 20}
    for task, labels in (("stsb", [0.5, 4.0] * 20), ("mrpc", [0, 1] * 20)):
        (tmp_path / "glue" / task).mkdir(parents=True)
        for split in ("train", "validation"):
            pd.DataFrame({**rows, "label": labels}).to_parquet(tmp_path / "glue" / task / f"{split}.parquet")

    def made(task: str, **changes: Any) -> spec.RunSpec:
        config = plain(f"task={task}", f"data.root={tmp_path}")
        config["objective"]["prediction"]["kd"].update(changes)
        run, found = spec.prepare(config)
        assert run is not None, found
        return run

    score, hot = made("stsb"), made("stsb", temperature=4.0, times_T2=False)
    assert score.notes == () and hot.id == score.id and [s.key for s in hot.outline] == [s.key for s in score.outline]
    assert [note.partition(" ")[0] for note in hot.notes] == [
        "objective.prediction.kd.temperature=4.0",
        "objective.prediction.kd.times_T2=False",
    ]
    assert made("stsb", alpha=0.9).id != score.id
    classes, hot = made("mrpc"), made("mrpc", temperature=4.0)
    assert hot.notes == () and hot.id != classes.id
