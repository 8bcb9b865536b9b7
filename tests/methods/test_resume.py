"""A plan that dies again and again, in every stage, ends with the weights of an undisturbed one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdexp.config.schema import Config
from kdexp.run import spec, stages

PLANS = {
    "ted": ["objective=ted"],
    "pro_kd": ["objective=pro_kd", "objective.epochs.prediction=1"],
    "ptp": ["objective=pkd", "mapping=pea_kd", "init=ptp", "init.t1=0.6", "init.t2=0.6", "student=l2_sps2"],
    "lgtm": ["objective=lgtm", "init.source=pretrained", "recipe.epochs=3"],
}


class Died(Exception):
    """What a killed process does not even get to raise."""


def carry_out(config: Config, root: Path, lives: int | None) -> tuple[Path, int]:
    """Carry a plan out in ``root``; with ``lives``, each attempt dies after so many updates.

    Returns:
        The folder of the student, and how many attempts it took.
    """
    from kdexp.methods import base as methods
    from kdexp.store.replicated import Replicated
    from kdexp.store.store import Store
    from kdexp.train.context import RunContext

    store, attempts = Replicated(Store(root)), 0
    planned = methods.stages(config, spec.facts(config))
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"checkpoint_s": 0.0})})
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
            stages.build(planned, store, replace(run, show=show), record=False)
            return store.root / planned[-1].key, attempts
        except Died:
            assert attempts < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_killed_in_any_stage_continues_there(compose, arguments, tmp_path, name):
    from safetensors.torch import load_file

    config = spec.make(compose(*arguments, *PLANS[name])).config
    calm, _ = carry_out(config, tmp_path / "calm", None)
    rough, attempts = carry_out(config, tmp_path / "rough", 3)
    assert attempts > 3
    one, two = (load_file(folder / "model.safetensors") for folder in (calm, rough))
    assert set(one) == set(two)
    for key in one:
        assert torch.equal(one[key], two[key]), key
