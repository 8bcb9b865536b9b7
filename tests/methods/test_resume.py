"""A plan that dies again and again, in every stage, ends with the weights of an undisturbed one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdexp.run import execute as runs

PLANS = {
    "ted": ["objective=ted"],
    "pro_kd": ["objective=pro_kd", "objective.epochs.prediction=1"],
    "ptp": ["objective=pkd", "mapping=pea_kd", "init=ptp", "init.t1=0.6", "init.t2=0.6", "student=l2_sps2"],
    "lgtm": ["objective=lgtm", "init.source=pretrained", "recipe.epochs=3"],
}


class Died(Exception):
    """What a killed process does not even get to raise."""


@pytest.fixture
def compose(monkeypatch):
    """Compose as the command line does."""
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main
    from kdexp.config import resolve as configs
    from kdexp.sweep import plugins

    monkeypatch.delenv("KDEXP_DATA", raising=False)
    main.resolvers()
    plugins.register()

    def make(words: list[str]) -> dict[str, Any]:
        with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
            return configs.resolve(compose("config", overrides=words))

    return make


def carry_out(config: dict[str, Any], root: Path, lives: int | None) -> tuple[Path, int]:
    """Carry a plan out in ``root``; with ``lives``, each attempt dies after so many updates.

    Returns:
        The folder of the student, and how many attempts it took.
    """
    from kdexp.methods import base as plan
    from kdexp.store.store import Store
    from kdexp.train.context import RunContext

    store, known = Store(root), plan.facts(config)
    stages, attempts = plan.stages(config, known), 0
    config = {**config, "runtime": {**config["runtime"], "checkpoint_s": 0.0}}
    while True:
        left = lives
        attempts += 1

        def show(*ignored: Any) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Died

        run = RunContext(config, torch.device("cpu"), "fp32", 1, root / "cache", say=lambda line: None)
        try:
            runs._stages(stages, store, replace(run, show=show), False)
            return store.root / stages[-1].key, attempts
        except Died:
            assert attempts < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_killed_in_any_stage_continues_there(compose, arguments, tmp_path, name):
    from safetensors.torch import load_file

    config = compose([*arguments, *PLANS[name]])
    calm, _ = carry_out(config, tmp_path / "calm", None)
    rough, attempts = carry_out(config, tmp_path / "rough", 3)
    assert attempts > 3
    one, two = (load_file(folder / "model.safetensors") for folder in (calm, rough))
    assert set(one) == set(two)
    for key in one:
        assert torch.equal(one[key], two[key]), key
