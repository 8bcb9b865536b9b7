"""Random weights that are overwritten at once are not drawn, and those that stay random are the same draws as ever."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from kdexp.common import files
from kdexp.models import build as models
from kdexp.run import execute, spec
from kdexp.train.phase import Phase
from tests.test_cohorts import study  # noqa: F401  a fixture
from tests.toys import HEAD

INITS = {init: [] for init in ("random", "first", "last", "spread", "ptp")} | {"layers": ["init.chosen=[1,3]"]}


@pytest.fixture
def teacher(study):  # noqa: F811
    return spec.make(study.compose(*study.given)).config.teacher


@pytest.fixture
def folder(tmp_path, teacher) -> Path:
    torch.manual_seed(3)
    models.save(models.build(models.configuration(teacher), HEAD, teacher), tmp_path / "saved")
    return tmp_path / "saved"


def test_a_model_that_is_read_from_a_file_draws_nothing(teacher, folder):
    torch.manual_seed(1)
    drawn, after = models.load_teacher(teacher, HEAD, folder), torch.get_rng_state()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    undrawn = models.load_teacher(teacher, HEAD, folder, draw=False)
    assert torch.equal(torch.get_rng_state(), before) and not torch.equal(before, after)
    for one, other in ((drawn.state_dict(), undrawn.state_dict()), [dict(m.named_buffers()) for m in (drawn, undrawn)]):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_weight_that_the_file_lacks_is_not_left_undrawn(teacher, folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("classifier.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing \['classifier.weight'\]"):
        models.load_teacher(teacher, HEAD, folder, draw=False)


def facts(study, name: str, init: str) -> list[str]:  # noqa: F811
    """Carry a run out with maps that are learned beside the student; the weights' checksums of its stages."""
    words = [f"init={init}", "objective=hid_seq", "objective.intermediate.hid_seq.projection=always", "recipe.steps=2"]
    words += INITS[init]
    one = study.specs(name, {init: words}, "recipe.epochs=1", "teacher.recipe.steps=2")[init]
    result = execute.execute(one)
    store = Path(one.config.runtime.store)
    keys = [stage["key"] for stage in json.loads((one.run_dir / "result.json").read_text())["stages"]]
    assert result["student"]["learned_parts"]
    return [files.checksum(path) for key in keys for path in sorted((store / key).glob("**/*.safetensors"))]


@pytest.mark.parametrize("init", INITS)
def test_what_stays_random_is_what_it_always_was(study, monkeypatch, init):  # noqa: F811
    """As when every model is built with random weights first, and the teacher loaded each time it is needed."""
    now, loaded = facts(study, "now", init), []
    monkeypatch.setattr(models, "Undrawn", nullcontext)
    monkeypatch.setattr(Phase, "_listened", lambda self, folder: loaded.append(folder) or self.teacher_model(folder))
    assert facts(study, "before", init) == now
    assert loaded
