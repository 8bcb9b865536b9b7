"""Runs on images: the whole pipeline, resuming, who teaches, every objective that images have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdexp.config.schema import Config
from kdexp.methods import base as methods
from kdexp.run import spec, stages
from kdexp.store.replicated import Replicated
from kdexp.store.store import Finished, Store
from kdexp.train.context import RunContext
from tests import pictures

FEW = ["recipe.epochs=1", "teacher.recipe.epochs=1", "recipe.examples=32", "teacher.recipe.examples=32"]


class Died(Exception):
    """What a killed process does not even get to raise."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pictures.write(tmp_path_factory.mktemp("pictures") / "toys")


def prepared(compose: Any, folder: Path, *words: str, models: tuple[str, str] = ("resnet8", "resnet8")) -> Config:
    run, found = spec.prepare(compose(*pictures.words(folder, *models), *words))
    assert run is not None, found
    return run.config


def carry_out(
    config: Config, root: Path, lives: int | None = None
) -> tuple[dict[str, Finished], list[str], RunContext]:
    """Carry a plan out in ``root``; with ``lives``, each attempt dies after so many updates, until one gets through."""
    store, said = Replicated(Store(root)), list[str]()
    planned = methods.stages(config, spec.facts(config, root / "cache"))
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"checkpoint_s": 0.0})})
    for _ in range(60):
        left = [lives]

        def show(*ignored: Any, left: list = left) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Died

        run = RunContext(config, torch.device("cpu"), "fp32", 1, root / "cache", say=said.append, show=show)
        try:
            done = stages.build(planned, store, run, record=False)
            return {stage.name: done[stage.key][0] for stage in planned}, said, run
        except Died:
            said.append("died")
    raise AssertionError("it never got through")


def weights(done: dict[str, Finished]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file([*done.values()][-1].folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_killed_and_continued_to_the_bit(compose, folder, tmp_path):
    """Crops, SGD's momentum and the running statistics go on where they were."""
    config = prepared(compose, folder, "objective=kd", "teacher.recipe.epochs=1")
    calm, _, _ = carry_out(config, tmp_path / "calm")
    rough, said, _ = carry_out(config, tmp_path / "rough", 2)
    assert said.count("died") >= 3
    assert same(weights(calm), weights(rough))
    other, _, _ = carry_out(prepared(compose, folder, "objective=kd", "teacher.recipe.epochs=1", "seed=2"), tmp_path)
    assert not same(weights(calm), weights(other))


def test_crops_are_drawn_in_training_and_nowhere_else(compose, folder, tmp_path, monkeypatch):
    from kdexp.tasks.images import augment

    drawn: list[tuple[int, int, int]] = []
    whole = augment.draws
    monkeypatch.setattr(augment, "draws", lambda s, e, ids, n: drawn.append((s, e, len(ids))) or whole(s, e, ids, n))
    config = prepared(compose, folder, "objective=finetune", "recipe.epochs=2", "seed=4")
    carry_out(config, tmp_path)
    assert sorted(drawn) == [(4, epoch, size) for epoch in (0, 1) for size in (22, 32, 32)]  # 86 images are left of 96


@pytest.mark.parametrize("cut", [True, False])
def test_who_teaches_images_that_change(compose, folder, tmp_path, cut):
    """With crops a teacher is run on every batch, whatever the setting; without, it is looked up."""
    more = [] if cut else ["task.pad=0", "task.flip=false"]
    config = prepared(compose, folder, "objective=kd", "runtime.teacher_cache=1GB", *FEW, *more)
    done, said, run = carry_out(config, tmp_path)
    told = run.facts["teacher"]["distill.prediction"]
    assert told["cached"] is not cut
    if cut:
        assert told["why"] == "it is run on every batch: the examples differ from batch to batch"
        assert f"teacher of distill.prediction: {told['why']}" in said
    stored = [name for name in done["teacher"].meta["files"] if name.startswith("train_features")]
    assert bool(stored) is not cut


@pytest.mark.parametrize("name", ["annealing", "continuation", "pro_kd", "pro_kd_shuffled", "review_maps", "dkd"])
def test_objectives_on_convolutions(compose, folder, tmp_path, name):
    config = prepared(compose, folder, f"objective={name}", *FEW, models=("resnet20", "resnet8"))
    done, _, _ = carry_out(config, tmp_path)
    last = [*done.values()][-1].summary
    assert 0 <= last["scores"]["validation"]["accuracy"] <= 1 and last["parameters"] == 74_835
    if name == "review_maps":
        assert last["mapping"] == {"review_maps": [[1, 3], [2, 6], [3, 9]]}
        assert any("stages.3.gate" in part for part in last["learned_parts"])
    assert all(value.isfinite().all() for value in weights(done).values())


@pytest.mark.parametrize("name", ["hid_seq", "att_kl", "minilm", "pkd", "review"])
def test_objectives_on_a_transformer_that_reads_images(compose, folder, tmp_path, name):
    """Hidden states and attention as with texts, layers copied too."""
    more = ["student.num_layers=2", "init=first", "recipe=default", "recipe.epochs=1", "recipe.examples=32"]
    config = prepared(compose, folder, *FEW, f"objective={name}", *more, models=("vit_cifar", "l2"))
    done, _, _ = carry_out(config, tmp_path)
    last = [*done.values()][-1].summary
    assert last["init"]["layers"] == [1, 2] and set(last["init"]["random_names"]) == {
        "classifier.bias",
        "classifier.weight",
    }
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained([*done.values()][-1].folder)
    assert model.config.num_hidden_layers == 2 and model.config.id2label[0] == "red"


def test_a_teacher_of_images_learns(compose, folder, tmp_path):
    """The signal is there: the brighter colour. A student of it learns it too."""
    words = ["teacher.recipe.epochs=6", "recipe.epochs=6", "teacher.recipe.learning_rate=0.05", "objective=kd"]
    config = prepared(compose, folder, *words, "recipe.learning_rate=0.05", "selection=last")
    done, _, _ = carry_out(config, tmp_path)
    scores = [finished.summary["scores"]["validation"]["accuracy"] for finished in done.values()]
    assert min(scores) > 0.6, scores
