"""Inits that cut a teacher to another width: exact where the function can be kept, refused where nothing fits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from kdexp.cli.reference import bert_parameter_count
from kdexp.config import choices
from kdexp.heads.batch import Batch
from kdexp.inits import narrowing
from kdexp.inits.importance import Importance
from kdexp.inits.narrow import Plan
from kdexp.inits.pca import PCA
from kdexp.inits.slice import Slice
from kdexp.inits.svd import SVD
from kdexp.methods import wid
from kdexp.models import capture
from kdexp.models.families import base as families
from kdexp.models.families.base import ATTENTION

CONF = Path(__file__).resolve().parents[1] / "conf"
D, H, F = 24, 4, 40
IDS = torch.tensor([[2, 7, 9, 11, 30, 3], [2, 8, 21, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def bert(hidden: int = D, heads: int = H, neurons: int = F, layers: int = 2, seed: int = 1) -> Any:
    """A small BERT in float64 whose biases and LayerNorms are no trivial ones."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    torch.manual_seed(seed)
    config = BertConfig(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=neurons,
        vocab_size=50, max_position_embeddings=32, num_labels=3, problem_type="single_label_classification",
    )  # fmt: skip
    capture.install()
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=ATTENTION).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def says(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=MASK).logits


def texts() -> list[Batch]:
    return [Batch({"input_ids": IDS, "attention_mask": MASK}, MASK, {}, torch.arange(2))]


def plan(hidden: list[int], heads: list[int], neurons: list[int], layers: int = 2) -> Plan:
    return Plan(hidden, [heads] * layers, [neurons] * layers)


@pytest.mark.parametrize("kind", [Slice, Importance, PCA])
def test_an_unchanged_width_is_the_teacher(kind):
    big, small = bert(), bert(seed=2)
    report = narrowing.apply(kind(name="x", head=True), small, big, texts())
    assert torch.equal(says(small), says(big))
    assert report["layers"] == [1, 2] and report["random"] == 0 and report["hidden"] == list(range(D))


def test_a_permutation_is_invisible():
    big, small, order = bert(), bert(seed=2), torch.randperm(D).tolist()
    heads, neurons = [2, 0, 3, 1], torch.randperm(F).tolist()
    narrowing.cut(Slice(name="x", head=True), small, big, [1, 2], plan(order, heads, neurons))
    assert not torch.equal(small.bert.pooler.dense.weight, big.bert.pooler.dense.weight)
    torch.testing.assert_close(says(small), says(big), rtol=0, atol=1e-12)


def test_heads_and_neurons_that_say_nothing_can_go():
    big = bert()
    with torch.no_grad():
        for block in big.bert.encoder.layer:
            block.attention.output.dense.weight[:, 12:] = 0
            block.output.dense.weight[:, 25:] = 0
    small = bert(neurons=25, seed=2)
    for block in small.bert.encoder.layer:  # as many heads, of which half are left: BERT ties heads to the width
        block.attention.self.num_attention_heads, block.attention.self.all_head_size = 2, 12
        for name in ("query", "key", "value"):
            setattr(block.attention.self, name, torch.nn.Linear(D, 12).double())
        block.attention.output.dense = torch.nn.Linear(12, D).double()
    narrowing.cut(Slice(name="x", head=True), small, big, [1, 2], plan(list(range(D)), [0, 1], list(range(25))))
    torch.testing.assert_close(says(small), says(big), rtol=0, atol=1e-12)


def test_a_teacher_of_doubled_dimensions_is_cut_to_its_half():
    small, other = bert(12, 2, 20), bert(12, 2, 20, seed=3)
    big = bert(24, 4, 40, seed=2)
    with torch.no_grad():
        theirs = dict(big.named_parameters())
        for name, part in small.named_parameters():
            whole, kinds = theirs[name], narrowing.axes(name)
            assert kinds is not None
            whole.zero_()
            if kinds == (narrowing.WHOLE,):
                whole.copy_(part)
            elif part.dim() == 1:
                whole[: len(part)] = part
                if kinds[0] == narrowing.HIDDEN:
                    whole[len(part) :] = part
            else:
                rows, columns = part.shape
                whole[:rows, :columns] = part
                if kinds[0] == narrowing.HIDDEN:
                    whole[rows:, :columns] = part
                if kinds[0] == narrowing.WHOLE and "embeddings" in name:
                    whole[:, columns:] = part
    torch.testing.assert_close(says(big), says(small), rtol=0, atol=1e-12)
    narrowing.apply(Slice(name="x", head=True), other, big)
    torch.testing.assert_close(says(other), says(small), rtol=0, atol=1e-12)


def test_a_slice_of_the_hidden_width_is_another_function_even_of_zeros():
    """LayerNorm takes mean and variance over all dimensions: the plain slice does not keep the function."""
    big, small = bert(24, 4, 40), bert(12, 2, 20, seed=2)
    with torch.no_grad():
        for name, part in big.named_parameters():
            for axis, kind in enumerate(narrowing.axes(name) or ()):
                if kind != narrowing.WHOLE:
                    part.narrow(axis, part.shape[axis] // 2, part.shape[axis] - part.shape[axis] // 2).zero_()
    narrowing.apply(Slice(name="x", head=True), small, big)
    assert (says(small) - says(big)).abs().max() > 0.01


def test_svd_of_whole_heads_keeps_the_function():
    big, small = bert(), bert(seed=2)
    narrowing.apply(SVD(name="x", head=True), small, big, texts())
    assert not torch.equal(
        small.bert.encoder.layer[0].attention.self.query.weight, big.bert.encoder.layer[0].attention.self.query.weight
    )
    torch.testing.assert_close(says(small), says(big), rtol=0, atol=1e-10)


def test_svd_makes_smaller_heads_that_are_better_than_halves():
    """Heads whose score and contribution have rank 3 lose nothing in 3 dimensions."""
    big = bert()
    with torch.no_grad():
        for block in big.bert.encoder.layer:
            for name in ("query", "value"):
                linear = getattr(block.attention.self, name)
                for head in range(H):
                    rows = slice(head * 6, head * 6 + 6)
                    mix = torch.randn(6, 3, dtype=torch.float64) @ torch.randn(3, 6, dtype=torch.float64)
                    linear.weight[rows], linear.bias[rows] = mix @ linear.weight[rows], mix @ linear.bias[rows]
    small = bert(24, 8, 40, seed=2)
    for block in small.bert.encoder.layer:  # 4 heads of 3 in a width of 24
        own = block.attention.self
        own.num_attention_heads, own.attention_head_size, own.all_head_size, own.scaling = 4, 3, 12, 3**-0.5
        for name in ("query", "key", "value"):
            setattr(own, name, torch.nn.Linear(D, 12).double())
        block.attention.output.dense = torch.nn.Linear(12, D).double()
    small.config.num_attention_heads = 8
    narrowing.cut(SVD(name="x", head=True), small, big, [1, 2], plan(list(range(D)), list(range(4)), list(range(F))))
    torch.testing.assert_close(says(small), says(big), rtol=0, atol=1e-10)


def test_importance_finds_what_is_active():
    big = bert()
    with torch.no_grad():
        for block in big.bert.encoder.layer:
            block.intermediate.dense.weight[[3, 17]] *= 50
            block.attention.self.value.weight[12:18] *= 50
        for module in big.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight[[5, 9, 20]] = 30.0
    small = bert(6, 1, 2, seed=2)
    report = narrowing.apply(Importance(name="x"), small, big, texts())
    assert {5, 9, 20} <= set(report["hidden"])
    first = small.bert.encoder.layer[0]
    assert torch.equal(first.intermediate.dense.bias, big.bert.encoder.layer[0].intermediate.dense.bias[[3, 17]])
    assert torch.equal(first.attention.self.key.bias, big.bert.encoder.layer[0].attention.self.key.bias[12:18])
    assert report["random_names"] == ["classifier.weight", "classifier.bias"]


def test_compactors_merge_into_what_they_said():
    """Identities are invisible; cut and trained ones leave a narrow student that says the same, to rounding."""
    big, small = bert(), bert(12, 2, 20, seed=2)
    before = says(big)
    compactors = wid.Compactors(big, small)
    torch.testing.assert_close(says(big), before, rtol=0, atol=1e-12)
    with torch.no_grad():
        for name, parameter in big.named_parameters():
            if name.endswith((".row", ".column")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    compactors.cut(8, 1)
    assert int(big.bert.embeddings.LayerNorm.kept.sum()) == D - 6
    half = big.bert.embeddings.LayerNorm.kept.clone()
    compactors.cut(16, 1)
    kept = big.bert.embeddings.LayerNorm.kept
    assert int(kept.sum()) == 12 and (half - kept >= 0).all(), "what is cut stays cut"
    with pytest.raises(AssertionError):
        torch.testing.assert_close(says(big), before, rtol=0, atol=1e-3)
    compactors.merge()
    with torch.no_grad():
        small.classifier.weight.copy_(big.classifier.weight[:, kept.bool()])
        small.classifier.bias.copy_(big.classifier.bias)
    torch.testing.assert_close(says(small), says(big), rtol=0, atol=1e-12)


def test_padding_is_not_looked_at():
    big, longer = bert(), torch.nn.functional.pad
    wide = Batch(
        {"input_ids": longer(IDS, (0, 4), value=40), "attention_mask": longer(MASK, (0, 4))},
        longer(MASK, (0, 4)),
        {},
        torch.arange(2),
    )
    one, other = narrowing.score(big, texts()), narrowing.score(big, [wide])
    torch.testing.assert_close(one.hidden, other.hidden)
    torch.testing.assert_close(one.heads, other.heads)
    torch.testing.assert_close(one.neurons, other.neurons)
    assert not big.training and not any(
        m._forward_hooks or m._forward_pre_hooks for m in big.bert.encoder.layer[0].modules()
    )


def test_depth_and_width_are_chosen_apart():
    big, small = bert(layers=4), bert(12, 2, 20, layers=2, seed=2)
    for depth, layers in (("first", [1, 2]), ("last", [3, 4]), ("spread", [2, 4]), ([1, 3], [1, 3])):
        assert narrowing.apply(Slice(name="x", depth=depth), small, big)["layers"] == layers
        target, source = small.bert.encoder.layer[0], big.bert.encoder.layer[layers[0] - 1]
        assert torch.equal(target.intermediate.dense.weight, source.intermediate.dense.weight[:20, :12])
        assert torch.equal(target.attention.self.query.weight, source.attention.self.query.weight[:12, :12])


def test_an_unknown_weight_is_refused():
    big, small = bert(), bert(12, 2, 20)
    small.bert.encoder.layer[0].gate = torch.nn.Linear(2, 2).double()
    with pytest.raises(ValueError, match=r"how bert.encoder.layer.0.gate.weight is cut is not known"):
        narrowing.apply(Slice(name="x"), small, big)


TEACHER = {"hidden_size": 384, "num_heads": 12, "intermediate_size": 1536}


@pytest.mark.parametrize(
    ("kind", "sizes", "told"),
    [
        (Slice, (768, 24, 1536), ["student.hidden_size=768 is more than the teacher's 384", "num_heads=24"]),
        (Slice, (192, 12, 768), ["whole heads of 32", "heads of 16: use student.num_heads=6, or init=svd"]),
        (Importance, (200, 8, 768), ["heads of 25", "a student.hidden_size that is a multiple of 32"]),
        (SVD, (192, 12, 768), []),
        (SVD, (192, 3, 768), ["heads of 64"]),
        (Slice, (192, 6, 2000), ["student.intermediate_size=2000 is more"]),
        (PCA, (192, 6, 768), []),
    ],
)
def test_sizes_that_cannot_be_cut_are_refused_with_the_numbers(kind, sizes, told):
    said = " ".join(kind(name="x").unfit(TEACHER, dict(zip(TEACHER, sizes, strict=True))))
    assert all(words in said for words in told) and bool(said) == bool(told)


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match="init.depth=middle is unknown; choose one of first, last, spread"):
        Slice(depth="middle").layers(2, 4)


BASE = bert_parameter_count(12, 768, 3072, 30522)


MINILM = bert_parameter_count(6, 384, 1536, 30522)


@pytest.mark.parametrize(
    ("name", "millions", "teacher"),
    [("l6_w384", 22.7, BASE), ("l12_w256", 17.5, BASE), ("l3_w512", 25.6, BASE), ("l6_w128", 5.2, MINILM)],
)
def test_shipped_students_are_four_times_smaller(name, millions, teacher):
    """As they say of themselves, by formula and by the model that transformers makes of the sizes."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        student = compose(f"student/{name}").student
    from transformers import BertConfig, BertModel

    config = BertConfig(
        num_hidden_layers=student.num_layers, hidden_size=student.hidden_size, num_attention_heads=student.num_heads,
        intermediate_size=student.intermediate_size,
    )  # fmt: skip
    with torch.device("meta"):
        count = sum(p.numel() for p in BertModel(config).parameters())
    expected = bert_parameter_count(student.num_layers, student.hidden_size, student.intermediate_size, 30522)
    assert count == expected and round(count / 1e6, 1) == millions and 4 * count < teacher
    said = (CONF / "student" / f"{name}.yaml").read_text()
    assert f"{millions} million parameters, {teacher / count:.1f} times fewer" in said


def test_students_of_their_own_width_have_heads_of_their_teachers_size():
    for name in choices.names(CONF / "student"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            student = compose(f"student/{name}").student
        if student.hidden_size is not None:
            of_minilm = "Of MiniLM" in (CONF / "student" / f"{name}.yaml").read_text()
            assert student.hidden_size // student.num_heads == (32 if of_minilm else 64)
            assert student.intermediate_size == 4 * student.hidden_size


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert", "modernbert", "vit"])
def test_every_size_that_is_asked_for_is_the_models(name: str):
    from transformers import AutoConfig, AutoModel

    config, family = AutoConfig.for_model(name), families.family(name)
    family.resize(config, {"num_layers": 2, "hidden_size": 24, "num_heads": 4, "intermediate_size": 40})
    model = AutoModel.from_config(config)
    blocks = family.layers(model)
    assert len(blocks) == 2 and config.num_attention_heads == 4
    assert {size for weight in blocks.parameters() for size in weight.shape} <= {24, 40, 3 * 24, 2 * 40}
    assert any(40 in weight.shape or 80 in weight.shape for weight in blocks.parameters())


def test_copies_leave_the_teacher_alone():
    big, small = bert(), bert(12, 2, 20, seed=2)
    before = copy.deepcopy(big.state_dict())
    narrowing.apply(Importance(name="x"), small, big, texts())
    assert all(torch.equal(value, before[name]) for name, value in big.state_dict().items())
