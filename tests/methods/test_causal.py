"""Models that read from left to right: the next token, copied layers, TED's filters on raw text, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from kdexp.heads.causal_lm import CausalLM
from kdexp.heads.hidden_tokens import NOTHING, PLACES, TOKENS
from kdexp.models import capture, shared_layers
from kdexp.models.families.base import ATTENTION
from kdexp.run import execute, spec
from kdexp.tasks.base import DataContext
from kdexp.tasks.text import tokenizer
from kdexp.tasks.text.causal import CausalText
from tests.conftest import sentence
from tests.hub.checkpoints import write
from tests.hub.vocabularies import gpt2 as vocabulary

HEAD = CausalLM()
LENGTH = 24


def config(layers: int = 4, words: int = 60):
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=words, n_positions=64, n_embd=32, n_layer=layers, n_head=4, bos_token_id=words - 1,
        eos_token_id=words - 1,
    )  # fmt: skip


def model(layers: int = 4, attention: str = ATTENTION) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    capture.install()
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config(layers), attn_implementation=attention).eval()
    for name, weight in made.named_parameters():  # as they come, all answers are alike
        if weight.ndim == 2 and "wpe" not in name:
            weight.data *= 5
    return made


@pytest.fixture(scope="module")
def tiny_gpt2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 (4 layers, width 32, 4 heads) with a tokenizer of its form, which has nothing to pad with."""
    from transformers import GPT2LMHeadModel

    folder, words = tmp_path_factory.mktemp("models") / "tiny_gpt2", vocabulary()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config(words=words.size)).save_pretrained(folder)
    for name, content in {**words.files, "tokenizer.json": words.fast}.items():
        (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of raw text."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [". ".join([str(row), *(sentence(7 * row + k, k % 2) for k in range(6))]) for row in range(90)]
    (folder / "train.txt").write_text("\n\n".join(texts))
    return folder


def data(folder: Path, model: Path, cache: Path, **changes):
    context = DataContext(str(model), {"local_files_only": True}, None, 64, LENGTH, None, 0.1, cache, lambda line: None)
    return CausalText(
        "clm", folder=str(folder), validation_share=0.1, metrics=["accuracy", "clm_loss"], **changes
    ).datasets(context)


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
def test_each_token_sees_those_before_it_only(padded):
    one, other = model(), model(attention="eager")
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 59, (3, 20)))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0 if padded else 1
    plain = other(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    ours = one(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    real = mask.bool()
    torch.testing.assert_close(ours.logits[real], plain.logits[real], rtol=1e-4, atol=1e-5)
    for mine, its in zip(ours.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], its[real], rtol=1e-4, atol=1e-5)
    changed = ids.clone()
    changed[:, 15:] = (changed[:, 15:] + 7) % 59
    again = one(input_ids=changed, attention_mask=mask).logits
    assert torch.equal(again[0, :15], ours.logits[0, :15]) and not torch.equal(again[0, 15:], ours.logits[0, 15:])


def test_no_block_is_run_above_the_last_wanted_one_and_no_head_where_nobody_reads_it(corpus, tiny_gpt2_dir, tmp_path):
    from transformers import AutoModelForCausalLM

    batch = data(corpus, tiny_gpt2_dir, tmp_path)["train"].collate(np.arange(4))
    one = AutoModelForCausalLM.from_pretrained(tiny_gpt2_dir, attn_implementation=ATTENTION).eval()
    whole = one(**batch.inputs, output_hidden_states=True).hidden_states
    want, run, heads = frozenset({"hidden.0", "hidden.2"}), [], []
    capture.prepare(one, want)
    for number, block in enumerate(one.transformer.h, 1):
        block.mlp.register_forward_hook(lambda m, given, output, number=number: run.append(number))
    one.lm_head.register_forward_hook(lambda m, given, output: heads.append(output.shape[1]))
    features = capture.forward(one, HEAD, batch, want, answers=False)
    assert run == [1, 2] and heads == [0] and set(features) == want
    assert all(torch.equal(features[f"hidden.{n}"], whole[n]) for n in (0, 2))


def test_the_loss_is_that_of_transformers(corpus, tiny_gpt2_dir, tmp_path):
    from transformers import AutoModelForCausalLM

    split = data(corpus, tiny_gpt2_dir, tmp_path, documents="apart")["train"]
    batch = split.collate(np.arange(min(16, len(split))))
    assert 0 < int(batch.mask.sum()) < batch.mask.numel(), "some are padded"
    one = AutoModelForCausalLM.from_pretrained(tiny_gpt2_dir).eval()
    labels = batch.inputs["input_ids"].masked_fill(batch.mask == 0, -100)
    expected = one(**batch.inputs, labels=labels).loss
    capture.prepare(one, frozenset())
    features = capture.forward(one, HEAD, batch)
    assert features["logits"].shape[1] == batch.mask.shape[1] - 1
    torch.testing.assert_close(HEAD.loss(features, batch), expected, rtol=1e-5, atol=1e-6)
    assert int(HEAD.units(batch)) == int((labels[:, 1:] != -100).sum())


def test_a_repeated_layer_with_queries_and_keys_exchanged_is_exported_as_it_runs():
    one = model(2)
    shared_layers.share(one, "sps2")
    ids = torch.arange(12)[None]
    plain = shared_layers.unroll(one)
    assert plain.config.n_layer == 4
    ours = one(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(plain(input_ids=ids).logits, ours, rtol=1e-4, atol=1e-5)


# --- the data --------------------------------------------------------------------------------------------------------


def test_what_is_asked_is_what_comes_next(corpus, tiny_gpt2_dir, tmp_path):
    split = data(corpus, tiny_gpt2_dir, tmp_path)["train"]
    batch = split.collate(np.arange(6), step_seed=3)
    ids, labels = batch.inputs["input_ids"], batch.labels
    assert ids.shape == (6, LENGTH) and labels[TOKENS].shape == (6, LENGTH - 1)
    assert torch.equal(labels[TOKENS], ids[:, 1:]) and torch.equal(labels[PLACES][0], torch.arange(LENGTH - 1))
    assert torch.equal(split.collate(np.arange(6), step_seed=9).inputs["input_ids"], ids), "nothing is drawn"
    reader = tokenizer.load(tiny_gpt2_dir, pads=False)
    running = split.tokens[: len(split) - 1].ravel()
    ends = int((running == reader.eos_token_id).sum())
    assert split.documents - 2 <= ends <= split.documents, "one token between two texts, and no other special one"
    first = reader.decode(split.tokens[0])
    assert first.replace(" ", "")[:8] in (corpus / "train.txt").read_text().replace(" ", "")
    last = data(corpus, tiny_gpt2_dir, tmp_path, documents="apart")["train"].collate(np.arange(8))
    assert (last.labels[TOKENS] == NOTHING).any()


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(tiny_gpt2_dir: Path, corpus: Path) -> list[str]:
    """Command-line words of a run on raw text with a teacher that reads from left to right."""
    return [
        "task=clm", f"task.folder={corpus}", "task.validation_share=0.1", "task.limit_validation=8", "data.heldout=0.1",
        "teacher=local", f"teacher.source=path:{tiny_gpt2_dir}", f"teacher.recipe.max_length={LENGTH}", "student=l2",
        "init=spread", "init.source=pretrained", "study=raw", "recipe=agnostic", "recipe.steps=4",
        "recipe.batch_size=8", "recipe.accumulation=2", f"recipe.max_length={LENGTH}", "runtime.compile=false",
        "runtime.device=cpu", "runtime.dtype=fp32", "runtime.progress=false", "runtime.log_every=1", "tracking=off",
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, compose) -> Callable[..., dict]:
    """``run(*words)`` carries a run out in this process."""
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    return lambda *words: execute.execute(spec.make(compose(*words)))


def notes(folder: Path, result: dict) -> dict[str, dict]:
    """What a run's stages noted, by name."""
    store = folder / "multirun" / ".store"
    return {s["name"]: json.loads((store / s["key"] / "meta.json").read_text())["summary"] for s in result["stages"]}


def test_a_student_learns_the_next_token_from_a_teacher(run, alone, tmp_path, tiny_gpt2_dir):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = run(*alone, "objective=agnostic_kd", "recipe.learning_rate=1e-12")
    scores, [note] = result["scores"]["validation"], notes(tmp_path, result).values()
    assert set(scores) == {"accuracy", "log_likelihood", "clm_loss", "perplexity"}
    assert scores["perplexity"] == pytest.approx(np.exp(scores["clm_loss"])) and scores["clm_loss"] > 0
    assert note["head"] == "trained" and set(note["agreement"]) == {"heldout", "validation"}
    assert result["init"]["layers"] == [2, 4] and result["init"]["random"] == 0, "the head is the word embedding"
    folder = Path(result["student"]["weights"])
    student, teacher = (load_file(place / "model.safetensors") for place in (folder, tiny_gpt2_dir))
    for here, there in ((0, 1), (1, 3)):
        name = "transformer.h.{}.attn.c_attn.weight"
        torch.testing.assert_close(student[name.format(here)], teacher[name.format(there)], rtol=0, atol=1e-9)
    plain, reader = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert plain.config.use_cache and plain.config.n_layer == 2
    ids = reader("the day was bright", return_tensors="pt")
    assert plain.generate(**ids, max_new_tokens=2, do_sample=False).shape[1] == ids["input_ids"].shape[1] + 2


def test_hidden_states_alone_train_a_head_that_is_the_embedding(run, alone, tmp_path):
    result = run(*alone, "objective=agnostic_hid_seq", "init=last", "init.source=pretrained")
    [note] = notes(tmp_path, result).values()
    assert note["head"] == "embedding" and result["scores"]["validation"]["clm_loss"] > 0
    assert result["init"]["layers"] == [3, 4]


def test_ted_goes_through_filters_that_learned_the_next_token(run, alone, tmp_path):
    words = [*alone, "objective=continual_ted", "objective.filters.steps=6", "objective.filters.learning_rate=3e-3"]
    result = run(*words)
    assert [s["name"] for s in result["stages"]] == ["ted.teacher_filters", "ted.student_filters", "ted_text.match"]
    assert result["mapping"]["ted"] == [[1, 2], [2, 4]]
    noted = notes(tmp_path, result)
    assert noted["ted.teacher_filters"]["layers"] == [2, 4] and noted["ted.student_filters"]["layers"] == [1, 2]
    assert set(noted["ted.teacher_filters"]["learned_parts"]) == {
        f"{i}.linear.{part}" for i in (0, 1) for part in ("weight", "bias")
    }
    assert noted["ted.teacher_filters"]["steps"] == 6
    assert set(noted["ted_text.match"]["heldout_terms"]["validation"]) == {"finetune", "kd", "ted"}
    fine = run(*words, "objective.start=fine_tuned")
    assert [s["reused"] for s in fine["stages"]] == [True, False, False, False]
    assert [s["name"] for s in fine["stages"]][1:] == ["student.start", "ted.student_filters", "ted_text.match"]
    lwd = run(*alone, "objective=continual_lwd")
    assert lwd["mapping"]["lwd"] == [[1, 2], [2, 4]] and lwd["stages"][-1]["name"] == "agnostic"


@pytest.mark.slow
def test_a_compiled_step_is_the_same(run, alone):
    words = [*alone, "objective=agnostic_distilbert", "recipe.dropout=0"]
    plain = run(*words)
    made = run(*words, "study=compiled", "runtime.compile=true", "runtime.store=multirun/.another")
    assert made["runtime"]["compile"]["agnostic"]["decided"] and not made["stages"][0]["reused"]
    for split, scores in plain["scores"].items():
        assert made["scores"][split] == pytest.approx(scores, rel=1e-4)


def test_a_stage_that_is_compiled_says_so_before_it_is_silent(run, alone, caplog, monkeypatch):
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    monkeypatch.setattr("kdexp.train.compiling._COMPILED", {})
    told = []
    for word in ("false", "true"):
        caplog.clear()
        run(*alone, "objective=agnostic_distilbert", f"study=of_{word}", f"runtime.compile={word}",
            f"runtime.store=multirun/.of_{word}")  # fmt: skip
        told.append("agnostic: its step is compiled before the first update (runtime.compile=true)" in caplog.messages)
    assert told == [False, True]


def test_filters_do_not_depend_on_what_was_drawn_before(run, alone, tmp_path):
    words = [*alone, "objective=continual_ted", "objective.filters.steps=2"]
    first = run(*words)
    kept = [load_file(p) for p in sorted((tmp_path / "multirun" / ".store").glob("*/filters.safetensors"))]
    shutil.rmtree(tmp_path / "multirun")
    torch.manual_seed(12345)
    second = run(*words)
    assert [s["key"] for s in first["stages"]] == [s["key"] for s in second["stages"]]
    again = [load_file(p) for p in sorted((tmp_path / "multirun" / ".store").glob("*/filters.safetensors"))]
    assert len(kept) == 2
    for one, other in zip(kept, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# --- what cannot work ------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_from_left_to_right_is_refused(
    alone, tiny_bert_dir, tiny_csv_task, compose, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (["objective=agnostic_att_mse"], "objective.prediction.att_mse compares how all tokens of a text attend"),
        (["objective=agnostic_minilm_v2"], "objective.prediction.minilm_v2 compares how all tokens"),
        (["objective=agnostic_hid_cls"], "takes the first token's vector for the text's; as the models (family gpt2)"),
        (
            ["objective=agnostic_mlm", f"teacher.source=path:{tiny_bert_dir}"],
            "(family bert) would see, for it reads both",
        ),
        (["objective=agnostic_mlm", "task=mlm"], "and task=mlm wants an encoder"),
        (["objective=ted"], "on raw text use continual_ted"),
        (["objective=continual_ted", "init.source=finetuned"], "nobody fine-tunes a teacher on raw text"),
        (["objective=continual_ted", "objective.schedule=two_phase"], "TED's stage II is one phase; use joint"),
        (["objective=continual_ted", "objective.budget.tokens=9"], "recipe.steps=4: one of them ends the phase"),
        (["objective=continual_ted", "objective.budget.tokens=9", "recipe.steps=null"], "when stage I ends"),
        (["objective=continual_lm", "recipe.max_length=65"], "can read 64 tokens"),
        (["objective=continual_lm", "task.metric=clm_loss"], "task.metric=clm_loss is better when lower"),
        (["objective=continual_lm", "task.metrics=[mlm_loss]"], "metric mlm_loss does not exist for the next token"),
        (["objective=continual_lm", "student.num_layers=5"], "needs a teacher of at least 5 layers"),
        (["objective=continual_lm", "init=svd", "student.hidden_size=16", "student.num_heads=2"], "is of family gpt2"),
    ):
        ready, problems = spec.prepare(compose(*alone, *words))
        assert ready is None and any(told in problem for problem in problems), (words, problems)
        assert len(problems) == 1, (words, problems)
    labelled = [word for word in alone if not word.startswith(("task", "recipe=agnostic"))]
    ready, problems = spec.prepare(
        compose(*labelled, "task=local", f"task.folder={tiny_csv_task}", "task.label_names=[bad,good]", "objective=kd")
    )
    assert ready is None and len(problems) == 1 and "reads from left to right" in problems[0], problems


def test_a_published_form_is_a_teacher(run, alone, tmp_path):
    """Without a prefix, with masks among its weights and nothing to pad with, as the hub has it."""
    written = write("gpt2", tmp_path / "gpt2")
    result = run(
        *alone, f"teacher.source=path:{written.folder}", "objective=agnostic_kd", "student=l3", "recipe.steps=1"
    )
    assert result["init"]["layers"] == [4, 8, 12] and result["init"]["random"] == 0
    table = load_file(written.folder / "model.safetensors")["wte.weight"]
    made = load_file(Path(result["student"]["weights"]) / "model.safetensors")["transformer.wte.weight"]
    assert F.cosine_similarity(made, table).min() > 0.9
