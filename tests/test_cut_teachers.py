"""A teacher that is the first layers of a model which has more."""

from __future__ import annotations

import pytest
import torch

from kdexp.check import teacher as check
from kdexp.config.resolve import fill
from kdexp.config.schema import Teacher
from kdexp.models import build, source
from tests.toys import HEAD


@pytest.fixture(params=["tiny_bert_dir", "tiny_roberta_dir"])
def teacher(request):
    """``teacher(num_layers=2)``: of a folder with 4 layers."""
    folder = request.getfixturevalue(request.param)

    def make(**changes) -> Teacher:
        said = {"name": "t", "source": f"path:{folder}", **changes}
        return Teacher(**fill({"teacher": said, "student": {}})["teacher"])

    return make


def test_the_first_layers_are_the_teacher(teacher):
    whole, cut = build.load_pretrained(teacher(), HEAD), build.load_pretrained(teacher(num_layers=2), HEAD)
    kept, all_of_them = cut.base_model.state_dict(), whole.base_model.state_dict()
    assert set(kept) == {name for name in all_of_them if not name.startswith(("encoder.layer.2.", "encoder.layer.3."))}
    assert all(torch.equal(kept[name], all_of_them[name]) for name in kept if "pooler" not in name)
    assert build.describe(cut)["layers"] == cut.config.num_hidden_layers == 2
    assert build.count(teacher(num_layers=2), HEAD) == build.parameters(cut) < build.count(teacher(), HEAD)


def test_it_is_saved_and_loaded_as_what_it_is(teacher, tmp_path):
    cut = build.load_pretrained(teacher(num_layers=3), HEAD)
    build.save(cut, tmp_path / "stage")
    again = build.load_teacher(teacher(num_layers=3), HEAD, tmp_path / "stage")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in cut.state_dict().items())
    saved = Teacher(name="s", source=f"path:{tmp_path / 'stage'}")
    assert build.load_teacher(saved, HEAD).config.num_hidden_layers == 3


def test_only_fewer_layers_to_be_fine_tuned_can_be_had(teacher):
    assert source.is_cut(teacher(num_layers=3)) and not source.is_cut(teacher(num_layers=4))
    assert check.problems(teacher(num_layers=3)) == check.problems(teacher()) == []
    (deeper,) = check.problems(teacher(num_layers=5))
    assert "teacher.num_layers=5, but " in deeper and "config.json says 4" in deeper
    (finished,) = check.problems(teacher(num_layers=3, finetune=False))
    assert "teacher.num_layers=3 with teacher.finetune=false" in finished and "config.json says 4" in finished
    (scratch,) = check.problems(teacher(num_layers=3, source="scratch:" + teacher().source))
    assert "config.json says 4" in scratch
