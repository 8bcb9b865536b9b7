"""The residual networks for CIFAR: sizes as published, the formula by hand, saved and loaded, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdexp.config.schema import Student, Teacher
from kdexp.heads.batch import Batch
from kdexp.heads.image_classification import ImageClassification
from kdexp.models import build, capture, source
from kdexp.models.families.base import family
from kdexp.run import spec
from tests import pictures

SOURCE = "scratch:package:kdexp/models/architectures/"
HEAD = ImageClassification([str(i) for i in range(10)])


def teacher(name: str, **more) -> Teacher:
    sizes = {"resnet8": 3, "resnet20": 9, "resnet32": 15, "resnet56": 27, "resnet110": 54}
    known = {"family": "cifar_resnet", "num_layers": sizes.get(name), "hidden_size": 64, "num_heads": 1}
    return Teacher(**{"name": name, "source": SOURCE + name, "attention": False, **known, **more})


def batch(n: int = 4, seed: int = 0) -> Batch:
    pixels = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return Batch({"pixel_values": pixels}, None, {"label": torch.arange(n) % 10}, torch.arange(n))


PUBLISHED = {"resnet20": 0.27, "resnet32": 0.46, "resnet56": 0.85, "resnet110": 1.7}
"""Millions of parameters: He et al. (2016), table 6."""


@pytest.mark.parametrize("name", ["resnet8", *PUBLISHED])
def test_parameters_are_the_published_ones(name):
    n = (int(name.removeprefix("resnet")) - 2) // 6
    convolutions = 3 * 16 * 9  # the first one, then 2n a stage
    convolutions += 9 * (2 * n * 16 * 16 + (16 * 32 + (2 * n - 1) * 32 * 32) + (32 * 64 + (2 * n - 1) * 64 * 64))
    normalisations = 2 * (16 + 2 * n * (16 + 32 + 64))
    counted = build.count(teacher(name), HEAD)
    assert counted == convolutions + normalisations + 64 * 10 + 10
    if name in PUBLISHED:
        assert counted / 1e6 == pytest.approx(PUBLISHED[name], abs=0.05 if name == "resnet110" else 0.005)


def test_a_student_of_another_depth_is_the_family_at_that_depth():
    made = build.build_student(teacher("resnet110"), Student(name="resnet8", num_layers=3), HEAD, None, 1)
    assert build.parameters(made) == build.count(teacher("resnet8"), HEAD)
    assert build.shape(made).widths == (16, 32, 64) and build.describe(made)["layers"] == 3
    again = build.build_student(teacher("resnet110"), Student(name="resnet8", num_layers=3), HEAD, None, 1)
    other = build.build_student(teacher("resnet110"), Student(name="resnet8", num_layers=3), HEAD, None, 2)
    name = "resnet.blocks.2.conv2.weight"
    assert torch.equal(made.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(made.state_dict()[name], other.state_dict()[name])
    assert made.state_dict()[name].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert made.state_dict()["resnet.bn.weight"].eq(1).all() and made.state_dict()["resnet.bn.running_var"].eq(1).all()


def test_the_forward_pass_by_hand():
    """ResNet-8 in evaluation mode, written out with functions: shortcuts are strided and filled up with zeros."""
    torch.manual_seed(0)
    model = build.load_teacher(teacher("resnet8"), HEAD)
    for buffer in (b for n, b in model.named_buffers() if "running" in n):
        buffer.uniform_(0.5, 1.5)
    w = model.eval().state_dict()
    x = batch().inputs["pixel_values"]

    def normed(x, name):
        names = [f"{name}.{part}" for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *(w[n] for n in names), training=False)

    x = normed(F.conv2d(x, w["resnet.conv.weight"], padding=1), "resnet.bn").relu()
    for number, stride in enumerate((1, 2, 2)):
        path = f"resnet.blocks.{number}"
        y = normed(F.conv2d(x, w[f"{path}.conv1.weight"], stride=stride, padding=1), f"{path}.bn1").relu()
        y = normed(F.conv2d(y, w[f"{path}.conv2.weight"], padding=1), f"{path}.bn2")
        if stride == 2:
            before = x.shape[1]
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before // 2, before // 2))
        x = (x + y).relu()
    expected = F.linear(x.mean((2, 3)), w["classifier.weight"], w["classifier.bias"])
    torch.testing.assert_close(capture.forward(model, HEAD, batch())["logits"], expected)


def test_maps_of_blocks_are_features():
    model = build.load_teacher(teacher("resnet20"), HEAD).eval()
    want = frozenset({"module:{block}.sum.3", "module:{block}.sum.6", "module:{block}.9", "module:resnet.pool"})
    capture.prepare(model, want)
    got = capture.forward(model, HEAD, batch(), want)
    shapes = {name: tuple(value.shape[1:]) for name, value in got.items() if name != "logits"}
    assert shapes == {
        "module:{block}.sum.3": (16, 32, 32), "module:{block}.sum.6": (32, 16, 16), "module:{block}.9": (64, 8, 8),
        "module:resnet.pool": (64, 1, 1),
    }  # fmt: skip
    assert got["module:{block}.sum.3"].min() < 0 <= got["module:{block}.9"].min()


def test_saved_and_loaded_with_its_statistics(tmp_path):
    from transformers import AutoModelForImageClassification

    torch.manual_seed(0)
    model = build.load_teacher(teacher("resnet20"), HEAD).train()
    model(**batch(8).inputs)  # moves the running statistics
    build.save(model.eval(), tmp_path)
    expected = model(**batch().inputs).logits
    for loaded in (build.restore(tmp_path, HEAD), AutoModelForImageClassification.from_pretrained(tmp_path).eval()):
        assert torch.equal(loaded(**batch().inputs).logits, expected)
    again = build.load_teacher(teacher("resnet20"), HEAD, tmp_path).eval()
    assert torch.equal(again(**batch().inputs).logits, expected)
    finished = teacher("mine", source=f"path:{tmp_path}", num_layers=9, finetune=False)
    assert torch.equal(build.load_teacher(finished, HEAD).eval()(**batch().inputs).logits, expected)


def test_a_compiled_pass_is_the_plain_one():
    """One graph, with taps and with statistics that move."""
    model = build.load_teacher(teacher("resnet8"), HEAD).train()
    names, blocks = dict(model.named_buffers()), family("cifar_resnet").layers(model)
    assert len(blocks) == 3 and "resnet.bn.running_mean" in names
    explained = torch._dynamo.explain(model)(batch().inputs["pixel_values"])
    assert explained.graph_break_count == 0


def test_from_scratch_is_another_origin_than_the_weights_beside(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    drawn, loaded = (source.origin(f"{prefix}path:{tmp_path}", None, None) for prefix in ("scratch:", ""))
    assert drawn == f"scratch:{loaded}" and source.pinned(loaded) and not source.pinned(drawn)


def test_mappings_meet_at_the_ends_of_stages(compose, tmp_path):
    from kdexp.methods.base import pairs

    run = words(compose, tmp_path, "objective=review_maps", "teacher=resnet110")[0]
    assert pairs(run.config, run.config.objective.intermediate["review_maps"]) == [(1, 18), (2, 36), (3, 54)]


def words(compose, tmp_path, *more: str):
    folder = tmp_path / "toys"
    if not folder.is_dir():
        pictures.write(folder, 24, 9)
    return spec.prepare(compose(*pictures.words(folder), *more))


REFUSED = {
    "layers in places of another kind": (
        ["init=first"],
        "copies layers [1, 2, 3]: teacher layer 2 (stage 1) does not fit student layer 2 (stage 2, its first): use "
        "init=random, or init=layers init.chosen=[1, 4, 7]",
    ),
    "no hidden states": (["objective=hid_seq"], "needs hidden states of tokens"),
    "tokens for review": (["objective=review"], "or on maps (review_maps)"),
    "no attention": (["objective=att_kl"], "needs queries, keys or values"),
    "a depth that is none": (["student.num_layers=4"], "student.num_layers=4: three stages have equally many blocks"),
    "a width that is none": (["student.hidden_size=30"], "student.hidden_size=30: the stages have a quarter"),
    "layers run again": (["student.sharing=sps1"], "differ in kind: use student.sharing=none"),
    "micro-batches": (["recipe.accumulation=2"], "recipe.accumulation=2: batch normalisation"),
    "devices": (["runtime.devices=2"], "runtime.devices=2: batch normalisation"),
    "dropout": (["recipe.dropout=0.1"], "recipe.dropout=0.1 has no effect"),
    "a teacher in training": (["teacher.evaluation_mode=false"], "would go on changing while it teaches"),
    "a teacher that stays random": (["teacher.finetune=false"], "its weights would stay random"),
    "pretrained layers of nobody": (
        ["init=layers", "init.chosen=[1,4,7]", "init.source=pretrained"], "was never pretrained",
    ),
    "a look ahead": (["objective=lgtm"], "recipe.optimiser=sgd: LGTM looks one step of AdamW ahead"),
    "statistics that count trials": (["objective=lgtm", "recipe=default"], "batch normalisation would count each"),
    "a pretrained teacher of nobody": (
        ["teacher=vit_cifar", "student=l3", "objective=ernie_tiny", "recipe=default"], "was never pretrained",
    ),
    "tokens": (["teacher.vocab_size=30522", "student.vocab_size=30522"], "teacher.vocab_size=30522 has no effect"),
    "a reader of texts": (["teacher=bert_base", "student=l3"], "task=images has images, and teacher=bert_base"),
    "texts for a reader of images": ([], "task=pydocs_area has texts, and teacher=resnet20"),
    "settings of texts": (["+task.max_length=3"], "task.max_length is unknown"),
    "maps of a transformer": (
        ["teacher=vit_cifar", "student=l3", "objective=review_maps"], "needs maps of convolutions",
    ),
    "the hub from scratch": (["teacher.source=scratch:hub:a/b"], "from scratch only a folder's architecture is taken"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_is_loaded(compose, tmp_path, name, monkeypatch):
    monkeypatch.setattr(build, "configuration", lambda *given: pytest.fail("something was loaded"))
    given, said = REFUSED[name]
    if name == "texts for a reader of images":
        base = [w for w in pictures.words(tmp_path) if not w.startswith("task")]
        run, found = spec.prepare(compose(*base))
    else:
        run, found = words(compose, tmp_path, *given)
    assert run is None and said in " ".join(found), found


def test_layers_of_the_same_kind_are_copied(compose, tmp_path):
    run, found = words(compose, tmp_path, "init=layers", "init.chosen=[2,4,9]")
    assert run is None and "teacher layer 9 (stage 3) does not fit student layer 3 (stage 3, its first)" in found[0]
    run, found = words(compose, tmp_path, "init=layers", "init.chosen=[2,4,7]")
    assert found == [] and run is not None
    from kdexp.common.registry import build as make
    from kdexp.inits import copying

    big = build.load_teacher(teacher("resnet20"), HEAD, None)
    small = build.build_student(run.config.teacher, run.config.student, HEAD, None, 1)
    told = copying.apply(make(run.config.init), small, _trained(big))
    assert told["layers"] == [2, 4, 7] and told["random_names"] == ["classifier.weight", "classifier.bias"]
    assert torch.equal(
        small.state_dict()["resnet.blocks.1.conv1.weight"], big.state_dict()["resnet.blocks.3.conv1.weight"]
    )


def _trained(model):
    del model.made_up
    return model


def test_lengths_of_texts_mean_nothing_to_images(compose, tmp_path):
    plain = words(compose, tmp_path)[0]
    other = words(compose, tmp_path, "recipe.max_length=64", "teacher.recipe.bucket=false")[0]
    assert plain.id == other.id and plain.notes == ()
    assert [note.partition(" has")[0] for note in other.notes] == [
        "recipe.max_length=64", "teacher.recipe.bucket=False",
    ]  # fmt: skip


def test_sizes_of_stages():
    kinds = family("cifar_resnet").kinds(6)
    assert kinds == [
        "stage 1", "stage 1", "stage 2, its first", "stage 2", "stage 3, its first", "stage 3",
    ]  # fmt: skip
    assert family("cifar_resnet").widths(6, 32) == (8, 8, 16, 16, 32, 32) and family("bert").kinds(6) == []
    assert np.unique(family("cifar_resnet").widths(54, 64)).tolist() == [16, 32, 64]
