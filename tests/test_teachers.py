"""The teacher: frozen, quiet, and the same from the store."""

from __future__ import annotations

import numpy as np
import torch

from kdexp.heads.batch import Batch
from kdexp.train import teachers
from tests.toys import HEAD, examples, network


def test_stored_logits_equal_the_models(tmp_path):
    data, model = examples(), network(4, 1)
    live = teachers.LiveTeacher(model, HEAD, frozenset(), None)
    rows = [live(data.collate(np.array([i])))["logits"][0].numpy() for i in range(len(data))]
    teachers.keep_features(tmp_path, {"logits": np.stack(rows)}, 32)
    stored = teachers.CachedTeacher.open(tmp_path, ["logits"], 32, torch.device("cpu"), np.arange(len(rows)))
    batch = data.collate(np.array([4, 0, 9]))
    torch.testing.assert_close(stored(batch)["logits"], live(batch)["logits"], rtol=1e-5, atol=1e-6)
    assert teachers.CachedTeacher.open(tmp_path, ["logits"], 48, torch.device("cpu"), np.arange(2)) is None, (
        "another length is another text"
    )


def test_logits_of_some_rows_are_looked_up_and_never_made_up(tmp_path):
    kept, logits = np.array([1, 4, 6]), np.arange(9, dtype=np.float32).reshape(3, 3)
    teachers.keep_features(tmp_path, {"logits": logits}, 32, kept)
    stored = teachers.CachedTeacher.open(tmp_path, ["logits"], 32, torch.device("cpu"), np.array([4, 1]))
    assert stored(Batch({}, None, {}, torch.tensor([6, 1])))["logits"].tolist() == [[6.0, 7.0, 8.0], [0.0, 1.0, 2.0]]
    assert stored.features["logits"][[0, 2, 3, 5]].isnan().all()
    assert teachers.CachedTeacher.open(tmp_path, ["logits"], 32, torch.device("cpu"), np.array([1, 2])) is None, (
        "2 was not kept"
    )


def test_a_teacher_is_frozen_and_quiet_unless_asked():
    batch = examples().collate(np.arange(4))
    quiet = teachers.LiveTeacher(network(2, 1), HEAD, frozenset(), None)
    assert torch.equal(quiet(batch)["logits"], quiet(batch)["logits"])
    assert not any(p.requires_grad for p in quiet.model.parameters())
    noisy = teachers.LiveTeacher(network(2, 1), HEAD, frozenset(), None, evaluation=False)
    assert not torch.equal(noisy(batch)["logits"], noisy(batch)["logits"])
