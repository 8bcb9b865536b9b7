"""docs/coming-from.md: its commands work, and what it calls the same is the same number in the toolkits' own code."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdexp.cli import commands, errors
from kdexp.common import arguments
from kdexp.objectives import (
    dist,
    hid_seq,
    hidden_cosine,
    kd,
    patience,
    pkt,
    review,
    rkd,
    similarity_preserving,
    srd,
    standard_kl,
)
from tests.conftest import REPOSITORY, RunProgram, sentence

PAGE = (REPOSITORY / "docs" / "coming-from.md").read_text(encoding="utf-8")
COMMANDS = [line.removeprefix("python -m kdexp ") for line in PAGE.splitlines() if line.startswith("python -m kdexp ")]


def classifier(like: Path, folder: Path, layers: int) -> None:
    """A classifier with ``layers`` layers and the tokenizer of another model."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    config = AutoConfig.from_pretrained(like, num_hidden_layers=layers, **names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert_dir: Path) -> Path:
    """A folder with all that the page's commands name."""
    folder = tmp_path_factory.mktemp("coming_from")
    classifier(tiny_bert_dir, folder / "my_teacher", 12)
    classifier(tiny_bert_dir, folder / "my_small_model", 2)
    for name in ("my_data", "my_texts"):
        (folder / name).mkdir()
    for name, rows in (("train", range(64)), ("validation", range(64, 96)), ("unlabelled", range(96, 128))):
        lines = [f"{sentence(row, row % 2)},{'positive' if row % 2 else 'negative'}" for row in rows]
        (folder / "my_data" / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
        text = "\n\n".join(f"{sentence(row, row % 2)} {row}" for row in rows)
        (folder / "my_texts" / f"{name}.txt").write_text(text)
    return folder


def test_the_page_shows_a_command_a_toolkit():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0].split(":")[0] for section in sections] == [
        "TextBrewer", "torchdistill", "INCTrainer", "SetFit", "sentence-transformers",
    ]  # fmt: skip
    assert all("\npython -m kdexp " in section and "| here |" in section for section in sections)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("export")])
def test_a_command_of_the_page_would_run(command: str, place: Path, kdexp: RunProgram):
    done = kdexp([*shlex.split(command), "dry=true"], cwd=place)
    assert done.returncode == 0, done.stderr
    assert "would run" in done.stdout and "has no effect" not in done.stderr
    assert not (place / "multirun").exists()


def test_a_verb_of_the_page_takes_its_words():
    verbs = [shlex.split(command) for command in COMMANDS if command.startswith("export")]
    assert verbs
    for name, *words in verbs:
        assert arguments.parse(words, commands.load(name).keys)["forms"] == ["onnx", "onnx_int8"]


def test_settings_that_the_page_names_exist(compose: Any):
    """Every ``group.key`` in its tables and examples is a key of some choice."""
    known: set[str] = set()
    for words in (
        "objective=kd",
        "objective=hid_seq",
        "objective=pkd",
        "objective=embeddings task=embeddings",
        "task=local",
    ):
        known |= set(errors.paths(compose(*words.split())))
    named = set(re.findall(r"[`' ]((?:objective|recipe|runtime|task|teacher|student)\.[a-zA-Z_.0-9]+\w)", PAGE))
    unknown = {key for key in named if key not in known and "TERM" not in key}
    assert unknown <= {"teacher.encode", "student.transformers_model.encoder.layer"}, unknown  # of Python


# --- the toolkits themselves -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> SimpleNamespace:
    """What two BERTs answer on one batch of texts of different lengths."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sides = []
    for layers in (2, 4):
        config = BertConfig(
            vocab_size=100, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64,
            num_labels=3, initializer_range=0.1,
        )  # fmt: skip
        sides.append(BertForSequenceClassification(config).eval())
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 7, 5, 4, 9, 3)])
    inputs = {"input_ids": torch.randint(5, 100, mask.shape), "attention_mask": mask}
    labels = torch.tensor([0, 1, 2, 2, 0, 1])
    with torch.no_grad():
        student, teacher = (model(**inputs, labels=labels, output_hidden_states=True) for model in sides)
    return SimpleNamespace(student=student, teacher=teacher, mask=mask, labels=labels)


def needs(*packages: str) -> None:
    lacking = [name for name in packages if find_spec(name) is None]
    if lacking:
        pytest.skip(f"needs {' and '.join(lacking)} beside kdexp: pip install 'kdexp[bench]'")


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.abs() > 1e-6, "nothing is compared"
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_textbrewers_losses_are_ours(pair: SimpleNamespace, tmp_path: Path):
    """The worked example as its own distiller computes it, and each loss of the table."""
    needs("textbrewer")
    import textbrewer
    from textbrewer import losses
    from textbrewer.distiller_utils import post_adaptor

    student, teacher, mask, labels = pair.student, pair.teacher, pair.mask, pair.labels
    matches = [
        {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        for s, t in ((0, 0), (1, 2), (2, 4))
    ]
    distiller = textbrewer.GeneralDistiller(
        textbrewer.TrainingConfig(device="cpu", output_dir=str(tmp_path / "out")),
        textbrewer.DistillationConfig(
            temperature=8, kd_loss_weight=0.9, hard_label_weight=0.1, kd_loss_type="ce", intermediate_matches=matches
        ),
        torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), lambda *_: None, lambda *_: None,
    )  # fmt: skip

    def adapted(side: Any) -> Any:
        return post_adaptor(
            {"logits": side.logits, "hidden": side.hidden_states, "inputs_mask": mask, "losses": side.loss}
        )

    total, _ = distiller.compute_loss(adapted(student), adapted(teacher))
    ours = kd.kd_total(student.logits, teacher.logits, labels, 0.9, 8.0, form="soft_ce", times_T2=False)
    for s, t in ((0, 0), (1, 2), (2, 4)):
        ours = ours + hid_seq.hidden_mse(student.hidden_states[s], teacher.hidden_states[t], mask)
    close(ours, total)
    h_s, h_t = student.hidden_states[1], teacher.hidden_states[2]
    close(hidden_cosine.hidden_cosine(h_s, h_t, mask), losses.cos_loss(h_s, h_t, mask))
    one = patience.patience(h_s[:, :1], h_t[:, :1])
    close(one * h_s.shape[-1], losses.pkd_loss(h_s, h_t))


@pytest.mark.slow
def test_torchdistills_losses_are_ours(pair: SimpleNamespace):
    """The criteria of the table, each called as its box calls it."""
    needs("torchdistill")
    from torchdistill.losses import mid_level as theirs

    student, teacher, labels = pair.student, pair.teacher, pair.labels
    paths = ("classifier", "output", "classifier", "output")
    s, t = {"classifier": {"output": student.logits}}, {"classifier": {"output": teacher.logits}}
    close(
        kd.kd_total(student.logits, teacher.logits, labels, 0.1, 5.0),
        theirs.KDLoss(*paths, temperature=5.0, alpha=0.9, reduction="batchmean")(s, t, labels),
    )
    close(
        dist.dist_loss(student.logits, teacher.logits, 1.0, 2.0, 1.0),
        theirs.DISTLoss(*paths, beta=1.0, gamma=2.0, tau=1.0)(s, t),
    )
    close(
        standard_kl.standard_kl(student.logits, teacher.logits, 2.0, times_T2=False),
        theirs.LogitStdKDLoss(*paths, temperature=2.0, alpha=0)(s, t, labels),
    )
    u, v = student.hidden_states[-1].mean(1), teacher.hidden_states[-1].mean(1)
    s, t = {"layer": {"output": u}}, {"layer": {"output": v}}
    close(rkd.rkd(u, v, 1.0, 2.0), theirs.RKDLoss("layer", "layer", 1.0, 2.0, "mean")(s, t))
    close(pkt.pkt(u, v), theirs.PKTLoss("layer", "output", "layer", "output")(s, t))
    norm = torch.nn.BatchNorm1d(u.shape[1], eps=1e-4, affine=False)  # what theirs reads is normalised by the models
    s = {"norm": {"output": norm(u)}, "classifier": {"output": student.logits}}
    t = {"norm": {"output": norm(v)}, "classifier": {"output": teacher.logits}}
    both = theirs.SRDLoss(*("norm", "output") * 2, *paths, exponent=4.0, temperature=2.0)(s, t)
    soft = torch.nn.functional.kl_div(
        (student.logits / 2).log_softmax(-1), (teacher.logits / 2).softmax(-1), reduction="batchmean"
    )
    close(2 * srd.srd(u, v, exponent=4.0) + soft, both)
    maps = [torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    s, t = {"fused": {"output": (maps[0], None)}}, {"block": {"output": maps[1]}}
    close(review.hcl([maps[0]], [maps[1]]), theirs.HierarchicalContextLoss("fused", "output", "block", "output")(s, t))
    s, t = {"layer": {"output": u}}, {"layer": {"output": v}}
    # The paper's rows have length 1; theirs have absolute values that sum to 1 (in `normalize(x, 1)` 1 is p).
    spkd = theirs.SPKDLoss("layer", "layer", "batchmean")
    rows = [torch.nn.functional.normalize(x @ x.T, p=2) for x in (u, v)]
    close(similarity_preserving.similarity_preserving(u, v), (rows[0] - rows[1]).square().mean())
    rows = [torch.nn.functional.normalize(x @ x.T, p=1) for x in (u, v)]
    close((rows[0] - rows[1]).square().mean(), spkd(s, t))
