"""The head of hidden tokens: run where it is asked it gives what it gives everywhere, and hand-made values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdexp.heads.hidden_tokens import COUNTS, NOTHING, PLACES, TOKENS, scores
from kdexp.heads.masked_lm import MaskedLM
from kdexp.models import capture
from kdexp.models.families.base import ATTENTION
from kdexp.objectives.finetune import Finetune
from kdexp.objectives.hidden_cosine import hidden_cosine
from kdexp.objectives.kd import KD
from kdexp.tasks.text.masking import Masking
from kdexp.tasks.text.packing import Packed
from kdexp.train.step import Step, Term, run_step

HEAD = MaskedLM()
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


def model(family: str, seed: int, layers: int = 2) -> torch.nn.Module:
    from transformers import AutoModelForMaskedLM, BertConfig, ElectraConfig, ModernBertConfig, RobertaConfig

    kinds = {"bert": BertConfig, "roberta": RobertaConfig, "electra": ElectraConfig, "modernbert": ModernBertConfig}
    more = {"max_position_embeddings": 40} | (
        {"cls_token_id": 2, "sep_token_id": 3, "pad_token_id": 0} if family == "modernbert" else {}
    )
    config = kinds[family](num_hidden_layers=layers, **SIZES, **more)
    torch.manual_seed(seed)
    capture.install()
    return AutoModelForMaskedLM.from_config(config, attn_implementation=ATTENTION).eval()


def data(rows: int = 12, length: int = 20) -> Packed:
    ids = np.random.default_rng(0).integers(5, 50, (rows, length)).astype(np.uint16)
    ids[:, 0], ids[:, -1] = 2, 3
    special = np.arange(50) < 5
    lengths = np.full(rows, length)
    lengths[::4] = 9
    return Packed(ids, lengths, np.bincount(ids.ravel(), minlength=50), Masking(0.15, 0.8, 0.1, 4, special), 0, rows)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "modernbert"])
def test_at_some_places_the_head_gives_what_it_gives_everywhere(family):
    one, batch = model(family, 1), data().collate(np.arange(12), step_seed=3)
    everywhere = one(**batch.inputs).logits
    expected = everywhere[torch.arange(12)[:, None], batch.labels[PLACES]]
    capture.prepare(one, frozenset())
    found = capture.forward(one, HEAD, batch)["logits"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    hidden = batch.labels[TOKENS] != NOTHING
    full = torch.full(batch.inputs["input_ids"].shape, NOTHING)
    full[torch.arange(12)[:, None].expand_as(hidden)[hidden], batch.labels[PLACES][hidden]] = batch.labels[TOKENS][
        hidden
    ]
    assert int((full != NOTHING).sum()) == int(HEAD.units(batch)) == int(hidden.sum())
    loss = F.cross_entropy(everywhere.flatten(0, 1), full.flatten(), ignore_index=NOTHING)
    torch.testing.assert_close(HEAD.loss({"logits": found}, batch), loss, rtol=1e-6, atol=1e-6)
    gradients = []
    for value in (loss, HEAD.loss(capture.forward(one, HEAD, batch), batch)):
        one.zero_grad()
        value.backward()
        gradients.append([p.grad.clone() for p in one.parameters() if p.grad is not None])
    for mine, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6)


def test_the_head_is_not_run_where_nobody_reads_it(monkeypatch):
    one, batch = model("bert", 1), data().collate(np.arange(4))
    capture.prepare(one, frozenset({"hidden.1"}))
    sizes = []
    one.cls.register_forward_hook(lambda m, given, output: sizes.append(tuple(output.shape)))
    features = capture.forward(one, HEAD, batch, frozenset({"hidden.1"}), answers=False)
    assert set(features) == {"hidden.1"} and sizes == [(4, 0, 50)]
    capture.forward(one, HEAD, batch, frozenset({"hidden.2"}))
    assert sizes[1] == (4, 3, 50)


def test_the_losses_by_hand():
    torch.manual_seed(0)
    mine, its = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    batch = data().collate(np.arange(2))
    batch = replace(batch, labels={TOKENS: torch.tensor([[1, 4, NOTHING], [2, NOTHING, NOTHING]])})
    at = [(0, 0, 1), (0, 1, 4), (1, 0, 2)]
    log_q, log_p = ((x / 2).log_softmax(-1) for x in (mine, its))
    hard = -sum(mine[i, j].log_softmax(-1)[k] for i, j, k in at) / 3
    kl = 4 * sum((log_p[i, j].exp() * (log_p[i, j] - log_q[i, j])).sum() for i, j, _ in at) / 3
    cross = -4 * sum((log_p[i, j].exp() * log_q[i, j]).sum() for i, j, _ in at) / 3
    one, other = {"logits": mine}, {"logits": its}
    torch.testing.assert_close(HEAD.loss(one, batch), hard)
    torch.testing.assert_close(HEAD.loss(one, batch, "sum"), 3 * hard)
    torch.testing.assert_close(HEAD.soft_loss(one, other, batch, 2.0), kl)
    torch.testing.assert_close(HEAD.soft_loss(one, other, batch, 2.0, reduction="sum"), 3 * kl)
    torch.testing.assert_close(HEAD.soft_loss(one, other, batch, 2.0, reduction="mean"), kl / 5)
    torch.testing.assert_close(HEAD.soft_loss(one, other, batch, 2.0, form="soft_ce", times_T2=False), cross / 4)
    kd = KD(alpha=0.3, temperature=2.0)
    kd.head = HEAD
    torch.testing.assert_close(kd(one, other, batch), 0.7 * hard + 0.3 * kl)
    gap = sum((mine[i, j] - its[i, j]).square().mean() for i, j, _ in at) / 3
    torch.testing.assert_close(HEAD.squared_error(one, other, batch), gap)
    empty = replace(batch, labels={TOKENS: torch.full((2, 3), NOTHING)})
    assert float(HEAD.loss(one, empty)) == 0.0


def test_micro_batches_add_up_and_the_step_compiles():
    batch = data().collate(np.arange(12), step_seed=1)
    kd, hard = KD(), Finetune()
    kd.head = hard.head = HEAD
    target = {"logits": torch.randn(12, batch.labels[TOKENS].shape[1], 50, generator=torch.Generator().manual_seed(0))}
    step = Step(model("bert", 1), HEAD, [Term("kd", 1.0, kd), Term("hard", 2.0, hard)])
    ones = {"kd": torch.ones(()), "hard": torch.ones(())}
    whole = run_step(step, batch, target, ones)
    parts = [batch.part(slice(0, 5)), batch.part(slice(5, 12))]
    targets = [{"logits": target["logits"][:5]}, {"logits": target["logits"][5:]}]
    shares = [{name: HEAD.units(part) / HEAD.units(batch) for name in ones} for part in parts]
    sums = [run_step(step, p, t, s) for p, t, s in zip(parts, targets, shares, strict=True)]
    torch.testing.assert_close(sums[0][0] + sums[1][0], whole[0])
    torch._dynamo.reset()
    compiled = torch.compile(run_step, fullgraph=True, backend="eager")(step, batch, target, ones)
    torch.testing.assert_close(compiled[0], whole[0])


def test_the_trivial_answer_is_the_commonest_token():
    split = data()
    guess = HEAD.trivial(split.targets, split.targets)
    found = scores(guess, split.targets)
    hidden = split.targets[TOKENS]
    odds = (split.counts + 1) / (split.counts + 1).sum()
    assert found["accuracy"] == pytest.approx((hidden[hidden != NOTHING] == odds.argmax()).mean())
    assert found["mlm_loss"] == pytest.approx(-np.log(odds[hidden[hidden != NOTHING]]).mean(), rel=1e-6)
    assert split.targets[COUNTS] is split.counts


def sine(shape: tuple[int, ...], phase: float, scale: float) -> torch.Tensor:
    k = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (scale * torch.sin(1 + 0.7 * k + phase)).reshape(shape)


def test_cosine_of_hidden_states():
    one, other, mask = sine((2, 3, 4), 0.3, 1.0), sine((2, 3, 4), 1.1, 1.5), torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert float(hidden_cosine(one, other, mask)) == pytest.approx(0.283179867883, abs=1e-9)
    assert float(hidden_cosine(one, other)) == pytest.approx(0.2809216707, abs=1e-9)
    assert float(hidden_cosine(one, 4 * one)) == pytest.approx(0.0, abs=1e-9), "scale is invisible"
    assert float(hidden_cosine(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))) == 1.0
